"""A trained policy's weights in the layouts in which parts are published: a folder of Hugging Face,
or RoboVLMs'.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.contracts.abilities import Publishable
from core.errors import ConfigError
from core.policy.lora import merge_adapters
from core.policy.policy import Policy
from core.recipe.recipe import PARTS
from core.registry.hookspecs import ComponentKind

MODEL: tuple[ComponentKind, ...] = (
    "vision_encoder",
    "text_encoder",
    "backbone",
)  # the parts that a hub's checkpoint has
ROBOVLMS = "model.backbone."  # before every name of the hub in a checkpoint of RoboVLMs


def export_folder(policy: Policy, out: Path) -> None:
    """Write model.safetensors and config.json for transformers, and the rest of the policy beside
    them.

    Raises ConfigError that names the parts which were never published by anybody.
    """
    merge(policy)
    tensors, description = published_model(policy)
    rest = {
        name: x for name, x in policy.state_dict().items() if name.partition(".")[0] not in MODEL
    }
    out.mkdir(parents=True)
    save_file(_owned(tensors), out / "model.safetensors", metadata={"format": "pt"})
    save_file(_owned(rest), out / "policy.safetensors")
    (out / "config.json").write_text(json.dumps(description, indent=2), encoding="utf-8")


def published_model(policy: Policy) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The vision-language model of a policy: weights under their published names, not copied, and
    its config.json.

    Raises ConfigError that names the parts which were never published by anybody.
    """
    parts = _publishable(policy, MODEL)
    description: dict[str, Any] = {}
    for part in parts:
        description = _joined(description, part.describe())
    return _tensors(parts), description


def export_robovlms(policy: Policy, out: Path) -> None:
    """Write a state dict with RoboVLMs' names, which `torch.load(out, weights_only=True)` reads."""
    merge(policy)
    model = {ROBOVLMS + name: x for name, x in _tensors(_publishable(policy, MODEL)).items()}
    others = _tensors(_publishable(policy, ("action_tokens", "policy_head")))
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": _owned(model | others)}, out)


def merge(policy: Policy) -> None:
    """Merge the adapters of all parts into their weights, in place."""
    for kind in PARTS:
        merge_adapters(getattr(policy, kind))


def _publishable(policy: Policy, kinds: tuple[ComponentKind, ...]) -> list[Publishable]:
    parts = {kind: getattr(policy, kind) for kind in kinds}
    if any(not isinstance(projection, nn.Identity) for projection in policy.projections.values()):
        raise ConfigError(
            "export: the parts have different widths, and no published layout has the projections between"
        )
    if unknown := [
        f"{k} ({type(part).__name__})"
        for k, part in parts.items()
        if not isinstance(part, Publishable)
    ]:
        raise ConfigError(
            f"export: nobody publishes the weights of {', '.join(unknown)}, so there is no layout for it"
        )
    return list(parts.values())


def _tensors(parts: Iterable[Publishable]) -> dict[str, Tensor]:
    return {name: x for part in parts for name, x in part.publish().items()}


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Join two descriptions, section by section; ConfigError where they contradict each other."""
    if differ := [
        k
        for k in first.keys() & second.keys()
        if not isinstance(first[k], dict) and first[k] != second[k]
    ]:
        raise ConfigError(
            f"export: the parts come from different models: they disagree on {', '.join(sorted(differ))}"
        )
    both = {
        key: _joined(first[key], second[key])
        for key in first.keys() & second.keys()
        if isinstance(first[key], dict) and isinstance(second[key], dict)
    }
    return {**first, **second, **both}


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
