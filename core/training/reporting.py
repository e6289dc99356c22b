"""What a run tells: metrics.jsonl and TensorBoard for later, a live display for now."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from core.errors import CheckpointError, TrainingError
from core.system.files import complete_lines
from core.system.progress import Progress


class MetricsLog:
    """RUN/metrics.jsonl, one object per measurement, and RUN/tensorboard. Only keys below "time/"
    vary from run to run.

    first: steps done before; what an interrupted run wrote past them is dropped, since it will be
    written again.
    """

    def __init__(self, run: Path, first: int) -> None:
        path = run / "metrics.jsonl"
        kept = [line for line in complete_lines(path) if json.loads(line)["step"] <= first]
        path.write_text("".join(kept), encoding="utf-8")
        self.file = path.open("a", encoding="utf-8")
        self.tensorboard = SummaryWriter(str(run / "tensorboard"), purge_step=first + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, and one TensorBoard scalar per value."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything written so far to the system; raises CheckpointError where the disk is
        full.
        """
        try:
            self.file.flush()
        except OSError as error:
            raise CheckpointError(
                f"{self.file.name}: cannot write the metrics: {error.strerror}; the checkpoints are intact: "
                "make room, then continue with --resume"
            ) from None

    def close(self) -> None:
        """Close both files. What no longer fits on the disk is written again when the run is
        resumed.
        """
        with suppress(OSError):
            self.file.close()
        self.tensorboard.close()


@dataclass(frozen=True)
class Reading:
    """One step's losses, still on the device."""

    step: int
    values: Mapping[str, Tensor]
    learning_rate_factor: float
    episodes: Sequence[str]


class Readings:
    """Collects the steps' losses without waiting for the device, and reads them together."""

    def __init__(self) -> None:
        self.pending: list[Reading] = []

    def record(
        self,
        step: int,
        micro_batches: Sequence[tuple[Mapping[str, Tensor], Sequence[str]]],
        gradient_norm: Tensor | None,
        learning_rate_factor: float,
    ) -> None:
        """Keep one step's losses, the mean over its micro-batches' (losses, episodes), until they
        are read.
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

    def read(self, fabric: Fabric) -> list[tuple[Reading, dict[str, float]]]:
        """Wait for the device once and return every pending step's values, averaged over the
        processes.
        """
        if not self.pending:
            return []
        stacked = torch.stack(
            [torch.stack([v.detach().float() for v in r.values.values()]) for r in self.pending]
        )
        rows = torch.as_tensor(fabric.all_reduce(stacked, reduce_op="mean")).tolist()
        read = [
            (r, dict(zip(r.values, row, strict=True)))
            for r, row in zip(self.pending, rows, strict=True)
        ]
        self.pending = []
        return read


def raise_if_not_finite(
    reading: Reading, values: Mapping[str, float], last_checkpoint: Path | None
) -> None:
    """Raise TrainingError at a NaN or infinity: with the step, the batch's episodes and the last
    good checkpoint.
    """
    wrong = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    episodes = sorted(set(reading.episodes))
    shown = ", ".join(episodes[:8]) + (
        f" and {len(episodes) - 8} more" if len(episodes) > 8 else ""
    )
    raise TrainingError(
        f"step {reading.step}: not finite: {', '.join(wrong)}; episodes of the batch: {shown}; "
        f"last good checkpoint: {last_checkpoint or 'none yet'}; "
        "lower the learning rate, clip gradients, or look at those episodes"
    )


def raise_if_weights_broken(policy: nn.Module, step: int, last_checkpoint: Path | None) -> None:
    """Raise TrainingError rather than save weights that are not finite; waits for the device once."""
    names, parameters = zip(*policy.named_parameters(), strict=True)
    finite = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()
    broken = [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]
    if broken:
        raise TrainingError(
            f"step {step}: {len(broken)} weights are not finite, {broken[0]} for one; last good checkpoint: "
            f"{last_checkpoint or 'none yet'}; lower the learning rate or clip gradients"
        )


class Display:
    """Shows the step, its losses, samples per second and the share of time spent waiting for data.

    first: steps done before this process began.
    """

    def __init__(self, steps: int, first: int, batch_size: int, *, console: Console) -> None:
        self.first, self.batch_size = first, batch_size
        self.started = time.perf_counter()
        self.progress = Progress("step", "", steps, console, completed=first, transient=False)
        self.progress.__enter__()

    def update(self, step: int, losses: Mapping[str, float], waited: float) -> dict[str, float]:
        """Show the newest step; return its timings.

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
        """Leave the terminal as it was."""
        self.progress.__exit__(None, None, None)
