"""Exports a trained policy in the file layouts in which its parts were published.

Each part knows its tensors' names in these layouts (`Publishable`, `CheckpointPublishable`).
This module merges adapters, joins the tensors of the parts and writes the files.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.contracts.abilities import CheckpointPublishable, HasFiles, Publishable
from core.errors import ConfigError
from core.policy.lora import merge_adapters
from core.policy.policy import Policy
from core.recipe.contents import PARTS
from core.registry.hookspecs import ComponentKind

# the parts that make up a vision-language model
MODEL: tuple[ComponentKind, ...] = ("vision_encoder", "text_encoder", "backbone")


def export_folder(policy: Policy, out: Path) -> None:
    """Write a folder that transformers loads: model.safetensors, config.json, and further files.

    The further files are those of the tokenizer and of the image processor, so that the folder can
    be the `model` of another recipe. The weights of action tokens, heads and projections, which no
    such model has, go into policy.safetensors in the same folder. Raises the same ConfigErrors as
    `published_model`.
    """
    merge(policy)
    tensors, description = published_model(policy)
    out.mkdir(parents=True)
    save_file(copy_to_cpu(tensors), out / "model.safetensors", metadata={"format": "pt"})
    save_file(copy_to_cpu(other_weights(policy)), out / "policy.safetensors")
    (out / "config.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    for kind in MODEL:
        part = getattr(policy, kind)
        if isinstance(part, HasFiles):
            part.publish_files(out)


def other_weights(policy: Policy) -> dict[str, Tensor]:
    """Return {name: weight} of action tokens, heads and projections, which no such model has."""
    return {
        name: x for name, x in policy.state_dict().items() if name.partition(".")[0] not in MODEL
    }


def published_model(policy: Policy) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a policy's vision-language model: {published name: weight}, and its config.json.

    The weights are not copied. Raises ConfigError if the vision encoder, text encoder and backbone
    cannot be written as one model: a part belongs to no published model (the message names it),
    the parts' widths differ, or the parts come from different models.
    """
    _raise_unless_publishable(policy, MODEL, Publishable)
    parts: list[Publishable] = [getattr(policy, kind) for kind in MODEL]
    description: dict[str, Any] = {}
    for part in parts:
        description = _join_descriptions(description, part.describe())
    return _join_tensors(part.publish() for part in parts), description


def export_checkpoint(policy: Policy, out: Path) -> None:
    """Write a checkpoint (.ckpt) in the layout of the parts' publishers: {"state_dict": ...}.

    `torch.load(out, weights_only=True)` reads the file. Raises ConfigError, naming the parts, if
    the tensors of some parts have no names in such a checkpoint.
    """
    merge(policy)
    _raise_unless_publishable(policy, PARTS, CheckpointPublishable)
    parts: list[CheckpointPublishable] = [getattr(policy, kind) for kind in PARTS]
    tensors = _join_tensors(part.publish_checkpoint() for part in parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": copy_to_cpu(tensors)}, out)


def merge(policy: Policy) -> None:
    """Merge the adapters of all parts into their weights, in place."""
    for kind in PARTS:
        merge_adapters(getattr(policy, kind))


def _raise_unless_publishable(
    policy: Policy, kinds: Iterable[ComponentKind], ability: type[Any]
) -> None:
    if any(not isinstance(projection, nn.Identity) for projection in policy.projections.values()):
        raise ConfigError(
            "export: the parts have different widths, and no published layout holds the "
            "projections between them"
        )
    parts = {kind: getattr(policy, kind) for kind in kinds}
    unknown = [
        f"{kind} ({type(part).__name__})"
        for kind, part in parts.items()
        if not isinstance(part, ability)
    ]
    if unknown:
        raise ConfigError(
            f"export: nobody publishes the weights of {', '.join(unknown)}, so there is no layout "
            "for them"
        )


def _join_tensors(tensors_of_parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for tensors in tensors_of_parts:
        joined |= tensors
    return joined


def _join_descriptions(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Join two config.json by section; raises ConfigError if the two contradict each other."""
    common = first.keys() & second.keys()
    sections = {key for key in common if isinstance(first[key], dict)}
    contradictions = [key for key in common - sections if first[key] != second[key]]
    if contradictions:
        raise ConfigError(
            "export: the parts come from different models: they disagree on "
            f"{', '.join(sorted(contradictions))}"
        )
    joined = {**first, **second}
    for key in sections:
        joined[key] = _join_descriptions(first[key], second[key])
    return joined


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that share no memory."""
    return {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
