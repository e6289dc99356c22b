"""Stands in for `joinery run`: trains nothing, but leaves what a run leaves, step by step.

    python -m tests.core.sweep.stand_in run planned.toml --output RUN [--resume]

It needs the standard library alone, so that a test can start it often. What it "reaches" depends on
its recipe. A learning rate of 0.5 fails at step 3; RUN/../../slow makes each step take that long.
"""

import json
import signal
import sys
import time
import tomllib
from pathlib import Path
from random import Random
from typing import Any

ATTEMPTS = 10
FAILS = 0.5


def save_and_end(number: int, frame: object) -> None:
    print("saved", flush=True)
    raise SystemExit(128 + number)


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, save_and_end)
    recipe, folder = Path(words[1]), Path(words[words.index("--output") + 1])
    values = tomllib.loads(recipe.read_text())
    state = folder / "checkpoints" / "state"
    if state.exists() and "--resume" not in words:
        print(f"error: {folder}: holds a run already; continue it with --resume")
        return 1
    state.parent.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(recipe.read_text())
    done = int(state.read_text()) if state.exists() else 0
    slow = folder.parents[1] / "slow"
    with (folder / "steps").open("a") as steps:
        for step in range(done + 1, values["train"]["steps"] + 1):
            time.sleep(float(slow.read_text()) if slow.exists() else 0)
            if values["train"]["learning_rate"] == FAILS and step == 3:
                print("error: step 3: not finite: loss = nan")
                return 1
            print(step, file=steps, flush=True)
            aside = state.with_name(".state")
            aside.write_text(str(step))
            aside.rename(state)
    write_metrics(folder / "metrics.jsonl", values)
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / "evaluation" / "results.json").write_text(json.dumps(results_of(values)))
    (folder / "report.html").write_text("a report")
    return 0


def write_metrics(path: Path, values: dict[str, Any]) -> None:
    train, lines = values["train"], []
    for step in range(1, train["steps"] + 1):
        lines.append({"step": step, "loss": 1 / step + train["seed"]})
    joint = {
        f"joint/policy_head/{key}": number
        for key, number in {
            "parameters": 100.0,
            "trainable": 100.0,
            "learning_rate": 0.1,
            "gradient_norm": 1.0,
            "update": 0.1,
        }.items()
    }
    lines += [{"step": 1, **joint}, {"step": train["steps"], "time/samples_per_second": 64.0}]
    lines.append({"step": train["steps"], "validation/error": train["learning_rate"]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def results_of(values: dict[str, Any]) -> dict[str, Any]:
    train = values["train"]
    random = Random(f"{train['seed']} {train['learning_rate']}")
    episodes = [
        {
            "condition": "standard",
            "task": task,
            "seed": 1_000_000 + number,
            "instruction": f"{task} it",
            "success": random.random() < min(1.0, 0.2 + 100 * train["learning_rate"]),
            "steps": 9,
        }
        for task in ("lift", "push")
        for number in range(ATTEMPTS)
    ]
    return {
        "policy": {"recipe_sha256": "0" * 64, "parameters": 100},
        "environment": {"name": "tabletop", "config": {}, "versions": {"joinery": "0"}},
        "protocol": {"lanes": 1},
        "tiers": {},
        "episodes": episodes,
        "chains": [],
        "time": {"latency_ms": 2.5, "inference_ms": 3.0},
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
