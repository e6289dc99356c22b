"""Loggers and callbacks: what they get, and what a broken one does to a training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from core import Callback, ConfigError, TrainingError
from core.recipe.contents import Choice
from core.registry.components import Component, Plugin
from core.training.monitors import Callbacks, Loggers
from core.weights.checkpoint import checkpoints
from tests import strangers
from tests.core.training.runs import metrics, run_two_processes, train

PLUGIN = Plugin("watch", "joinery-watch", "0.3.0")


def chosen(kind, build):
    return Choice(Component(kind, "mine", SimpleNamespace, build, PLUGIN), SimpleNamespace())


class Recorder(Callback):
    """Notes every call."""

    def __init__(self, config):
        self.calls = []

    def on_start(self, step):
        self.calls.append(("on_start", step))

    def after_step(self, step, values):
        assert not any(value.requires_grad for value in values.values())
        self.calls.append(("after_step", step, sorted(values)))

    def after_validation(self, step, metrics):
        self.calls.append(("after_validation", step, "validation/error" in metrics))
        return {"twice": 2 * metrics["validation/error"]}

    def after_checkpoint(self, step, folder):
        assert (folder / "model.safetensors").exists()
        self.calls.append(("after_checkpoint", step, folder.name))
        return {}

    def on_end(self, outcome):
        self.calls.append(("on_end", outcome))


def test_a_third_partys_logger_and_callback_watch_a_run(recipe_file, tmp_path, monkeypatch):
    assert train(recipe_file, tmp_path / "plain") == 0
    strangers.install(monkeypatch)
    recipe = recipe_file.read_text().replace("[data]", WATCHED + "[data]", 1)
    recipe_file.write_text(recipe)
    folder = tmp_path / "watched"
    assert train(recipe_file, folder) == 0
    lines = (folder / "figures.txt").read_text().splitlines()
    assert lines[0] == "# seed 0"
    assert lines[-1] == "# success"
    assert not (folder / "tensorboard").exists()
    steps, plain = metrics(folder), metrics(tmp_path / "plain")
    peak = max(plain[step]["gradient_norm"] for step in (1, 2, 3))
    assert steps[3].pop("callback/gradient_peak/gradient_norm") == pytest.approx(peak)
    assert f"3 callback/gradient_peak/gradient_norm {peak:.6g}" in lines
    steps[6].pop("callback/gradient_peak/gradient_norm")
    assert steps == plain, "watching changes nothing"
    written = (folder / "recipe.toml").read_text()
    assert 'name = "gradient_peak"' in written
    assert 'file = "figures.txt"' in written


WATCHED = """
loggers = ["text"]
[[train.callbacks]]
name = "gradient_peak"
"""


def test_a_callback_is_called_at_each_moment(load, tmp_path, monkeypatch):
    from core.training import train as train_module

    recorder = Recorder(None)
    monkeypatch.setattr(
        Callbacks, "start", lambda *_: Callbacks({"mine": ("'mine' of plugin x", recorder)})
    )
    recipe = load("train.steps=3", "train.loggers=[]")
    assert train_module.train(recipe, tmp_path / "run", resume=False) == 0
    losses = ["gradient_norm", "gripper", "pose", "total"]
    assert recorder.calls == [
        ("on_start", 0),
        ("after_step", 1, losses),
        ("after_step", 2, losses),
        ("after_checkpoint", 2, "step_00000002"),
        ("after_step", 3, losses),
        ("after_validation", 3, True),
        ("after_checkpoint", 3, "step_00000003"),
        ("on_end", "success"),
    ]
    figures = metrics(tmp_path / "run")[3]
    assert figures["callback/mine/twice"] == 2 * figures["validation/error"]


def test_a_callback_that_fails_ends_the_run_with_the_plugins_name(load, tmp_path, monkeypatch):
    from core.training import train as train_module

    class Failing(Recorder):
        def after_step(self, step, values):
            super().after_step(step, values)
            if step == 3:
                raise ZeroDivisionError("division by zero")

    failing = Failing(None)
    choice = chosen("callback", lambda config: failing)
    start = Callbacks.start
    monkeypatch.setattr(Callbacks, "start", lambda _, run: start([choice], run))
    with pytest.raises(TrainingError) as failure:
        train_module.train(load(), tmp_path / "run", resume=False)
    assert str(failure.value) == (
        "train.callbacks: 'mine' of plugin 'watch' (joinery-watch 0.3.0) failed in after_step at "
        "step 3: ZeroDivisionError: division by zero; mend the plugin, or drop 'mine' from "
        "train.callbacks; then continue with --resume from the newest checkpoint"
    )
    assert failing.calls[-1] == ("on_end", "failed")
    assert [c.step for c in checkpoints(tmp_path / "run")] == [2]
    monkeypatch.setattr(Callbacks, "start", start)  # the way out
    assert train_module.train(load(), tmp_path / "run", resume=True) == 0


def test_a_callback_that_fails_after_a_validation_costs_neither_it_nor_the_weights(
    load, tmp_path, monkeypatch
):
    from core.training import train as train_module

    class Failing(Recorder):
        def after_validation(self, step, metrics):
            raise ZeroDivisionError("division by zero")

    settings = ("train.checkpoint_every=6", "train.patience=2", "train.validate_every=6")
    recipe = load(*settings, "train.steps=12")
    mine = Callbacks({"mine": ("'mine' of plugin x", Failing(None))})
    start = Callbacks.start
    monkeypatch.setattr(Callbacks, "start", lambda *_: mine)
    with pytest.raises(TrainingError, match="failed in after_validation at step 6"):
        train_module.train(recipe, tmp_path / "run", resume=False)
    (saved,) = checkpoints(tmp_path / "run")
    assert saved.step == 6
    assert saved.error == metrics(tmp_path / "run")[6]["validation/error"]
    assert saved.state["early_stopping"] == {"best": saved.error, "since": 0}
    monkeypatch.setattr(Callbacks, "start", start)
    assert train_module.train(recipe, tmp_path / "run", resume=True) == 0


def test_figures_of_a_checkpoint_are_written_at_once(load, tmp_path, monkeypatch):
    from core.training import train as train_module

    class Measuring(Callback):
        def after_checkpoint(self, step, folder):
            return {"weights": 1.0}

        def after_step(self, step, values):
            if step == 3:
                assert metrics(tmp_path / "run")[2]["callback/mine/weights"] == 1.0

    mine = Callbacks({"mine": ("'mine' of plugin x", Measuring())})
    monkeypatch.setattr(Callbacks, "start", lambda *_: mine)
    recipe = load("train.steps=3", "train.loggers=[]")
    assert train_module.train(recipe, tmp_path / "run", resume=False) == 0


@pytest.mark.parametrize("returned", [None, 3.0, {"x": torch.ones(2)}, {"x": float("nan")}])
def test_a_callback_returns_figures(returned):
    callback = Callback()
    callback.after_validation = lambda step, metrics: returned
    callbacks = Callbacks.start([chosen("callback", lambda config: callback)], Path())
    with pytest.raises(TrainingError, match=r"watch.*must return a mapping from names to finite"):
        callbacks.after_validation(1, {})


def test_a_logger_that_fails_is_dropped_and_training_goes_on(capsys):
    class Broken(dict):
        calls = 0

        def log_hyperparams(self, params):
            pass

        def log_metrics(self, metrics, step):
            self.calls += 1
            raise ConnectionError("no route to host")

        def save(self):
            raise AssertionError("called after it failed")

        finalize = save

    broken = Broken()
    loggers = Loggers({"'mine' of plugin x": broken}, Console(width=500))
    for step in (1, 2):
        loggers.log(step, {"loss": 1.0})
    loggers.save()
    loggers.close("success")
    assert broken.calls == 1
    assert capsys.readouterr().out == (
        "train.loggers: 'mine' of plugin x failed in log_metrics and gets no further figures; "
        "metrics.jsonl has them all: ConnectionError: no route to host\n"
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda config, *, server: None, "its build asks for server, and is offered run, first"),
        (lambda config: 1 / 0, "cannot be started: ZeroDivisionError: division by zero; mend that"),
        (lambda config: object(), "built a object, which lacks a method of core.Logger"),
    ],
)
def test_a_logger_that_cannot_be_started_is_named(build, message):
    recipe = SimpleNamespace(loggers=(chosen("logger", build),), as_dict=dict)
    with pytest.raises(ConfigError) as failure:
        Loggers.start(recipe, Path(), 0, Console())
    assert message in str(failure.value)
    assert "'mine' of plugin 'watch' (joinery-watch 0.3.0)" in str(failure.value)


def test_a_callback_must_be_one():
    with pytest.raises(ConfigError, match=r"built a dict, which is no Callback; derive it from"):
        Callbacks.start([chosen("callback", lambda config: {})], Path())


def test_of_two_processes_the_first_says_why_a_logger_cannot_be_started(recipe_file, tmp_path):
    module = "tests.core.training.run_without_loggers"
    done = run_two_processes(recipe_file, tmp_path / "run", "train.accelerator=cpu", module=module)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: train.loggers: 'mine' cannot be started") == 1
    assert "Traceback" not in done.stderr
