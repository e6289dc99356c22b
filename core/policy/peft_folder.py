"""Adapters in the layout of peft: a folder that `peft.PeftModel.from_pretrained` loads.

adapter_config.json says which layers have adapters of which size; adapter_model.safetensors holds
the adapters, and the weights that train beside them, under the names of transformers' modules.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.contracts.abilities import Publishable
from core.errors import ConfigError
from core.policy.adapter_names import is_adapter, name_without_adapters
from core.policy.freezing import match_weights
from core.policy.lora import has_adapters, rank_and_alpha
from core.policy.policy import Policy
from core.policy.publishing import MODEL, copy_to_cpu, other_weights
from core.recipe.contents import Recipe
from core.registry.part_settings import PartSettings
from core.system.strict import parse_json
from core.system.torchvision import import_library
from core.weights.pretrained import find_misfits

ROOT = "base_model.model."  # peft puts this before the name of a module in the base model
SUPPORTED = {"peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False}


def export_adapters(policy: Policy, recipe: Recipe, out: Path) -> None:
    """Write the adapters of a policy's vision-language model, and the weights beside them.

    peft loads the folder on the published model that the parts began with. Action tokens, heads and
    projections go into policy.safetensors.

    Raises ConfigError if the parts' other weights are not those of a published model.
    """
    sources = {_source(policy, recipe, kind) for kind in MODEL}
    if len(sources) > 1:
        raise ConfigError(
            f"export: --adapters needs one published model, and the parts are of {sorted(sources)};"
            " leave it out to merge the adapters"
        )
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    others: set[str] = set()
    for kind in MODEL:
        part, settings = getattr(policy, kind), recipe.parts[kind].settings
        trained = _trained(part, settings, kind)
        tensors |= trained
        layers = {_layer(name) for name in trained if is_adapter(name)}
        rank, alpha = rank_and_alpha(settings)
        ranks |= dict.fromkeys(layers, rank)
        alphas |= dict.fromkeys(layers, alpha)
        others |= {name.rpartition(".")[0] for name in trained if not is_adapter(name)}
    if not ranks:
        raise ConfigError('export: --adapters, and no part of the model has train = "lora"')
    peft = import_library("peft", extra="lora")
    config = peft.LoraConfig(
        base_model_name_or_path=sources.pop(),
        r=next(iter(ranks.values())),
        lora_alpha=next(iter(alphas.values())),
        target_modules=sorted(ranks),
        modules_to_save=sorted(others) or None,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        inference_mode=True,
    )
    out.mkdir(parents=True)
    config.save_pretrained(out)
    weights = {ROOT + name: tensor for name, tensor in tensors.items()}
    save_file(copy_to_cpu(weights), out / "adapter_model.safetensors", metadata={"format": "pt"})
    save_file(copy_to_cpu(other_weights(policy)), out / "policy.safetensors")


def load_adapters(part: nn.Module, settings: PartSettings, where: str) -> None:
    """Fill a part's adapters, and the weights that train beside them, from a folder.

    The folder may hold adapters of other parts, too.

    where: the part's section, for messages.

    Raises ConfigError if the folder cannot be read, or does not fit the part's adapters.
    """
    folder = Path(settings.lora_pretrained or "")
    key = f"{where}.lora_pretrained"
    config, tensors = _read(folder, key)
    expected = _trained(part, settings, where)
    names = {name_without_adapters(name) for name in _published(part, where)}
    layers = {name.rpartition(".")[0] for name in names}
    given = {
        name: tensor
        for name, tensor in tensors.items()
        if name in names or (is_adapter(name) and _layer(name) in layers)
    }
    if misfits := find_misfits(expected, given):
        raise ConfigError(
            f"{key}: '{folder}' does not fit; {misfits}; choose lora_rank, lora_targets and "
            f"lora_train as its adapter_config.json says (rank {config.get('r')})"
        )
    patterns = {"r": config.get("rank_pattern"), "lora_alpha": config.get("alpha_pattern")}
    own_rank, own_alpha = rank_and_alpha(settings)
    for name, weight in expected.items():
        if ".lora_A." in name:
            rank, alpha = (
                (patterns[size] or {}).get(_layer(name), config[size]) for size in patterns
            )
            if not math.isclose(alpha / rank, own_alpha / own_rank):
                raise ConfigError(
                    f"{key}: the adapters in '{folder}' are scaled by {alpha} / {rank}; set "
                    f"lora_alpha = {alpha} and lora_rank = {rank}"
                )
        weight.copy_(given[name])


def _source(policy: Policy, recipe: Recipe, kind: Any) -> str:
    """Return the published model with which a part began; raises ConfigError if there is none."""
    settings, part = recipe.parts[kind].settings, getattr(policy, kind)
    whole = settings.train is True
    reason = "trains as a whole" if whole else "begins with no published weights"
    if whole or not settings.pretrained or not recipe.start.begins_anew(kind):
        raise ConfigError(
            f"export: --adapters: {kind} {reason}, so adapters alone do not make the policy; "
            "leave out --adapters to write all weights"
        )
    return str(part.source if settings.pretrained is True else settings.pretrained)


def _trained(part: nn.Module, settings: PartSettings, where: str) -> dict[str, Tensor]:
    """Return adapters, and what trains beside them, under the names that peft gives them."""
    others = match_weights(part, settings.lora_train or (), f"{where}.lora_train")
    addresses = {weight.data_ptr() for weight in others}
    trained = {
        name.replace(".default.", "."): tensor
        for name, tensor in _published(part, where).items()
        if is_adapter(name) or tensor.data_ptr() in addresses
    }
    if own := [name for name in trained if name != name_without_adapters(name)]:
        raise ConfigError(
            f"{where}.lora_train: {own[0]} is a weight of a layer with an adapter, and peft's "
            "layout has no place for both; drop it from lora_targets or from lora_train"
        )
    return trained


def _published(part: nn.Module, where: str) -> Mapping[str, Tensor]:
    """Return a part's tensors, adapters included, under their published names.

    Raises ConfigError for a part whose modules do not have the names of a model of transformers.
    """
    try:
        if isinstance(part, Publishable):
            return part.publish()
    except KeyError:  # a table of names knows no adapters
        pass
    if not has_adapters(part):
        return {}
    raise ConfigError(
        f"{where}: its layers have other names than transformers' model, so its adapters have no "
        "place in peft's layout; merge them (joinery export without --adapters)"
    )


def _layer(name: str) -> str:
    return name.partition(".lora_")[0]


def _read(folder: Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a folder of peft: its configuration, and {name in the base model: tensor}."""
    try:
        config = parse_json((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{key}: cannot read adapter_config.json and adapter_model.safetensors in '{folder}': "
            f"{error}"
        ) from None
    if other := [k for k, value in SUPPORTED.items() if config.get(k, value) != value]:
        raise ConfigError(
            f"{key}: '{folder}' holds other adapters than LoRA's: its {other[0]} is "
            f"{config[other[0]]!r}, and {SUPPORTED[other[0]]!r} is expected"
        )
    return config, {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
