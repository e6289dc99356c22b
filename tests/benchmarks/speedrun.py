"""Time to a working policy: how long a recipe takes until its policy succeeds, from nothing.

    python -m tests.benchmarks.speedrun recipes/kosmos_lstm.toml --seeds 7 8 9

Each seed runs the whole recipe once, by the public command in a fresh process, with a store that
is still empty: recording, training with all of the recipe's steps, and one evaluation at the end,
on placements that no demonstration used and without controls. The time is that of the whole
command. It passes if the share of successful attempts is at least the target. The record of several
seeds is the median time and the lowest success. The exit code is 0 if it passes, else 1.

A checkpoint in the middle of a run is not what a shorter run gives, since the learning rate falls
with the number of steps. So the success of checkpoints (--every) does not count, and is evaluated
after the run; it only shows whether a shorter recipe is worth a trial.

A separate short run under the profiler then shows what the time of training went into.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median_high
from time import perf_counter, time
from typing import Any

import torch

from core.evaluation.preparation import describe_environment
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.rollout.intervals import Rate
from core.rollout.results import read_evaluation
from core.weights.checkpoint import checkpoint_folder
from tests.benchmarks.step_profile import STEPS, WAITING, StepProfile, table as step_table


@dataclass(frozen=True)
class Trial:
    """A run of the recipe with one training seed; times are in seconds.

    recording: from the start of the command to the last demonstration; 0 if none are recorded.
    training: from there to the last checkpoint.
    evaluation: from there to the end of the command.
    loop: the part of training in which steps are done, with validations and checkpoints between.
    waiting: the part of the loop in which the first process waits for the loader.
    """

    seed: int
    recording: float
    training: float
    evaluation: float
    loop: float
    waiting: float
    success: Rate
    checkpoints: Mapping[int, Rate] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The time of the whole command."""
        return self.recording + self.training + self.evaluation


@dataclass(frozen=True)
class Record:
    """The summary of several seeds.

    trial: the one with the median time; of an even number of seeds, the slower one in the middle.
    success: the lowest of all seeds.
    """

    trial: Trial
    success: Rate
    seeds: tuple[int, ...]
    passes: bool


def summarise(trials: Sequence[Trial], target: float) -> Record:
    """Return the record: the median time, and the lowest success, which decides."""
    total = median_high(trial.total for trial in trials)
    trial = next(trial for trial in trials if trial.total == total)
    lowest = min((trial.success for trial in trials), key=lambda success: success.rate)
    seeds = tuple(trial.seed for trial in trials)
    return Record(trial, lowest, seeds, passes=lowest.rate >= target)


def shares_of_time(trial: Trial, step: StepProfile | None) -> dict[str, float]:
    """Return {what the time went into: seconds}, which together are the total.

    step: the profile of a training step; its proportions divide the time of the loop that is not
        spent waiting for data, so validations and checkpoints are counted as if they were steps.
    """
    outside = "training: starting, the last validation and checkpoint"
    times = {"recording": trial.recording, outside: trial.training - trial.loop}
    busy = trial.loop - trial.waiting
    if step is None:
        times["training: steps"] = busy
    else:
        rows = {name: taken for name, taken in step.rows().items() if name != WAITING}
        scale = busy / sum(rows.values())
        times |= {f"training: {name}": taken * scale for name, taken in rows.items()}
    times[f"training: {WAITING}"] = trial.waiting
    return {**times, "evaluation": trial.evaluation}


# ------------------------------------------------------------------------------ running the recipe


def run_once(options: argparse.Namespace, seed: int, common: Sequence[str]) -> Trial:
    """Run the recipe from nothing with one seed, then evaluate the checkpoints of the run."""
    folder, store = options.output / f"seed_{seed}", _store(options.output, seed)
    overrides = [*common, f"train.seed={seed}"]
    recipe = load_recipe(options.recipe, overrides, load_plugins())
    if recipe.demonstrations:
        overrides.append(f"data.path={store.absolute()}")
    began, clock = time(), perf_counter()
    _python("-m", "core.run", options.recipe, *overrides, "--output", folder)
    total = perf_counter() - clock
    # a file's time of change is the end of the phase that wrote it last
    commits = [file.stat().st_mtime for file in store.glob("commits/*.json")]
    saved = checkpoint_folder(folder, recipe.train.steps) / "state.json"
    recording = max(commits) - began if commits else 0.0
    training = saved.stat().st_mtime - began - recording
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    loop, waiting = loop_times([json.loads(line) for line in lines], recipe.train.batch_size)
    return Trial(
        seed=seed,
        recording=recording,
        training=training,
        evaluation=total - recording - training,
        loop=loop,
        waiting=waiting,
        success=_success(folder),
        checkpoints=_evaluate_checkpoints(folder, recipe.train.steps, options.every),
    )


