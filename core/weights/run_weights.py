"""Weights of a run's newest checkpoint, from which the parts of another policy may start."""

import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from core.errors import ConfigError
from core.weights.checkpoint import checkpoints
from core.weights.pretrained import (
    WEIGHT_FILES,
    Pretrained,
    check_state_dict,
    filter_keys,
    strip_prefix,
)


def is_run(source: str) -> bool:
    """Whether a source of weights is the folder of a run, which holds its recipe.toml.

    A folder with weights beside a recipe.toml is no run. Neither is a path that is not absolute,
    because `Pretrained` takes it for a name on the Hugging Face hub.
    """
    folder = Path(source)
    if not folder.is_absolute() or not (folder / "recipe.toml").is_file():
        return False
    return not any(list(folder.glob(f"{name}*")) for name in WEIGHT_FILES)


class RunWeights:
    """The weights that a run acts with, from its newest checkpoint.

    The checkpoint is chosen when weights are loaded for the first time. Later calls take the same
    checkpoint, even if the run has saved another one in the meantime.
    """

    def __init__(self, run: str) -> None:
        self.run = Path(run)

    def load(self, modules: Mapping[str, nn.Module]) -> None:
        """Fill modules of a policy; all names and shapes must be as the modules expect.

        modules: {name of a module in the policy, "backbone" for example: the module to fill}.

        Raises ConfigError if the run has no checkpoint, or if a name or shape does not fit; the
        message gives the reason if the run trained adapters of the module or left out its weights.
        Raises CheckpointError if a checkpoint is damaged.
        """
        weights = self._newest
        expected = {
            f"{prefix}.{name}": tensor
            for prefix, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        prefixes = tuple(f"{prefix}." for prefix in modules)
        tensors = filter_keys(weights.tensors, lambda name: name.startswith(prefixes))
        try:
            check_state_dict(expected, tensors, weights.source)
        except ConfigError:
            for part in modules:
                self._check_held(part)
            raise
        for prefix, module in modules.items():
            module.load_state_dict(dict(strip_prefix(tensors, f"{prefix}.")))

    @cached_property
    def _newest(self) -> Pretrained:
        """The newest checkpoint; its folder has the layout of published weights."""
        if not (available := checkpoints(self.run)):
            raise ConfigError(
                f"pretrained: the run '{self.run}' has no checkpoint; let it train until it has "
                "saved one, or name another source"
            )
        return Pretrained(str(available[-1].folder))

    def _check_held(self, part: str) -> None:
        """Raise ConfigError if the run's checkpoints do not hold all weights of a part."""
        settings = self._recipe.get(part, {})
        if settings.get("train") == "lora":
            raise ConfigError(
                f"pretrained: the run '{self.run}' trained adapters of its {part}, which do not "
                f"fit a part without them; write them into its weights by `joinery export "
                f"{self.run} OUT` and name OUT, or train that run with {part}.train = true"
            )
        if settings.get("train") is False and settings.get("pretrained"):
            raise ConfigError(
                f"pretrained: the run '{self.run}' did not train its {part}, and its checkpoints "
                "leave out these weights; name the source that it took them from: "
                f"pretrained = {json.dumps(settings['pretrained'])}"
            )

    @property
    def _recipe(self) -> dict[str, Any]:
        """The run's recipe, {section: {key: value}}, with every default and absolute paths."""
        path = self.run / "recipe.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"pretrained: cannot read '{path}': {error}") from None
