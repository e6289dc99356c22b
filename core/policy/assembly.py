"""From a recipe to a policy: build the parts, each told what it needs to know of the others, and
fill them.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from core.contracts.abilities import HasOutputLayer, Loadable
from core.contracts.context import ContextSpec
from core.contracts.needs import Need, complaints, needs_of
from core.contracts.parts import (
    ActionSpec,
    ActionTokens,
    Backbone,
    PolicyHead,
    TextEncoder,
    VisionEncoder,
)
from core.episodes.episode import Feature
from core.errors import ConfigError
from core.policy.augmentation import Augmentation
from core.policy.lora import add_adapters
from core.policy.policy import Objective, Policy
from core.policy.projections import build_projection
from core.policy.quantization import quantize
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import Part, Recipe
from core.recipe.sections import AugmentationConfig
from core.registry.components import call_build, unoffered
from core.registry.hookspecs import ComponentKind
from core.weights.pretrained import FrozenWeights, Pretrained, checksum

# of each kind of part: its abstract class, and how many arguments its methods take; others are of
# an older plugin
CONTRACTS: Mapping[str, tuple[type[nn.Module], Mapping[str, int]]] = {
    "vision_encoder": (VisionEncoder, {"forward": 2}),
    "text_encoder": (TextEncoder, {"forward": 2}),
    "backbone": (Backbone, {"forward": 1}),
    "action_tokens": (ActionTokens, {"layout": 5}),
    "policy_head": (PolicyHead, {"forward": 2, "loss": 3}),
}


def build_policy(
    recipe: Recipe,
    cameras: Mapping[str, tuple[int, int, int]],
    action: ActionSpec,
    proprio_dim: int,
    *,
    features: Mapping[str, Feature] | None = None,
    embodiments: tuple[str, ...] = ("",),
    from_checkpoint: bool = False,
    quantized: bool = True,
) -> Policy:
    """Build the five parts that a recipe names, fill them with published weights, and freeze those
    it says.

    cameras: {name: (C, Y, X)}. features: what else encoders and heads may read, by name.
    embodiments: names of the stores that the policy is trained on. from_checkpoint: a checkpoint of
    the run will follow, so that only those published weights are read which it leaves out.
    quantized: false keeps every weight as it was published, whatever the recipe says. Raises
    ConfigError, as parts do when they refuse their configuration.
    """
    policy = _join_parts(recipe, cameras, action, proprio_dim, features or {}, embodiments)
    _load_pretrained(policy, recipe, from_checkpoint)
    _choose_what_trains(policy, recipe)
    policy.published = _published(policy, recipe)
    if quantized:
        _quantize(policy, recipe)
    for where, module, part in _built_parts(policy, recipe):
        if part.settings.gradient_checkpointing:
            recompute_blocks(module, where)
    return policy


def _join_parts(
    recipe: Recipe,
    cameras: Mapping[str, tuple[int, int, int]],
    action: ActionSpec,
    proprio_dim: int,
    features: Mapping[str, Feature],
    embodiments: tuple[str, ...],
) -> Policy:
    """Build the parts in the order in which they must know of one another."""
    parts = recipe.parts
    text_encoder = _build("text_encoder", parts["text_encoder"])
    backbone = _build("backbone", parts["backbone"])
    vision_encoder = _build(
        "vision_encoder",
        parts["vision_encoder"],
        cameras=cameras,
        text_width=text_encoder.width,
        features=features,
    )
    action_tokens = _build(
        "action_tokens",
        parts["action_tokens"],
        width=backbone.width,
        action=action,
        proprio_dim=proprio_dim,
        text_prefix=text_encoder.prefix,
    )
    spec = ContextSpec(
        width=backbone.width,
        action_tokens=action_tokens.count,
        vision_width=vision_encoder.width,
        proprio_dim=proprio_dim,
        layers=backbone.layer_spec,
        vocabulary=text_encoder.vocabulary if isinstance(text_encoder, HasOutputLayer) else 0,
        embodiments=embodiments,
        features=features,
    )
    if not backbone.both_ways and not action_tokens.causal:
        name = parts["backbone"].component.name
        raise ConfigError(
            f"action_tokens.attention: backbone '{name}' shows no token a later one; set it to \"causal\""
        )
    heads = _build_heads(recipe, spec, action, backbone, text_encoder)
    vision_role, text_role = parts["vision_encoder"].role, parts["text_encoder"].role
    projections = {
        "vision": build_projection(vision_role, vision_encoder.width, backbone.width),
        "text": build_projection(text_role, text_encoder.width, backbone.width),
    }
    changes_images = recipe.augmentation != AugmentationConfig()
    return Policy(
        vision_encoder,
        text_encoder,
        projections,
        backbone,
        action_tokens,
        heads.pop("policy_head"),
        Augmentation(recipe.augmentation, cameras) if changes_images else None,
        heads,
        _objectives(recipe),
    )


def _objectives(recipe: Recipe) -> dict[str, Objective]:
    """How the policy head and each auxiliary head count in training."""
    auxiliary = {
        label: Objective(part.role.weight, part.role.insulate)
        for label, part in recipe.auxiliary.items()
    }
    return {
        "policy_head": Objective(insulate=recipe.parts["policy_head"].role.insulate),
        **auxiliary,
    }


def _build_heads(
    recipe: Recipe,
    spec: ContextSpec,
    action: ActionSpec,
    backbone: Backbone,
    text_encoder: TextEncoder,
) -> dict[str, PolicyHead]:
    """The policy head, as "policy_head", and the auxiliary ones by label; refuse one whose needs
    are not met.

    What a head's class says is checked before it is built, so that a head need not look for layers
    that are not there.
    """
    if taken := [label for label in recipe.auxiliary if hasattr(nn.ModuleDict(), label)]:
        raise ConfigError(
            f"auxiliary '{taken[0]}'.label: PyTorch's modules have an attribute of that name"
        )
    heads = {}
    for label, part in {"policy_head": recipe.parts["policy_head"], **recipe.auxiliary}.items():
        where = label if label == "policy_head" else f"auxiliary '{label}'"
        promised = needs_of(part.component.build)
        if promised is not None:
            _check_needs(promised, f"{where}.name", part, spec, backbone, text_encoder)
        heads[label] = _build("policy_head", part, where, context=spec, action=action)
        if promised is not None and heads[label].needs != promised:
            raise ConfigError(
                f"{where}.name: the head's needs are not those of its class; say them on the class"
            )
        _check_needs(heads[label].needs, f"{where}.name", part, spec, backbone, text_encoder)
    return heads


def _build(kind: ComponentKind, part: Part, where: str | None = None, **offered: Any) -> Any:
    """Make a part of those offered arguments that its build names, as pluggy calls a hook.

    Raises ConfigError, naming the plugin, where a part is not made for this edition of the
    contract.
    """
    component, (contract, methods) = part.component, CONTRACTS[kind]
    what = f"{where or kind}.name: '{component.name}' of plugin {component.plugin}"
    advice = 'install a version for this one, or change it as docs/contracts.md, "From the first edition", says'
    if lacking := unoffered(component.build, offered):
        raise ConfigError(
            f"{what} is written for another edition of Joinery: its build asks for {', '.join(lacking)}, and this one "
            f"offers {', '.join(offered) or 'nothing'} beside the config; {advice}"
        )
    module = call_build(component.build, part.config, offered)
    if not isinstance(module, contract):
        raise ConfigError(
            f"{what} built a {type(module).__name__}, which is no {contract.__name__}; derive it from that"
        )
    if old := [name for name, count in methods.items() if not _binds(getattr(module, name), count)]:
        raise ConfigError(
            f"{what} has a method of another edition of Joinery, {' and '.join(old)}; {advice}"
        )
    if unset := [name for name in inspect.get_annotations(contract) if not hasattr(module, name)]:
        raise ConfigError(
            f"{what} must set self.{' and self.'.join(unset)}, as {contract.__name__} declares"
        )
    return module


def _binds(method: Any, count: int) -> bool:
    """Whether a method can be called with so many arguments."""
    try:
        inspect.signature(method).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _check_needs(
    needs: frozenset[Need],
    where: str,
    part: Part,
    spec: ContextSpec,
    backbone: Backbone,
    text_encoder: TextEncoder,
) -> None:
    """Refuse a head that needs what the built parts, or the data, do not have."""
    reasons = list(complaints(needs, part.role.insulate, backbone))
    if "proprio" in needs and not spec.proprio_dim:
        reasons.append("needs proprioception, and the data record none; choose another head")
    if "logits" in needs and not spec.vocabulary:
        reasons.append(
            "needs the text encoder's output layer, and it has none (of a model that can have one, set "
            "text_encoder.output = true)"
        )
    if "logits" in needs and text_encoder.width != backbone.width:
        reasons.append(
            f"needs the text encoder's output layer, which takes hidden states of width {text_encoder.width}, and the "
            f"backbone's have width {backbone.width}; make the widths agree"
        )
    if not needs and not spec.action_tokens:
        reasons.append(
            "reads action tokens, and there are none; set action_tokens.count = 1 or more"
        )
    if reasons:
        raise ConfigError([f"{where}: '{part.component.name}' {reason}" for reason in reasons])


def _built_parts(policy: Policy, recipe: Recipe) -> Iterator[tuple[str, nn.Module, Part]]:
    """The five parts and the auxiliary heads: what messages call each, the module, and what the
    recipe says of it.
    """
    yield from ((kind, getattr(policy, kind), part) for kind, part in recipe.parts.items())
    yield from (
        (f"auxiliary '{label}'", policy.auxiliary[label], part)
        for label, part in recipe.auxiliary.items()
    )


def _load_pretrained(policy: Policy, recipe: Recipe, from_checkpoint: bool) -> None:
    """Give each part its share of the weights it names; parts that name one source share one
    opening of it.
    """
    opened: dict[str, Pretrained] = {}
    for where, module, part in _built_parts(policy, recipe):
        settings = part.settings
        if not settings.pretrained or (from_checkpoint and not settings.base_is_published):
            continue
        if not isinstance(module, Loadable):
            raise ConfigError(
                f"{where}.pretrained: '{part.component.name}' has no published weights to load; drop it"
            )
        source = module.source if settings.pretrained is True else settings.pretrained
        if source is None:
            raise ConfigError(
                f"{where}.pretrained: '{part.component.name}' names no source; write a folder or a name"
            )
        try:
            module.load_pretrained(opened.setdefault(source, Pretrained(source)))
        except ConfigError as error:
            raise ConfigError([f"{where}.{line}" for line in error.mistakes]) from None


def _choose_what_trains(policy: Policy, recipe: Recipe) -> None:
    """Freeze parts and add adapters."""
    for kind, part in recipe.parts.items():
        if part.settings.train is False:
            policy.freeze(kind)
        elif part.settings.train == "lora":
            add_adapters(getattr(policy, kind), part.settings, kind)


def _published(policy: Policy, recipe: Recipe) -> FrozenWeights:
    """Which weights no checkpoint need hold."""
    weights: dict[str, Tensor] = {}
    for kind in (kind for kind, part in recipe.parts.items() if part.settings.base_is_published):
        module: nn.Module = getattr(policy, kind)
        own = getattr(module, "extra_parameters", ())  # parameters that no source has
        frozen = {
            name: p
            for name, p in module.named_parameters()
            if not p.requires_grad and name not in own
        }
        weights |= {f"{kind}.{name}": p for name, p in frozen.items()}
    return FrozenWeights(frozenset(weights), checksum(weights))


def _quantize(policy: Policy, recipe: Recipe) -> None:
    """Keep the published weights of linear layers in fewer bits where the recipe says so."""
    for kind, part in recipe.parts.items():
        if part.settings.quantize is not None:
            prefix = f"{kind}."
            kept = {
                name.removeprefix(prefix)
                for name in policy.published.names
                if name.startswith(prefix)
            }
            held = {prefix + name for name in quantize(getattr(policy, kind), kept, kind)}
            policy.published = replace(policy.published, names=policy.published.names | held)
