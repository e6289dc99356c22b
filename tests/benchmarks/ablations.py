"""What joint training, history and the formulation are worth: one recipe, trained again with one
thing changed.

    python -m tests.benchmarks.ablations recipes/kosmos_lstm.toml

Every variant sees the same number of frames in the same number of optimiser steps, and is tried in
the same episodes.
A run that is there already is not trained again.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from core.rollout.results import read_evaluation


@dataclass(frozen=True)
class Variant:
    """One row of the table: what is changed, as overrides of the recipe."""

    name: str
    overrides: tuple[str, ...] = ()


def variants(frames: int) -> list[Variant]:
    """frames: per optimiser step, whatever the window; a multiple of 8. The recipe is taken with
    history 1.
    """
    eight = (f"train.batch_size={frames // 8}", "data.window=8")
    return [
        Variant("all parts jointly, history 1"),
        Variant("vision encoder frozen", ("vision_encoder.train=false",)),
        Variant("text encoder frozen", ("text_encoder.train=false",)),
        Variant("backbone frozen", ("backbone.train=false",)),
        Variant("history 8, policy head", eight),
        Variant("history 8, interleaved", (*eight, "action_tokens.formulation=interleaved")),
    ]


def run(recipe: Path, variant: Variant, common: list[str], folder: Path) -> None:
    """Train and evaluate one variant, or go on where it was interrupted."""
    resume = ["--resume"] if (folder / "checkpoints").exists() else []
    command = [
        sys.executable,
        "-m",
        "core.run",
        str(recipe),
        *common,
        *variant.overrides,
        "--output",
        str(folder),
    ]
    print(f"{variant.name}: {folder}", flush=True)
    subprocess.run([*command, *resume], check=True)


def row(variant: Variant, folder: Path) -> str:
    """One line of the table: all attempts at single tasks together."""
    evaluation = read_evaluation(folder / "evaluation" / "results.json")
    overall = evaluation.overall()
    low, high = overall.interval
    trained = (
        f"{overall.successes} of {overall.episodes} | {overall.rate:.0%} ({low:.0%} to {high:.0%})"
    )
    return f"| {variant.name} | {', '.join(variant.overrides) or '-'} | {trained} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="of every variant"
    )
    parser.add_argument(
        "--frames", type=int, default=64, help="per optimiser step, a multiple of 8"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"))
    arguments = parser.parse_args()
    if arguments.frames < 8 or arguments.frames % 8:
        parser.error(
            f"--frames {arguments.frames}: not a multiple of 8, and windows of 8 must see as many"
        )
    common = [
        "evaluate.controls=[]",
        "evaluate.swap=[]",
        f"train.batch_size={arguments.frames}",
        "data.window=1",
    ]
    common += arguments.overrides
    chosen = variants(arguments.frames)
    folders = [
        arguments.output / variant.name.replace(" ", "_").replace(",", "") for variant in chosen
    ]
    for variant, folder in zip(chosen, folders, strict=True):
        run(arguments.recipe, variant, common, folder)
    print("| variant | overrides | successes | rate (95 % interval) |\n|---|---|---|---|")
    for variant, folder in zip(chosen, folders, strict=True):
        print(row(variant, folder))


if __name__ == "__main__":
    main()
