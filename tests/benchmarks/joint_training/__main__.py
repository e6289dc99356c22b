"""Compares joint training with parts that are frozen, or trained one after another or in turns.

    python -m tests.benchmarks.joint_training

Writes docs/joint_training.md with its figures and its picture. A run that exists in the output
folder is not repeated, so the command can be interrupted and called again.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from core.commands.command import command, positive
from core.errors import DataError
from tests.benchmarks.joint_training.conditions import Experiment, experiments
from tests.benchmarks.joint_training.costs import measure_costs
from tests.benchmarks.joint_training.runs import (
    plan_runs,
    pretraining_plan,
    record,
    run_all,
    store_of_new_tasks,
)
from tests.benchmarks.joint_training.summary import draw_curves, summarise, write_page

DOCS = Path(__file__).parents[3] / "docs"


def costs_of(experiment: Experiment, output: Path) -> Mapping[str, float]:
    """Return the cost of a step under each condition; measured once, and kept in the output.

    Raises DataError if the kept costs are those of other conditions.
    """
    path = output / f"costs_{experiment.key}.json"
    if not path.exists():
        store = store_of_new_tasks(output, experiment.demonstrations)
        costs = measure_costs(experiment.conditions, store, output / "costs")
        path.write_text(json.dumps(costs, indent=2), encoding="utf-8")
    costs_by_key: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    if missing := [c.key for c in experiment.conditions if c.key not in costs_by_key]:
        raise DataError(
            f"{path}: lacks the cost of {', '.join(missing)}: name another --output, or remove "
            "the file; then the runs with as much processor time are planned anew"
        )
    return costs_by_key


def _several(text: str) -> int:
    """Parse a number of seeds; a spread needs two."""
    if (number := positive(text)) < 2:
        raise argparse.ArgumentTypeError("expected two seeds or more, for a spread over the seeds")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=_several, default=5, help="number of training seeds; default: 5"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count(),
        help="runs at a time; default: one per core",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/joint_training"),
        help="folder of demonstrations and runs; default: runs/joint_training",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=DOCS / "joint_training.md",
        help="the page; its figures and picture go beside it; default: docs/joint_training.md",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Record demonstrations, measure costs, train and evaluate what is missing; write the page."""
    options = _parser().parse_args(argv)
    seeds, studied = range(1, options.seeds + 1), experiments()
    options.output.mkdir(parents=True, exist_ok=True)
    record(options.output, [experiment.demonstrations for experiment in studied])
    costs = {experiment.key: costs_of(experiment, options.output) for experiment in studied}
    pretraining = [pretraining_plan(options.output, seed) for seed in seeds]
    plans = [
        plan
        for experiment in studied
        for plan in plan_runs(options.output, experiment, costs[experiment.key], seeds)
    ]
    # seed by seed, so that an interrupted study has whole comparisons of the first seeds
    plans.sort(key=lambda plan: plan.seed)
    before = run_all(pretraining, options.jobs)
    results = run_all(plans, options.jobs)
    summary = summarise(studied, costs, results, before)
    json_path, picture = options.page.with_suffix(".json"), options.page.with_suffix(".svg")
    json_path.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    draw_curves(summary, picture)
    write_page(summary, options.page, json_path.name, picture.name)
    print(options.page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
