"""Whole runs through the command, and what they wrote."""

import json
import os
import subprocess
import sys

import pytest
import torch

from core import run

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")


def metrics(folder):
    """{step: {name: value}} without the timings, which no two runs share."""
    merged = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        merged.setdefault(step, {}).update(
            {k: v for k, v in values.items() if not k.startswith("time/")}
        )
    return merged


def train(recipe_file, folder, *overrides, resume=False, with_changes=False):
    flags = ["--resume"] if resume or with_changes else []
    flags += ["--with-changes"] if with_changes else []
    return run.main([str(recipe_file), *overrides, "--output", str(folder), *flags])


def run_two_processes(recipe_file, folder, *settings, module="core.run"):
    command = [
        sys.executable,
        "-m",
        module,
        str(recipe_file),
        *settings,
        "train.devices=2",
        "train.strategy=ddp",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--output", str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
