"""Weights of a checkpoint of a run, from which the parts of another policy may start."""

import tomllib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from core.errors import ConfigError
from core.system.links import check_run
from core.weights.checkpoint import Checkpoint, checkpoints, choose_checkpoint
from core.weights.pretrained import (
    WEIGHT_FILES,
    Pretrained,
    check_state_dict,
    strip_prefix,
)

# Builds the policy of a run with a checkpoint's weights, adapters merged into them; the last
# argument says whether with their averages, if the run kept averages.
Restore = Callable[[Path, Checkpoint, bool], nn.Module]


def is_run(source: str) -> bool:
    """Whether a source of weights is the folder of a run, or of one of its checkpoints.

    The folder of a run holds its recipe.toml. A folder with weights beside a recipe.toml is no run.
    Neither is a path that is not absolute, because `Pretrained` takes it for a name on the Hugging
    Face hub.
    """
    folder = Path(source)
    if not folder.is_absolute():
        return False
    if _is_checkpoint(folder):
        return True
    if not (folder / "recipe.toml").is_file():
        return False
    return not any(list(folder.glob(f"{name}*")) for name in WEIGHT_FILES)


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is RUN/checkpoints/step_N."""
    return (
        folder.parent.name == "checkpoints"
        and (folder / "state.json").is_file()
        and (folder.parent.parent / "recipe.toml").is_file()
    )


class RunWeights:
    """The weights of one checkpoint of a run.

    The checkpoint is chosen when weights are read for the first time. Later calls take the same
    checkpoint, even if the run has saved another one in the meantime.

    source: the folder of the run, or of one of its checkpoints.
    restore: builds the run's policy, for weights that the checkpoint itself does not hold.
    which: the checkpoint, if `source` is the folder of the run.
    averages: whether to take the averages of the weights, if the run kept averages.
    key: the key of the recipe that names the source, for messages.
    """

    def __init__(
        self,
        source: Path,
        restore: Restore,
        which: Literal["last", "best"] | int = "last",
        *,
        averages: bool = True,
        key: str = "pretrained",
    ) -> None:
        self.run = source.parent.parent if _is_checkpoint(source) else source
        self._source, self._which = source, which
        self._restore, self._averages = restore, averages
        self._key = key

    def load(self, modules: Mapping[str, nn.Module]) -> None:
        """Fill modules of a policy; all names and shapes must be as the modules expect.

        modules: {name of a module in the policy, "backbone" for example: the module to fill}.

        Raises ConfigError if there is no run or no checkpoint, or if a name or shape does not fit.
        Raises CheckpointError if a checkpoint is damaged.
        """
        expected = {
            f"{prefix}.{name}": tensor
            for prefix, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        tensors = {
            f"{prefix}.{name}": tensor
            for prefix in modules
            for name, tensor in self.tensors(prefix).items()
        }
        check_state_dict(expected, tensors, str(self.checkpoint.folder))
        for prefix, module in modules.items():
            module.load_state_dict(dict(strip_prefix(tensors, f"{prefix}.")))

    def tensors(self, name: str) -> Mapping[str, Tensor]:
        """Return the tensors of a module of the run's policy, {name in the module: tensor}.

        Adapters are merged into the weights, and weights that the checkpoint leaves out come from
        where the run has them; for both, the run's policy is built. Empty if there is no such
        module.
        """
        if self._holds(name):
            return strip_prefix(self._saved, f"{name}.")
        module = self.module(name)
        return {} if module is None else module.state_dict()

    def module(self, name: str) -> nn.Module | None:
        """Return a module of the run's policy, with its weights; None if there is none."""
        return dict(self._policy.named_modules()).get(name)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint whose weights are taken."""
        available = checkpoints(self.run)
        if not available:
            raise ConfigError(
                f"{self._key}: the run '{self.run}' has no checkpoint; let it train until it has "
                "saved one, or name another source"
            )
        if self._source != self.run:
            if self._which != "last":
                raise ConfigError(
                    f"start.checkpoint: {self._which!r} is asked for, and start.run names one "
                    f"checkpoint, '{self._source}'; name the run's folder, or drop start.checkpoint"
                )
            return next(c for c in available if c.folder.name == self._source.name)
        return choose_checkpoint(self.run, self._which)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The run's recipe, {section: {key: value}}, with every default and absolute paths."""
        check_run(self.run)
        path = self.run / "recipe.toml"
        if not path.is_file():
            raise ConfigError(
                f"{self._key}: there is no run in '{self.run}'; name the folder of a run, with "
                "recipe.toml and checkpoints"
            )
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._key}: cannot read '{path}': {error}") from None

    def _holds(self, name: str) -> bool:
        """Whether the checkpoint itself holds all weights of a module, without adapters."""
        section = self.recipe.get(name, {})
        if not isinstance(section, dict):
            return True
        train = section.get("train", True)
        some_rest = train is False or bool(section.get("freeze"))
        return train != "lora" and not (some_rest and self.checkpoint.state.get("left_out", 0))

    @cached_property
    def _saved(self) -> Mapping[str, Tensor]:
        """The tensors in the checkpoint, {name in the policy: tensor}."""
        folder = self.checkpoint.folder
        saved = self._open(folder)  # a checkpoint has the layout of published weights
        weights = folder / "training.safetensors"
        if self._averages or not weights.exists():
            return saved
        return {**saved, **self._open(weights)}

    def _open(self, path: Path) -> Mapping[str, Tensor]:
        try:
            return Pretrained(str(path)).tensors
        except ConfigError as error:
            reason = str(error).removeprefix("pretrained: ")
            raise ConfigError(f"{self._key}: {reason}") from None

    @cached_property
    def _policy(self) -> nn.Module:
        """The run's policy with the checkpoint's weights, adapters merged."""
        try:
            return self._restore(self.run, self.checkpoint, self._averages)
        except ConfigError as error:
            where = f"{self._key}: the policy of '{self.run}'"
            raise ConfigError([f"{where}: {line}" for line in error.mistakes]) from None
