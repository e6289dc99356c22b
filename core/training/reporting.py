"""Reports on a run: writes metrics.jsonl, and shows a progress display."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from zlib import crc32

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from core.contracts.monitoring import Outcome
from core.errors import CheckpointError, TrainingError
from core.system.files import complete_lines, remove_leftovers, written_aside
from core.system.links import open_to_append
from core.system.progress import Progress
from core.system.strict import parse_json
from core.training.monitors import Loggers


class MetricsLog:
    """Writes RUN/metrics.jsonl, with one JSON object per measurement, and feeds the loggers.

    If two runs have the same recipe and data, only values whose keys begin with "time/" differ.

    first: number of steps done before this process began. Lines of later steps, which an
        interrupted run wrote, are dropped, since the resumed run does these steps again.
    loggers: those of the recipe, which get all figures, too.
    """

    def __init__(self, run: Path, first: int, loggers: Loggers) -> None:
        path = run / "metrics.jsonl"
        lines = [line for line in complete_lines(path) if parse_json(line)["step"] <= first]
        remove_leftovers(path)
        with written_aside(path) as aside:
            aside.write_text("".join(lines), encoding="utf-8")
        self.file = TextIOWrapper(open_to_append(path), encoding="utf-8")
        self.loggers = loggers

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl, and give the values to the loggers.

        JSON has no NaN and no infinity, so null stands for a value that is not finite.
        """
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.file.write(json.dumps({"step": step, **numbers}, allow_nan=False) + "\n")
        self.loggers.log(step, values)

    def flush(self) -> None:
        """Write all buffered lines to the disk; raises CheckpointError if the disk is full."""
        try:
            self.file.flush()
        except OSError as error:
            raise CheckpointError(
                f"{self.file.name}: cannot write the metrics: {error.strerror}; "
                "the checkpoints are intact: make room, then continue with --resume"
            ) from None
        self.loggers.save()

    def close(self, outcome: Outcome) -> None:
        """Close metrics.jsonl and the loggers.

        If the disk is full, the last lines are lost, but the resumed run writes them again.
        """
        with suppress(OSError):
            self.file.close()
        self.loggers.close(outcome)


@dataclass(frozen=True)
class Reading:
    """A step's losses and gradient norm, still on the device, and its episodes' ids."""

    step: int
    values: Mapping[str, Tensor]
    learning_rate_factor: float
    episodes: Sequence[str]


class Readings:
    """Collects losses of several steps without waiting for the device; reads them all at once."""

    def __init__(self) -> None:
        self.pending: list[Reading] = []

    def record(
        self,
        step: int,
        micro_batches: Sequence[tuple[Mapping[str, Tensor], Sequence[str]]],
        gradient_norm: Tensor | None,
        learning_rate_factor: float,
    ) -> Mapping[str, Tensor]:
        """Keep a step's losses, averaged over its micro-batches, until they are read; return them.

        micro_batches: (losses, episode ids) of each micro-batch.
        gradient_norm: norm of the gradient; None if it is unknown.
        """
        losses = [losses for losses, _ in micro_batches]
        values = {
            name: torch.stack([terms[name].detach() for terms in losses]).mean()
            for name in losses[0]
        }
        episodes = [episode for _, names in micro_batches for episode in names]
        if gradient_norm is not None:
            values["gradient_norm"] = gradient_norm
        self.pending.append(Reading(step, values, learning_rate_factor, episodes))
        return values

    def read(self, fabric: Fabric) -> list[tuple[Reading, dict[str, float]]]:
        """Return the values of all pending steps, averaged over the processes.

        The call waits for the device only once, not once for each step.
        """
        if not self.pending:
            return []
        _raise_unless_same_terms(fabric, self.pending)
        # one row of values for all steps, because steps of two stages may have different losses
        values = [value for reading in self.pending for value in reading.values.values()]
        row = torch.stack([value.detach().float() for value in values])
        numbers = iter(torch.as_tensor(fabric.all_reduce(row, reduce_op="mean")).tolist())
        readings, self.pending = self.pending, []
        return [(reading, {name: next(numbers) for name in reading.values}) for reading in readings]


