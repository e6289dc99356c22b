"""Weights & Biases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from core import Register, hookimpl, import_optional, written_aside


@dataclass(frozen=True)
class WandbConfig:
    """A run in Weights & Biases; its environment variables hold for all else, WANDB_ENTITY, say."""

    project: str | None = None
    """project of the run; default: that of WANDB_PROJECT, or else W&B's own default."""
    run_name: str | None = None
    """the run's name on the page; default: the name of the run's folder."""
    offline: bool = False
    """send nothing; `wandb sync RUN/wandb/offline-*` does that later. false: as WANDB_MODE says."""


class WandbLogger:
    """Sends all figures to Weights & Biases; a run that resumes goes on in the same W&B run.

    Own class, because PyTorch Lightning's logger would bring all of PyTorch Lightning.

    run: the run's folder; RUN/wandb holds the files of W&B, and RUN/wandb/run_id the id of its run.
    first: number of steps done before; 0 begins a new run in W&B.
    """

    def __init__(self, config: WandbConfig, *, run: Path, first: int) -> None:
        wandb = import_optional("wandb", "wandb")
        id_file = run / "wandb" / "run_id"
        resumes = first > 0 and id_file.exists()
        if not resumes:
            id_file.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(id_file) as aside:
                aside.write_text(uuid4().hex, encoding="utf-8")
        self.run = wandb.init(
            project=config.project,
            name=config.run_name or run.absolute().name,
            id=id_file.read_text(encoding="utf-8"),
            resume="allow" if resumes else None,
            mode="offline" if config.offline else None,
            dir=run,
        )
        # the figures of a step come in several calls, and not in the order of the steps
        self.run.define_metric("train_step")
        self.run.define_metric("*", step_metric="train_step", step_sync=True)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Note the recipe as the run's config."""
        self.run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Hand the figures to W&B's own process, which sends them."""
        self.run.log({**metrics, "train_step": step})

    def save(self) -> None:
        """Do nothing, because W&B writes by itself."""

    def finalize(self, status: str) -> None:
        """Wait until all is sent, and mark the run as finished, or as failed."""
        self.run.finish(exit_code=int(status == "failed"))


@hookimpl
def register_loggers(register: Register) -> None:
    """Register "wandb"."""
    register("wandb", WandbConfig, WandbLogger)
