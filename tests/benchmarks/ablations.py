"""Effects of joint training, history and formulation: one recipe with one change at a time.

    python -m tests.benchmarks.ablations recipes/kosmos_lstm.toml

Every variant is trained on the same number of frames in the same number of optimiser steps, and is
evaluated in the same episodes. A run that exists already is not trained again.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from core.rollout.results import read_evaluation


@dataclass(frozen=True)
class Variant:
    """One row of the table: a change, as overrides of the recipe."""

    name: str
    overrides: tuple[str, ...] = ()


def variants(frames: int) -> list[Variant]:
    """Return the variants of a recipe with history 1.

    frames: per optimiser step, whatever the window; a multiple of 8.
    """

    def frozen(part: str) -> tuple[str, ...]:
        return (f"{part}.train=false", f"{part}.pretrained=false")  # random weights are meant

    eight = (f"train.batch_size={frames // 8}", "data.window=8")
    return [
        Variant("all parts jointly, history 1"),
        Variant("vision encoder frozen", frozen("vision_encoder")),
        Variant("text encoder frozen", frozen("text_encoder")),
        Variant("backbone frozen", frozen("backbone")),
        Variant("history 8, policy head", eight),
        Variant("history 8, interleaved", (*eight, "action_tokens.formulation=interleaved")),
    ]


def run(recipe: Path, variant: Variant, common: list[str], folder: Path) -> None:
    """Train and evaluate one variant, or go on where it was interrupted."""
    command = [sys.executable, "-m", "core.run", str(recipe), *common, *variant.overrides]
    command += ["--output", str(folder)]
    if (folder / "checkpoints").exists():
        command.append("--resume")
    print(f"{variant.name}: {folder}", flush=True)
    subprocess.run(command, check=True)


def row(variant: Variant, folder: Path) -> str:
    """Return one line of the table: all attempts at single tasks together."""
    evaluation = read_evaluation(folder / "evaluation" / "results.json")
    overall = evaluation.overall()
    low, high = overall.interval
    successes = f"{overall.successes} of {overall.episodes}"
    rate = f"{overall.rate:.0%} ({low:.0%} to {high:.0%})"
    return f"| {variant.name} | {', '.join(variant.overrides) or '-'} | {successes} | {rate} |"


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
            f"--frames {arguments.frames}: must be a multiple of 8, for windows of 8 frames"
        )
    common = [
        "evaluate.controls=[]",
        "evaluate.swap=[]",
        f"train.batch_size={arguments.frames}",
        "data.window=1",
    ]
    common += arguments.overrides
    folders = {
        variant: arguments.output / variant.name.replace(" ", "_").replace(",", "")
        for variant in variants(arguments.frames)
    }
    for variant, folder in folders.items():
        run(arguments.recipe, variant, common, folder)
    print("| variant | overrides | successes | rate (95 % interval) |\n|---|---|---|---|")
    for variant, folder in folders.items():
        print(row(variant, folder))


if __name__ == "__main__":
    main()