def _raise_unless_same_terms(fabric: Fabric, readings: Sequence[Reading]) -> None:
    """Raise TrainingError if the processes have different terms, which cannot be averaged.

    `StagedTraining.check` makes sure that the terms of a process stay the same.
    """
    if fabric.world_size == 1:
        return
    names = " ".join(f"{reading.step}:{name}" for reading in readings for name in reading.values)
    own = torch.tensor(crc32(names.encode()), device=fabric.device)
    if len(set(torch.as_tensor(fabric.all_gather(own)).tolist())) > 1:
        terms = ", ".join(readings[-1].values)
        raise TrainingError(
            f"step {readings[-1].step}: the processes have different terms of the loss, this one "
            f"{terms}; mend the plugin that returns a term in some batches alone"
        )


# what to do about a step that is not finite
REMEDIES = (
    "go on from there with --resume --with-changes and train.not_finite=skip, a lower "
    "train.learning_rate or a lower train.gradient_clip"
)
FIRST_REMEDIES = (
    "begin again with train.not_finite=skip, a lower train.learning_rate or a lower "
    "train.gradient_clip"
)


def raise_if_not_finite(
    reading: Reading, values: Mapping[str, float], last_checkpoint: Path | None
) -> None:
    """Raise TrainingError if a value is NaN or infinite.

    The error names the step, the episodes of the batch and the last good checkpoint.
    """
    if all(math.isfinite(value) for value in values.values()):
        return
    raise TrainingError(
        f"step {reading.step}: not finite: {describe_not_finite(reading, values)}; "
        f"{_way_on(last_checkpoint)}, or look at those episodes"
    )


def describe_not_finite(reading: Reading, values: Mapping[str, float]) -> str:
    """Name the values that are not finite, and the episodes of their batch."""
    broken = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    episodes = sorted(set(reading.episodes))
    listed = ", ".join(episodes[:8])
    if len(episodes) > 8:
        listed += f" and {len(episodes) - 8} more"
    return f"{', '.join(broken)}; episodes of the batch: {listed}"


def _way_on(last_checkpoint: Path | None) -> str:
    """Say from where training can go on, and how."""
    return f"last good checkpoint: {last_checkpoint or 'none yet'}; " + (
        REMEDIES if last_checkpoint else FIRST_REMEDIES
    )


def raise_if_weights_broken(policy: nn.Module, step: int, last_checkpoint: Path | None) -> None:
    """Raise TrainingError if a weight is not finite.

    The call waits for the device once.
    """
    names, parameters = zip(*policy.named_parameters(), strict=True)
    finite = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()
    broken = [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]
    if broken:
        raise TrainingError(
            f"step {step}: {len(broken)} weights are not finite, {broken[0]} for one; "
            f"{_way_on(last_checkpoint)}"
        )


class Display:
    """Shows the step, its losses, samples per second and the share of time spent waiting for data.

    first: number of steps done before this process began.
    batch_size: number of samples per step.
    """

    def __init__(self, steps: int, first: int, batch_size: int, *, console: Console) -> None:
        self.first, self.batch_size = first, batch_size
        self.started = time.perf_counter()
        self.progress = Progress("step", "", steps, console, completed=first, transient=False)
        self.progress.__enter__()

    def update(self, step: int, losses: Mapping[str, float], waited: float) -> dict[str, float]:
        """Show the newest step; return {key of a metric: its timing}.

        waited: seconds spent waiting for data since the start.
        """
        elapsed = time.perf_counter() - self.started
        per_second = (step - self.first) * self.batch_size / elapsed
        timings = {"time/samples_per_second": per_second, "time/data_wait": waited / elapsed}
        text = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        text += f"  {per_second:.1f} samples/s  data wait {timings['time/data_wait']:.1%}"
        self.progress.update(step, text=text)
        return timings

    def close(self) -> None:
        """Stop the display, and leave the terminal as it was before."""
        self.progress.__exit__(None, None, None)
