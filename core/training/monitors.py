"""Starts the loggers and callbacks of a recipe, and calls them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from core.contracts.monitoring import Callback, Logger, Outcome
from core.errors import ConfigError, JoineryError, TrainingError
from core.recipe.contents import Choice, Recipe
from core.registry.components import call_build, missing_arguments
from core.system.strict import one_line


class Loggers:
    """The loggers of a recipe, which get the same figures as metrics.jsonl.

    A logger that fails must not cost a training its steps: a line on the console says so, and the
    logger is not called again.

    loggers: {name in messages: logger}.
    """

    def __init__(self, loggers: Mapping[str, Logger], console: Console) -> None:
        self.loggers = dict(loggers)
        self.console = console

    @classmethod
    def start(cls, recipe: Recipe, run: Path, first: int, console: Console) -> "Loggers":
        """Start the loggers, and give them the recipe.

        run: the run's folder.
        first: number of steps done before this process began.

        Raises ConfigError for a logger that cannot be started.
        """
        loggers = {}
        for choice in recipe.loggers:
            logger = _start(choice, "train.loggers", {"run": run, "first": first})
            if not isinstance(logger, Logger):
                raise ConfigError(
                    f"train.loggers: {_described(choice)} built a {type(logger).__name__}, which "
                    "lacks a method of core.Logger; change the plugin"
                )
            loggers[_described(choice)] = logger
        started = cls(loggers, console)
        started._call("log_hyperparams", recipe.as_dict())
        return started

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Give every logger the figures of a step."""
        self._call("log_metrics", dict(values), step=step)

    def save(self) -> None:
        """Let every logger write what it has buffered."""
        self._call("save")

    def close(self, outcome: Outcome) -> None:
        """Close every logger."""
        self._call("finalize", outcome)

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> None:
        for name, logger in list(self.loggers.items()):
            try:
                getattr(logger, method)(*arguments, **keywords)
            # another author's logger, or the service behind it, may fail in any way
            except Exception as error:  # noqa: BLE001
                del self.loggers[name]
                self.console.print(
                    f"train.loggers: {name} failed in {method} and gets no further figures; "
                    f"metrics.jsonl has them all: {type(error).__name__}: {one_line(error)}",
                    soft_wrap=True,
                    markup=False,
                )


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a recipe.

    callbacks: {name of the component: (its name in messages, callback)}.

    Every method raises TrainingError, which names the plugin, for a callback that fails or returns
    something else than figures.
    """

    callbacks: Mapping[str, tuple[str, Callback]]

    @classmethod
    def start(cls, choices: Sequence[Choice], run: Path) -> "Callbacks":
        """Build the callbacks; raises ConfigError for one that cannot be built.

        run: the run's folder.
        """
        callbacks = {}
        for choice in choices:
            callback = _start(choice, "train.callbacks", {"run": run})
            if not isinstance(callback, Callback):
                raise ConfigError(
                    f"train.callbacks: {_described(choice)} built a {type(callback).__name__}, "
                    "which is no Callback; derive it from core.Callback"
                )
            callbacks[choice.component.name] = (_described(choice), callback)
        return cls(callbacks)

    def on_start(self, step: int) -> None:
        """Call the method of this name of every callback."""
        self._call("on_start", step)

    def after_step(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Call the method of this name of every callback."""
        if self.callbacks:
            self._call("after_step", step, dict(values))

    def after_validation(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Call the method of this name of every callback; return the figures of all."""
        return self._figures("after_validation", step, dict(metrics))

    def after_checkpoint(self, step: int, folder: Path) -> dict[str, float]:
        """Call the method of this name of every callback; return the figures of all."""
        return self._figures("after_checkpoint", step, folder)

    def on_end(self, outcome: Outcome) -> None:
        """Call the method of this name of every callback."""
        self._call("on_end", outcome)

    def _figures(self, method: str, step: int, *arguments: Any) -> dict[str, float]:
        """Return {"callback/NAME/FIGURE": value} of what the callbacks returned."""
        figures: dict[str, float] = {}
        for name, returned in self._call(method, step, *arguments).items():
            described = self.callbacks[name][0]
            if not (isinstance(returned, Mapping) and all(map(_is_figure, returned.items()))):
                raise TrainingError(
                    f"train.callbacks: {described}: {method} must return a mapping from names to "
                    f"finite numbers, {{}} for none, and returned {returned!r:.200}; "
                    f"{_way_out(name)}"
                )
            figures |= {f"callback/{name}/{key}": float(value) for key, value in returned.items()}
        return figures

    def _call(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Return {name of a component: what its callback's method returned}."""
        at = f" at step {arguments[0]}" if isinstance(arguments[0], int) else ""
        returned = {}
        for name, (described, callback) in self.callbacks.items():
            try:
                returned[name] = getattr(callback, method)(*arguments)
            except Exception as error:
                raise TrainingError(
                    f"train.callbacks: {described} failed in {method}{at}: "
                    f"{type(error).__name__}: {one_line(error)}; {_way_out(name)}"
                ) from error
        return returned


NO_CALLBACKS = Callbacks({})


def _start(choice: Choice, where: str, offered: Mapping[str, Any]) -> Any:
    """Build a logger or a callback; raises ConfigError if that fails."""
    described = _described(choice)
    if missing := missing_arguments(choice.component.build, offered):
        raise ConfigError(
            f"{where}: {described}: its build asks for {', '.join(missing)}, and is offered "
            f"{', '.join(offered)} beside the config; change the plugin"
        )
    try:
        return call_build(choice.component.build, choice.config, offered)
    except JoineryError as error:
        raise ConfigError([f"{where}: {line}" for line in str(error).splitlines()]) from None
    except Exception as error:
        raise ConfigError(
            f"{where}: {described} cannot be started: {type(error).__name__}: {one_line(error)}; "
            f"mend that, or drop it from {where}"
        ) from error


def _described(choice: Choice) -> str:
    return f"'{choice.component.name}' of plugin {choice.component.plugin}"


def _way_out(name: str) -> str:
    return (
        f"mend the plugin, or drop '{name}' from train.callbacks; then continue with --resume from "
        "the newest checkpoint"
    )


def _is_figure(item: tuple[object, object]) -> bool:
    name, value = item
    if not isinstance(name, str) or isinstance(value, bool):
        return False
    return isinstance(value, int | float) and math.isfinite(value)
