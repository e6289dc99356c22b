"""LeRobot's own policies, for tests that compare ours with them: torch modules, and no more.

Importing a policy of LeRobot imports its whole training framework, with a dozen libraries. Here
stand-ins take the place of the modules that only the framework needs (recipes, the hub, data, ...)
while a policy's two modules are imported; the code of the policy is LeRobot's own.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from core.system.torchvision import import_library

needs_lerobot = pytest.mark.skipif(
    not (find_spec("lerobot") and find_spec("torchvision")),
    reason="needs LeRobot (pip install --no-deps lerobot==0.4.4 and torchvision: .ci/run does)",
)


@dataclass
class PreTrainedConfig:
    """The settings that all of LeRobot's policies have, as far as their networks read them."""

    n_obs_steps: int = 1
    input_features: dict[str, Any] = field(default_factory=dict)
    output_features: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def __post_init__(self) -> None:
        pass

    @staticmethod
    def register_subclass(name: str) -> Callable[[type], type]:
        return lambda subclass: subclass

    def _features(self, kind: str) -> dict[str, Any]:
        features = self.input_features | self.output_features
        return {name: feature for name, feature in features.items() if feature.type == kind}

    @property
    def image_features(self) -> dict[str, Any]:
        return self._features("VISUAL")

    @property
    def robot_state_feature(self) -> Any:
        return self._features("STATE").get("observation.state")

    @property
    def env_state_feature(self) -> Any:
        return next(iter(self._features("ENV").values()), None)

    @property
    def action_feature(self) -> Any:
        return self._features("ACTION").get("action")


class PreTrainedPolicy(nn.Module):
    """The class from which all of LeRobot's policies are derived, without files and hub."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def load_policy(name: str) -> tuple[Any, Any]:
    """Import the modules lerobot.policies.NAME.configuration_NAME and modeling_NAME."""
    root = Path(import_module("lerobot").__file__ or "").parent
    stand_ins: dict[str, dict[str, Any]] = {
        "lerobot.policies": {"__path__": [str(root / "policies")]},
        "lerobot.policies.pretrained": {"PreTrainedPolicy": PreTrainedPolicy},
        "lerobot.configs.policies": {"PreTrainedConfig": PreTrainedConfig},
        "lerobot.datasets": {"__path__": []},
        "lerobot.datasets.utils": {"build_dataset_frame": None},
        "lerobot.processor": dict.fromkeys(
            ("PolicyAction", "RobotAction", "RobotObservation"), object
        ),
        "lerobot.optim": {"__path__": []},
        "lerobot.optim.optimizers": {"AdamWConfig": object, "AdamConfig": object},
        "lerobot.optim.schedulers": {
            "DiffuserSchedulerConfig": object,
            "VQBeTSchedulerConfig": object,
        },
    }
    before = dict(sys.modules)
    try:
        for module, members in stand_ins.items():
            sys.modules[module] = ModuleType(module)
            vars(sys.modules[module]).update(members)
        package = f"lerobot.policies.{name}"
        configuration = import_module(f"{package}.configuration_{name}")
        return configuration, import_library(f"{package}.modeling_{name}")
    finally:
        for module in [m for m in sys.modules if m.partition(".")[0] == "lerobot"]:
            if module not in before:
                del sys.modules[module]