def _store(output: Path, seed: int) -> Path:
    """Return where the run with a seed records its demonstrations."""
    return output / f"seed_{seed}.zarr"


def loop_times(metrics: Sequence[Mapping[str, float]], batch_size: int) -> tuple[float, float]:
    """Return the seconds of the training loop until its last entry, and those of waiting for data.

    metrics: the entries of metrics.jsonl.
    """
    last = [entry for entry in metrics if "time/samples_per_second" in entry][-1]
    seconds = last["step"] * batch_size / last["time/samples_per_second"]
    return seconds, seconds * last["time/data_wait"]


def _evaluate_checkpoints(folder: Path, steps: int, every: int | None) -> dict[int, Rate]:
    """Return {step: success} of the checkpoints before the last one; none without `every`."""
    rates = {}
    for step in range(every, steps, every) if every else ():
        # a command evaluates the newest checkpoint of a run, so each gets a run of its own
        run, checkpoint = folder / "at" / f"{step}", checkpoint_folder(folder, step)
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(folder / "recipe.toml", run)
        # hard links: a link out of a run is not followed, and a copy would take as much room
        shutil.copytree(checkpoint, run / "checkpoints" / checkpoint.name, copy_function=os.link)
        _python("-m", "core.cli", "evaluate", run)
        rates[step] = _success(run)
    return rates


def _success(run: Path) -> Rate:
    return read_evaluation(run / "evaluation" / "results.json").overall()


def _profile_step(options: argparse.Namespace, common: Sequence[str]) -> StepProfile | None:
    """Profile some steps of the recipe, with the demonstrations of the first seed."""
    if not options.profile_steps:
        return None
    store, file = _store(options.output, options.seeds[0]), options.output / "step.json"
    overrides = [*common, f"data.path={store.absolute()}"] if store.exists() else list(common)
    words = ["--steps", str(options.profile_steps), "--json", file]
    _python("-m", "tests.benchmarks.step_profile", options.recipe, *overrides, *words)
    return StepProfile(**json.loads(file.read_text(encoding="utf-8")))


def _python(*words: str | Path) -> None:
    """Run Python with these words in a fresh process; raises if it fails."""
    subprocess.run([sys.executable, *map(str, words)], check=True)


def common_overrides(options: argparse.Namespace, recipe: Recipe) -> list[str]:
    """Return the overrides of all runs: the user's, then those that the measurement needs."""
    demonstrated = recipe.demonstrations.tasks if recipe.demonstrations else ()
    evaluated = recipe.evaluate.tasks if recipe.evaluate else ()
    tasks = evaluated or demonstrated or tuple(describe_environment(recipe).tasks)
    measured = [
        f"evaluate.episodes={math.ceil(options.attempts / len(tasks))}",
        "evaluate.chains=0",
        "evaluate.controls=[]",
        "evaluate.swap=[]",
    ]
    if options.every:
        kept = math.ceil(recipe.train.steps / options.every) + 1
        measured += [f"train.checkpoint_every={options.every}", f"train.keep_last={kept}"]
    return [*options.overrides, *measured]


# --------------------------------------------------------------------------------------- the report


def duration(seconds: float) -> str:
    """Return a time in minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def success_text(success: Rate) -> str:
    """Return successes and attempts, with Wilson's 95 % interval."""
    low, high = success.interval
    return f"{success.successes} of {success.episodes} ({low:.1%} to {high:.1%})"


def _times(trial: Trial) -> str:
    phases = (trial.recording, trial.training, trial.evaluation, trial.total)
    return " | ".join(map(duration, phases))


