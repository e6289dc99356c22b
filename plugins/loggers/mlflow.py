"""MLflow."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import Register, hookimpl, import_optional, written_aside


@dataclass(frozen=True)
class MLflowConfig:
    """A run in MLflow; the server is that of MLFLOW_TRACKING_URI, or else MLflow's own default."""

    experiment: str | None = None
    """experiment of the run; default: that of MLFLOW_EXPERIMENT_NAME, or else "joinery"."""
    run_name: str | None = None
    """the run's name on the page; default: the name of the run's folder."""


class MLflowLogger:
    """Sends all figures to MLflow; a run that resumes goes on in the same MLflow run.

    Own class, because PyTorch Lightning's logger would bring all of PyTorch Lightning.

    run: the run's folder; RUN/mlflow_run_id holds the id of MLflow's run.
    first: number of steps done before; 0 begins a new run in MLflow.
    """

    def __init__(self, config: MLflowConfig, *, run: Path, first: int) -> None:
        self.mlflow = import_optional("mlflow", "mlflow")
        self.client = self.mlflow.MlflowClient()
        id_file = run / "mlflow_run_id"
        if first > 0 and id_file.exists():
            self.run_id = id_file.read_text(encoding="utf-8")
            self.client.update_run(self.run_id, status="RUNNING")
            return
        name = config.run_name or run.absolute().name
        created = self.client.create_run(self._experiment_id(config.experiment), run_name=name)
        self.run_id = created.info.run_id
        with written_aside(id_file) as aside:
            aside.write_text(self.run_id, encoding="utf-8")

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Note each key of the recipe as "section.key"; MLflow keeps the values of the start."""
        known = self.client.get_run(self.run_id).data.params
        entries = {_valid(key): value for key, value in _flat(params).items()}
        new = [self._entity("Param")(k, v) for k, v in entries.items() if k not in known]
        self.client.log_batch(self.run_id, params=new)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Queue the figures; a thread of MLflow sends them."""
        now, metric = int(time.time() * 1000), self._entity("Metric")
        entries = [metric(_valid(name), value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=entries, synchronous=False)

    def save(self) -> None:
        """Wait until all is sent."""
        self.mlflow.flush_async_logging()

    def finalize(self, status: str) -> None:
        """Wait until all is sent, and mark the run as finished, failed or killed."""
        self.save()
        ends = {"success": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}
        self.client.set_terminated(self.run_id, ends[status])

    def _experiment_id(self, name: str | None) -> str:
        """Return the id of the experiment, which is made if there is none of that name."""
        name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME", "joinery")
        known = self.client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self.client.create_experiment(name))

    def _entity(self, name: str) -> Any:
        return getattr(self.mlflow.entities, name)


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Return {"section.key": value as text}; values are cut to the length that MLflow takes."""
    if isinstance(values, dict):
        entries = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        entries = dict(enumerate(values)).items()
    else:
        return {prefix: str(values)[:500]}
    flat: dict[str, str] = {}
    for key, value in entries:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _valid(name: str) -> str:
    """Return a name with MLflow's characters alone; instructions and tasks may hold others."""
    return re.sub(r"[^\w\-. /]", "_", name)


@hookimpl
def register_loggers(register: Register) -> None:
    """Register "mlflow"."""
    register("mlflow", MLflowConfig, MLflowLogger)
