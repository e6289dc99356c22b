"""What watches training: loggers, which get its figures, and callbacks, which get its events."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

Outcome = Literal["success", "failed", "aborted"]
"""How training ended: all steps are done, an error ended it, or a stop signal did."""


@runtime_checkable
class Logger(Protocol):
    """Where figures go: the methods of Lightning Fabric's loggers that Joinery calls.

    Loggers of Fabric and of PyTorch Lightning have these methods. A logger need not inherit from
    this class. Only the first process of a run has loggers.
    """

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Note the recipe, {section: {key: value}}; called once, before all other methods."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Note figures of a step. A step may have several calls, and the steps may be unordered."""

    def save(self) -> None:
        """Write what is still buffered; called before each checkpoint."""

    def finalize(self, status: Outcome) -> None:
        """Close the logger; no other method is called afterwards."""


class Callback:
    """A plugin's own code at fixed moments of training; each method does nothing by default.

    Only the first process of a run has callbacks, and the other processes wait for them. A callback
    gets no weights: one that needs them opens the checkpoint. It must leave alone what decides the
    weights, such as PyTorch's settings, so that the run stays the same with and without it.
    """

    def on_start(self, step: int) -> None:
        """Called before the first step of this process.

        step: number of steps that the run had done before: 0 unless it resumes.
        """

    def after_step(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Called after each optimiser step.

        values: {name: scalar} of the step's losses ("total" is their sum) and "gradient_norm",
            detached and still on the device, of this process alone. `float(value)` waits for the
            device, so call it rarely.
        """

    def after_validation(
        self,
        step: int,  # noqa: ARG002 (for those that override it, as below)
        metrics: Mapping[str, float],  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Called after each validation; return figures of your own to log, or {}.

        metrics: the figures of metrics.jsonl, "validation/error" for example.
        """
        return {}

    def after_checkpoint(
        self,
        step: int,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Called after each checkpoint; return figures of your own to log, or {}.

        folder: the checkpoint's folder; `core.load_policy` opens its run.
        """
        return {}

    def on_end(self, outcome: Outcome) -> None:
        """Called after the last step of this process, also if an error ended training."""
