"""The built-in loggers; those of services that are not installed are skipped."""

import csv
import json
import sys

import pytest

from core import ConfigError, Logger
from plugins.loggers.csv import CSVConfig, CSVLogger
from plugins.loggers.mlflow import MLflowConfig, MLflowLogger
from plugins.loggers.tensorboard import TensorBoardConfig, build_tensorboard
from plugins.loggers.wandb import WandbConfig, WandbLogger

RECIPE = {"train": {"steps": 3, "betas": [0.9, 0.999]}, "auxiliary": [{"name": "mlp"}]}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_set_of_figures_and_no_step_twice(tmp_path):
    logger = CSVLogger(CSVConfig(), run=tmp_path, first=0)
    assert isinstance(logger, Logger)
    for step in (1, 2, 3):
        logger.log_metrics({"loss": step / 2}, step)
    logger.log_metrics({"validation/error": 0.25}, 3)
    logger.finalize("failed")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,0")  # killed
    resumed = CSVLogger(CSVConfig(), run=tmp_path, first=2)
    resumed.log_metrics({"loss": 7.0, "pose": 6.0}, 3)
    resumed.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "1", "loss": "0.5", "validation/error": "", "pose": ""},
        {"step": "2", "loss": "1.0", "validation/error": "", "pose": ""},
        {"step": "3", "loss": "7.0", "validation/error": "", "pose": "6.0"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_new_run_begins_a_new_table(tmp_path):
    for _ in range(2):
        logger = CSVLogger(CSVConfig(), run=tmp_path, first=0)
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finalize("failed")
    assert len(rows(tmp_path / "metrics.csv")) == 1


def test_tensorboard_hides_what_the_resumed_run_writes_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, value in ((0, 1.0), (1, 2.0)):
        logger = build_tensorboard(TensorBoardConfig(), run=tmp_path, first=first)
        assert isinstance(logger, Logger)
        logger.log_hyperparams(RECIPE)
        for step in range(first + 1, 4):
            logger.log_metrics({"loss": value}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 2.0),
    ]


@pytest.mark.parametrize(
    ("module", "build", "config"),
    [("wandb", WandbLogger, WandbConfig()), ("mlflow", MLflowLogger, MLflowConfig())],
)
def test_what_is_not_installed_is_named(module, build, config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"^{module} cannot be imported .*joinery\[{module}\]'"):
        build(config, run=tmp_path, first=0)


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_PROJECT", "arm")
    ids = []
    for first in (0, 2, 0):
        logger = WandbLogger(WandbConfig(offline=True), run=tmp_path / "lift", first=first)
        assert isinstance(logger, Logger)
        logger.log_hyperparams(RECIPE)
        logger.log_metrics({"loss": 0.5}, first + 1)
        assert logger.run.config["train"]["steps"] == 3
        assert (logger.run.project, logger.run.name) == ("arm", "lift")
        ids.append(logger.run.id)
        logger.save()
        logger.finalize("success")
    assert ids[0] == ids[1] != ids[2]
    assert list((tmp_path / "lift" / "wandb").glob("offline-run-*"))


@pytest.mark.filterwarnings("ignore")  # of libraries behind MLflow
def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("alembic", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "lift").mkdir()
    for first, outcome in ((0, "aborted"), (2, "success")):
        logger = MLflowLogger(MLflowConfig(), run=tmp_path / "lift", first=first)
        assert isinstance(logger, Logger)
        logger.log_hyperparams(RECIPE | {"seed": first})
        logger.log_metrics({"loss": 0.5, "validation/error/push, then lift?": 1.0}, first + 1)
        logger.save()
        logger.finalize(outcome)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("joinery").experiment_id])
    assert (run.info.run_name, run.info.status) == ("lift", "FINISHED")
    assert run.data.params["train.betas"] == json.dumps([0.9, 0.999])
    assert run.data.params["auxiliary.0.name"] == "mlp"
    assert run.data.params["seed"] == "0"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == [1, 3]
    assert "validation/error/push_ then lift_" in run.data.metrics