def trials_table(trials: Sequence[Trial]) -> str:
    """Return the table of all seeds."""
    lines = ["| seed | recording | training | evaluation | total | success |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [f"| {each.seed} | {_times(each)} | {success_text(each.success)} |" for each in trials]
    return "\n".join(lines)


def record_table(recipe: str, record: Record) -> str:
    """Return the record as a row for docs/results.md; a person fills in the change."""
    heading = "| recipe | change | recording | training | evaluation | total | success | seeds |"
    seeds = ", ".join(map(str, record.seeds))
    row = f"| {recipe} | - | {_times(record.trial)} | {success_text(record.success)} | {seeds} |"
    return f"{heading}\n|---|---|---|---|---|---|---|---|\n{row}"


def shares_table(trial: Trial, step: StepProfile | None) -> str:
    """Return the table of what the time of a run went into."""
    lines = [f"| what the time went into, seed {trial.seed} | time | share |", "|---|---|---|"]
    for name, seconds in shares_of_time(trial, step).items():
        lines.append(f"| {name} | {duration(seconds)} | {seconds / trial.total:.1%} |")
    return "\n".join(lines)


def checkpoints_table(trials: Sequence[Trial]) -> str:
    """Return the table of checkpoints before the last one: a row for each, a column per seed."""
    lines = ["| step | " + " | ".join(f"success, seed {trial.seed}" for trial in trials) + " |"]
    lines.append("|---" * (len(trials) + 1) + "|")
    for step in trials[0].checkpoints:
        cells = " | ".join(success_text(trial.checkpoints[step]) for trial in trials)
        lines.append(f"| {step} | {cells} |")
    return "\n".join(lines)


def report(
    options: argparse.Namespace, trials: Sequence[Trial], step: StepProfile | None, load: float
) -> Record:
    """Print all tables; return the record."""
    record = summarise(trials, options.target)
    tables = [trials_table(trials), record_table(options.recipe.name, record)]
    tables.append(shares_table(record.trial, step))
    if step:
        tables.append(step_table(step))
    if options.every:
        tables.append("Checkpoints of these runs, which are not what shorter runs give:")
        tables.append(checkpoints_table(trials))
    verdict = "passes" if record.passes else "does not pass"
    tables.append(f"{verdict}: the lowest success is {record.success.rate:.1%}")
    tables[-1] += f", the target {options.target:.0%}"
    tables.append(f"load of the machine before the start: {load:.1f}; it should be near 0")
    print("", *tables, sep="\n\n")
    return record


def as_json(
    options: argparse.Namespace,
    trials: Sequence[Trial],
    record: Record,
    step: StepProfile | None,
    load: float,
) -> dict[str, Any]:
    """Return everything that was measured, and what it depends on, as plain data."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": load,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {
        "recipe": str(options.recipe),
        "overrides": options.overrides,
        "target": options.target,
        "machine": machine,
        "trials": [{**asdict(trial), "total": trial.total} for trial in trials],
        "record": {
            **asdict(record),
            "total": record.trial.total,
            "rate": record.success.rate,
            "interval": record.success.interval,
        },
        "time": shares_of_time(record.trial, step),
        "step": asdict(step) if step else None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--target", type=float, default=0.95, help="success; default: 0.95")
    parser.add_argument(
        "--attempts",
        type=int,
        default=108,
        help="at all tasks together, rounded up to as many of each; default: 108",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="of training; default: the recipe's")
    parser.add_argument(
        "--every", type=int, metavar="STEPS", help="evaluate checkpoints after the run, too"
    )
    parser.add_argument(
        "--profile-steps", type=int, default=STEPS, help=f"0 for none; default: {STEPS}"
    )
    parser.add_argument("--output", type=Path, help="default: runs/speedrun/NAME for NAME.toml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def main() -> int:
    parser = _parser()
    options = parser.parse_intermixed_args()
    recipe = load_recipe(options.recipe, options.overrides, load_plugins())
    if recipe.evaluate is None or recipe.environment is None:
        parser.error(f"{options.recipe}: needs [environment] and [evaluate]")
    options.seeds = options.seeds or [recipe.train.seed]
    options.output = options.output or Path("runs/speedrun") / options.recipe.stem
    if options.output.exists():
        parser.error(f"{options.output}: exists, and a speedrun begins with nothing: remove it")
    load = os.getloadavg()[0]
    common = common_overrides(options, recipe)
    options.output.mkdir(parents=True)
    trials = [run_once(options, seed, common) for seed in options.seeds]
    step = _profile_step(options, common)
    record = report(options, trials, step, load)
    if options.json:
        figures = as_json(options, trials, record, step, load)
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0 if record.passes else 1


if __name__ == "__main__":
    raise SystemExit(main())
