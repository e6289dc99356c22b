"""Where the time of a recipe's training step goes: its operators in groups, as torch.profiler sees.

    python -m tests.benchmarks.step_profile recipes/kosmos_lstm.toml

The demonstrations must have been recorded. The first steps of a training run warm up, the next ones
are timed, and as many again are profiled. The profiler makes a step slower, so the table has the
time of a step both with and without it. The times are those of the first process. On a GPU, an
operator's time is that of its kernels.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from core.loading.loader import Loader
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.fit import fit
from core.training.reporting import Readings
from core.training.run_folder import find_start
from core.training.signals import StopSignal
from core.training.train import launch, set_up

WARM_UP = 5  # steps: threads start, memory is allocated
STEPS = 10

MATRIX, CONVOLUTIONS, ATTENTION = "matrix products", "convolutions", "attention"
ELEMENTWISE, COPIES = "elementwise and reductions", "copies and look-ups"
OPTIMISER, EXCHANGE, OTHER = "optimiser", "exchange between processes", "other operators"
WAITING = "data (waiting for the loader)"
REST = "the rest (Python, waiting for other processes)"
GROUPS = (MATRIX, CONVOLUTIONS, ATTENTION, ELEMENTWISE, OPTIMISER, COPIES, EXCHANGE, OTHER)
# Names of operators, without variants such as in place or backward. An operator that is in none of
# these lists computes each element, or a reduction: of these there are hundreds.
MATRIX_OPERATORS = """
    mm addmm bmm baddbmm addbmm mv addmv dot matmul linear mkldnn_linear einsum lstm gru
    mkldnn_rnn_layer cudnn_rnn
"""
COPY_OPERATORS = """
    copy to to_copy clone contiguous cat stack zero fill zeros zeros_like ones ones_like full
    full_like index index_put index_put_impl index_select index_add embedding embedding_dense gather
    scatter scatter_add repeat repeat_interleave pad constant_pad_nd roll flip slice select
"""
# they make a tensor without touching its elements, or read one number
VIEW_OPERATORS = """
    empty empty_like empty_strided new_empty resize set view reshape reshape_alias unsafe_view t
    numpy_t transpose permute expand expand_as as_strided unsqueeze squeeze detach alias unbind
    split split_with_sizes chunk unflatten flatten narrow movedim result_type item
    local_scalar_dense is_nonzero
"""


@dataclass(frozen=True)
class Span:
    """Seconds of some training steps, and how many of them the process waits for the loader."""

    seconds: float
    waiting: float

    def __sub__(self, earlier: "Span") -> "Span":
        return Span(self.seconds - earlier.seconds, self.waiting - earlier.waiting)


@dataclass(frozen=True)
class StepProfile:
    """The time of a training step, in milliseconds.

    step: of a step without the profiler.
    profiled: of a step under the profiler; `groups`, `waiting` and the rest make it up.
    groups: {group of operators: time}.
    waiting: for the loader.
    operators: {group: its operators that take most, with their times}.
    """

    step: float
    profiled: float
    waiting: float
    groups: Mapping[str, float]
    operators: Mapping[str, Mapping[str, float]]

    @property
    def rest(self) -> float:
        """The time that belongs to no operator and is not spent waiting for the loader."""
        return max(0.0, self.profiled - self.waiting - sum(self.groups.values()))

    def rows(self) -> dict[str, float]:
        """Return {what a step does: milliseconds}, which together are the profiled step."""
        groups = {name: self.groups[name] for name in GROUPS if self.groups.get(name)}
        return {**groups, WAITING: self.waiting, REST: self.rest}


# --------------------------------------------------------------------------- operators in groups


def bare_name(operator: str) -> str:
    """Return an operator's name without what marks its variants: aten::add_ -> add."""
    name = operator.removeprefix("aten::").strip("_").removeprefix("native_")
    return re.sub(r"_backward\w*$", "", name)


def group_of(names: Sequence[str]) -> str:
    """Return the group of an operator.

    names: of the operator, of the operator that called it, and so on. What the optimiser calls
        belongs to the optimiser, and what attention calls to attention.
    """
    operator = names[0]
    if any(name.startswith("Optimizer.") for name in names):
        return OPTIMISER
    if any("scaled_dot_product" in name for name in names if name.startswith("aten::")):
        return ATTENTION
    if operator.startswith(("c10d::", "gloo:", "nccl:")):
        return EXCHANGE
    name = bare_name(operator)
    if not operator.startswith("aten::") or name in VIEW_OPERATORS.split():
        return OTHER
    if "conv" in name:
        return CONVOLUTIONS
    if name in MATRIX_OPERATORS.split():
        return MATRIX
    return COPIES if name in COPY_OPERATORS.split() else ELEMENTWISE


