"""A third party's plugin: the optimiser Lion (Chen et al. 2023), which PyTorch does not have."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge, Lt

from core import hookimpl
from core.registry import catalogue


@dataclass(frozen=True)
class LionConfig:
    """Lion; its learning rates are three to ten times below those of AdamW."""

    blend: Annotated[float, Ge(0), Lt(1)] = 0.9
    """share of the momentum in a step."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.99
    """decay rate of the momentum."""


class Lion(torch.optim.Optimizer):
    """Every weight moves by the learning rate, in the direction of a sign."""

    def __init__(self, config: LionConfig, *, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"blend": config.blend, "momentum": config.momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                direction = torch.lerp(p.grad, state["momentum"], group["blend"]).sign()
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * direction)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])


@hookimpl
def register_optimizers(register: Any) -> None:
    register("lion", LionConfig, Lion)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let this module be an installed plugin, as its entry point would."""
    entry = SimpleNamespace(
        name="lion",
        value="lion",
        dist=SimpleNamespace(name="joinery-lion", version="1.0"),
        load=lambda: import_module("tests.lion"),
    )
    real_entry_points = metadata.entry_points
    patch.setattr(
        metadata,
        "entry_points",
        lambda group: [entry] if group == "joinery" else real_entry_points(group=group),
    )
    with_lion = catalogue.load_plugins.__wrapped__()
    for module in ("core.registry.catalogue", "core.training.run_folder", "core.rollout.actor"):
        patch.setattr(f"{module}.load_plugins", lambda: with_lion)