def _names(event: FunctionEvent) -> Iterator[str]:
    """Yield the names of an operator and its callers, innermost first."""
    caller: FunctionEvent | None = event
    while caller is not None:
        yield caller.name
        caller = caller.cpu_parent


def summarise(
    events: Sequence[FunctionEvent], timed: Span, profiled: Span, steps: int, *, on_gpu: bool
) -> StepProfile:
    """Return the times of a step.

    events: of the profiled steps.
    timed: steps without the profiler.
    profiled: as many steps under the profiler.
    """
    groups: Counter[str] = Counter()
    operators: dict[str, Counter[str]] = {}
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue  # a kernel; its operator has the kernel's time, too
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        group = group_of(list(_names(event)))
        if group == OTHER and event.is_user_annotation:
            continue  # Python between operators, of a whole forward pass for example
        groups[group] += microseconds / 1e3 / steps
        operators.setdefault(group, Counter())[event.name] += microseconds / 1e3 / steps
    return StepProfile(
        step=1e3 * timed.seconds / steps,
        profiled=1e3 * profiled.seconds / steps,
        waiting=1e3 * profiled.waiting / steps,
        groups=dict(groups),
        operators={group: dict(times.most_common(3)) for group, times in operators.items()},
    )


# ------------------------------------------------------------------------------ profiling a run


class ProfiledReadings(Readings):
    """Readings of a run that also time some of its steps, and profile as many after them.

    `fit` calls `record` at the end of every step.
    """

    def __init__(self, loader: Loader, steps: int, device: torch.device) -> None:
        super().__init__()
        self.loader, self.steps, self.device = loader, steps, device
        gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profiler = profile(activities=[ProfilerActivity.CPU, *gpu])
        self.clock = self._clock()

    def _clock(self) -> Span:
        """Return the time now, and the time spent waiting for the loader until now."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Span(perf_counter(), self.loader.waited)

    def record(self, step: int, *values: Any) -> None:
        """Record a step as usual, and start and stop clock and profiler after the right steps."""
        super().record(step, *values)
        if step == WARM_UP:
            self.clock = self._clock()
        elif step == WARM_UP + self.steps:
            self.timed = self._clock() - self.clock
            self.profiler.start()
            self.clock = self._clock()
        elif step == WARM_UP + 2 * self.steps:
            self.profiled = self._clock() - self.clock
            self.profiler.stop()


def profile_training(recipe: Recipe, steps: int) -> StepProfile | None:
    """Train for some steps; return the times of a step, or None in all processes but the first."""
    fabric = launch(recipe)
    with TemporaryDirectory() as folder, StopSignal() as stop:
        start = find_start(recipe, Path(folder), resume=False, with_changes=False)
        run = set_up(fabric, recipe, Path(folder), start, stop, writes=False)
        readings = ProfiledReadings(run.training, steps, fabric.device)
        run.readings = readings
        try:
            fit(run, 0)
        finally:
            run.close("success")
    if not fabric.is_global_zero:
        return None
    events = list(readings.profiler.events() or [])  # type: ignore[no-untyped-call]
    on_gpu = fabric.device.type == "cuda"
    return summarise(events, readings.timed, readings.profiled, steps, on_gpu=on_gpu)


def overrides_for(steps: int) -> list[str]:
    """Return overrides for a run that does nothing but train while its steps are measured."""
    never = 10 * (WARM_UP + 2 * steps)
    keys = ("validate_every", "checkpoint_every", "joint_table_every")
    # one step more than are measured, since the last step also measures the joint table
    last = WARM_UP + 2 * steps + 1
    return [f"train.steps={last}", *(f"train.{key}={never}" for key in keys)]


def table(times: StepProfile) -> str:
    """Return the table of a step in Markdown, and a line below it."""
    lines = ["| in a training step | ms | of the step | operators that take most |"]
    lines.append("|---|---|---|---|")
    for group, milliseconds in times.rows().items():
        operators = ", ".join(
            f"{name.removeprefix('aten::')} {taken:.1f}"
            for name, taken in times.operators.get(group, {}).items()
        )
        share = milliseconds / times.profiled
        lines.append(f"| {group} | {milliseconds:.1f} | {share:.1%} | {operators or '-'} |")
    lines.append(f"| all | {times.profiled:.1f} | 100% | |")
    lines.append(f"\nwithout the profiler a step takes {times.step:.1f} ms")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"to profile, and to time; default: {STEPS}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times there, too")
    arguments = parser.parse_intermixed_args()
    overrides = [*arguments.overrides, *overrides_for(arguments.steps)]
    recipe = load_recipe(arguments.recipe, overrides, load_plugins())
    times = profile_training(recipe, arguments.steps)
    if times is None:
        return
    print(table(times))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(times), indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
