"""Make a policy from a recipe: build and join the parts, load weights, choose what trains."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.contracts.abilities import HasOutputLayer, HasTokenCount
from core.contracts.context import ContextSpec
from core.contracts.needs import Need, declared_needs, unmet_needs
from core.contracts.parts import (
    ActionSpec,
    ActionTokens,
    Backbone,
    PolicyHead,
    TextEncoder,
    VisionEncoder,
)
from core.episodes.episode import Feature
from core.errors import ConfigError, DataError
from core.loading.training_data import action_spec
from core.policy.augmentation import Augmentation
from core.policy.boundary import Boundary
from core.policy.freezing import freeze_weights, modules_with_fixed_statistics
from core.policy.initial_weights import (
    KEPT,
    keeps_initial_weights,
    load_frozen_weights,
    load_initial_weights,
    parts_and_heads,
)
from core.policy.lora import add_adapters, merge_adapters
from core.policy.peft_folder import load_adapters
from core.policy.policy import Objective, Policy
from core.policy.projections import build_projection
from core.policy.quantization import quantize
from core.policy.recomputation import recompute_blocks
from core.policy.trained_state import read_state
from core.policy.weight_sources import check_extra_parameters, check_parts_of_one_model
from core.recipe.contents import PARTS, Part, Recipe
from core.recipe.recipe import load_acting_recipe
from core.recipe.sections import AugmentationConfig
from core.registry.building import build_component
from core.registry.catalogue import load_plugins
from core.registry.hookspecs import ComponentKind
from core.weights.checkpoint import Checkpoint, load_training_weights, load_weights
from core.weights.pretrained import FrozenWeights, checksum

# {kind of part: its abstract class, and the number of arguments of each method}; a plugin whose
# method takes another number of arguments was written for another edition of the contract
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
    resumed_run: Path | None = None,
    quantized: bool = True,
    moved: Mapping[str, str] | None = None,
) -> Policy:
    """Build the policy that a recipe describes, with its initial weights loaded.

    cameras: {name: (C, Y, X)}.
    features: {name: feature} of the features that encoders and heads can read in addition to
        images.
    embodiments: names of the stores that the policy is trained on.
    resumed_run: folder of the run of which a checkpoint will be loaded next; if there is one, this
        function loads only weights that its checkpoints leave out.
    quantized: False quantises no weights, whatever the recipe says.
    moved: {former place of a file or folder: its place now}, of those that the recipes of runs name
        with whose weights the policy begins.

    Raises ConfigError for parts that do not fit together, or that refuse their configuration.
    """
    policy = _join_parts(recipe, cameras, action, proprio_dim, features or {}, embodiments)
    _check_sampling(recipe, policy.policy_head)
    check_parts_of_one_model(policy, recipe)
    restore = partial(_restore, moved=moved)
    if resumed_run is None:
        load_initial_weights(policy, recipe, restore)
    else:
        load_frozen_weights(policy, recipe, restore, resumed_run / KEPT)
    for where, name, part in parts_and_heads(recipe):
        _choose_what_trains(policy, where, name, part, resumed=resumed_run is not None)
    if resumed_run is None:
        check_extra_parameters(policy, recipe)
    policy.frozen_weights = _find_frozen_weights(policy, recipe)
    if quantized:
        _quantize(policy, recipe)
    for where, name, part in parts_and_heads(recipe):
        if part.settings.gradient_checkpointing:
            recompute_blocks(policy.get_submodule(name), where)
    return policy


def restore_policy(
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    exact: bool = False,
    moved: Mapping[str, str] | None = None,
) -> Policy:
    """Build the policy of a run as it acts with a checkpoint's weights.

    recipe: the run's recipe.
    exact: build it at full precision, neither quantised nor in bfloat16.
    moved: as for `build_policy`; the places in `recipe` itself are those of now.

    Raises ConfigError for parts that do not fit together, and CheckpointError for a checkpoint that
    is damaged or does not fit.
    """
    info, action_normalizer, _ = read_state(checkpoint)
    policy = build_policy(
        recipe,
        {name: (3, camera.height, camera.width) for name, camera in info.cameras.items()},
        action_spec(action_normalizer, recipe.data.window, recipe.action.horizon),
        proprio_dim=len(info.proprio),
        features=info.features,
        embodiments=tuple(checkpoint.state.get("stores", [""])),
        resumed_run=checkpoint.folder.parent.parent,
        quantized=not exact,
        moved=moved,
    )
    if recipe.train.precision == "bf16-true" and not exact:
        policy.to(torch.bfloat16)  # the policy acts with the precision of training
    load_weights(checkpoint, policy, policy.frozen_weights)
    return policy


def _restore(
    run: Path, checkpoint: Checkpoint, averages: bool, *, moved: Mapping[str, str] | None
) -> Policy:
    """Build the policy of another run, with adapters merged into its weights.

    averages: whether with the averages of its weights, if the run kept averages.
    """
    recipe = load_acting_recipe(run, load_plugins(), moved)
    policy = restore_policy(recipe, checkpoint, exact=True, moved=moved)
    if not averages:
        load_training_weights(checkpoint, policy)
    for kind in PARTS:
        merge_adapters(getattr(policy, kind))
    return policy


def _join_parts(
    recipe: Recipe,
    cameras: Mapping[str, tuple[int, int, int]],
    action: ActionSpec,
    proprio_dim: int,
    features: Mapping[str, Feature],
    embodiments: tuple[str, ...],
) -> Policy:
    """Build the parts, each after the parts whose sizes it needs, and join them."""
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
    _check_attention(recipe, backbone, action_tokens)
    spec = ContextSpec(
        width=backbone.width,
        action_tokens=action_tokens.count,
        vision_width=vision_encoder.width,
        vision_tokens=vision_encoder.count if isinstance(vision_encoder, HasTokenCount) else 0,
        proprio_dim=proprio_dim,
        proprio_normalization=recipe.data.proprio_normalization,
        layers=backbone.layer_spec,
        vocabulary=text_encoder.vocabulary if isinstance(text_encoder, HasOutputLayer) else 0,
        embodiments=embodiments,
        features=features,
    )
    heads = _build_heads(recipe, spec, action, backbone, text_encoder)
    vision, text = parts["vision_encoder"], parts["text_encoder"]
    projections = {
        "vision": build_projection(vision.kind_settings, vision_encoder.width, backbone.width),
        "text": build_projection(text.kind_settings, text_encoder.width, backbone.width),
    }
    changes_images = recipe.augmentation != AugmentationConfig()
    return Policy(
        vision_encoder,
        text_encoder,
        projections,
        backbone,
        action_tokens,
        policy_head=heads.pop("policy_head"),
        augmentation=Augmentation(recipe.augmentation, cameras) if changes_images else None,
        auxiliary=heads,
        objectives=_objectives(recipe),
        boundary=Boundary(_components(recipe), action),
    )


def _check_attention(recipe: Recipe, backbone: Backbone, action_tokens: ActionTokens) -> None:
    """Raise ConfigError if the layout has blocks that the backbone cannot see both ways."""
    if not backbone.both_ways and not action_tokens.causal:
        raise ConfigError(
            f"action_tokens.attention: backbone '{recipe.parts['backbone'].component.name}' lets "
            'no token see a later one; set it to "causal"'
        )


def _components(recipe: Recipe) -> dict[str, str]:
    """Return what messages call the component of each part and head, with its plugin."""
    sections = {str(kind): part for kind, part in recipe.parts.items()}
    sections |= {f"auxiliary/{label}": part for label, part in recipe.auxiliary.items()}
    return {
        name: f"'{part.component.name}' of plugin {part.component.plugin}"
        for name, part in sections.items()
    }


def _objectives(recipe: Recipe) -> dict[str, Objective]:
    """Return the objective of the policy head and of each auxiliary head."""
    objectives = {
        "policy_head": Objective(insulate=recipe.parts["policy_head"].kind_settings.insulate)
    }
    for label, part in recipe.auxiliary.items():
        objectives[label] = Objective(part.kind_settings.weight, part.kind_settings.insulate)
    return objectives


def _build_heads(
    recipe: Recipe,
    spec: ContextSpec,
    action: ActionSpec,
    backbone: Backbone,
    text_encoder: TextEncoder,
) -> dict[str, PolicyHead]:
    """Return the policy head, as "policy_head", and the auxiliary heads by label.

    Raises ConfigError for a head whose needs are not met. The needs that a head's class declares
    are checked before the head is built, so the head can rely on the layers that it reads.
    """
    if reserved := [label for label in recipe.auxiliary if hasattr(nn.ModuleDict(), label)]:
        raise ConfigError(
            f"auxiliary/{reserved[0]}.label: PyTorch's modules have an attribute of that name"
        )
    heads = {}
    for label, part in {"policy_head": recipe.parts["policy_head"], **recipe.auxiliary}.items():
        where = label if label == "policy_head" else f"auxiliary/{label}"
        class_needs = declared_needs(part.component.build)
        if class_needs is not None:
            _check_needs(class_needs, f"{where}.name", part, spec, backbone, text_encoder)
        heads[label] = _build_head(part, where, spec, action)
        if class_needs is not None and heads[label].needs != class_needs:
            raise ConfigError(
                f"{where}.name: the head's needs are not those of its class; say them on the class"
            )
        _check_needs(heads[label].needs, f"{where}.name", part, spec, backbone, text_encoder)
    return heads


def _build_head(part: Part, where: str, spec: ContextSpec, action: ActionSpec) -> PolicyHead:
    """Build a head, whose messages name the keys of [policy_head]; name those of its own section.

    where: what messages call the section.
    """

    def renamed(message: str) -> str:
        return re.sub(r"\bpolicy_head\.", f"{where}.", message)

    try:
        head: PolicyHead = _build("policy_head", part, where, context=spec, action=action)
    except ConfigError as error:
        raise ConfigError([renamed(mistake) for mistake in error.mistakes]) from error
    except DataError as error:
        raise DataError(renamed(str(error))) from error
    return head


def _build(kind: ComponentKind, part: Part, where: str | None = None, **offered: Any) -> Any:
    """Build a part; `build` receives only the offered arguments that its signature names.

    where: what messages call the part; default: the kind of the part.

    Raises ConfigError, naming the plugin, if the part follows another edition of the contract.
    """
    component, (contract, methods) = part.component, CONTRACTS[kind]
    where = f"{where or kind}.name: '{component.name}'"
    name = f"{where} of plugin {component.plugin}"
    advice = (
        "it is written for another edition of Joinery: install a version for this one, or change "
        'it as docs/contracts.md, "From the first edition", says'
    )
    module = build_component(component, part.config, offered, where, advice)
    if not isinstance(module, contract):
        raise ConfigError(
            f"{name} built a {type(module).__name__}, which is no {contract.__name__}; "
            "derive it from that"
        )
    if old := [m for m, count in methods.items() if not _accepts(getattr(module, m), count)]:
        raise ConfigError(f"{name} has methods with other arguments: {', '.join(old)}; {advice}")
    if unset := [a for a in inspect.get_annotations(contract) if not hasattr(module, a)]:
        raise ConfigError(
            f"{name} must set self.{' and self.'.join(unset)}, as {contract.__name__} declares"
        )
    return module


def _accepts(method: Any, count: int) -> bool:
    """Whether a method can be called with `count` positional arguments."""
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
    """Raise ConfigError if a head needs something that the built parts or the data do not have."""
    reasons = list(unmet_needs(needs, part.kind_settings.insulate, backbone))
    if "proprio" in needs and not spec.proprio_dim:
        reasons.append("needs proprioception, and the data record none; choose another head")
    if "logits" in needs and not spec.vocabulary:
        reasons.append(
            "needs the text encoder's output layer, and it has none (if its model can have one, "
            "set text_encoder.output = true)"
        )
    elif "logits" in needs and text_encoder.width != backbone.width:
        reasons.append(
            "needs the text encoder's output layer, which takes hidden states of width "
            f"{text_encoder.width}, and the backbone's have width {backbone.width}; "
            "make the widths agree"
        )
    if not needs and not spec.action_tokens:
        reasons.append(
            "reads action tokens, and there are none; set action_tokens.count = 1 or more"
        )
    if reasons:
        raise ConfigError([f"{where}: '{part.component.name}' {reason}" for reason in reasons])


def _check_sampling(recipe: Recipe, head: PolicyHead) -> None:
    """Raise ConfigError if a head is to be trained on episodes and cannot carry its state."""
    if recipe.data.sampling != "episodes":
        return
    name = f"data.sampling: policy_head '{recipe.parts['policy_head'].component.name}'"
    if not head.carries:
        raise ConfigError(
            f'{name} carries no state from window to window; set it to "windows", or choose a head '
            'that does ("lstm" with memory = "episode")'
        )
    if type(head).next_state is PolicyHead.next_state or not head.initial_state(1):
        raise ConfigError(
            f"{name} says that it carries its state, and lacks a state or the method next_state; "
            'change the plugin, or set data.sampling = "windows"'
        )


def _choose_what_trains(
    policy: Policy, where: str, name: str, part: Part, *, resumed: bool
) -> None:
    """Freeze a part, add adapters to it, or freeze some of its weights, as its section says.

    where, name: the part's name in messages and in the policy.
    resumed: whether adapters will be loaded from a checkpoint.
    """
    module = policy.get_submodule(name)
    if part.settings.train is False:
        policy.freeze(name)
    elif part.settings.train == "lora":
        add_adapters(module, part.settings, where)
        if part.settings.lora_pretrained is not None and not resumed:
            load_adapters(module, part.settings, where)
        policy.let_rest(modules_with_fixed_statistics(module))
    elif part.settings.freeze:
        policy.let_rest(freeze_weights(module, part.settings.freeze, where))


def _find_frozen_weights(policy: Policy, recipe: Recipe) -> FrozenWeights:
    """Find the pretrained weights that are not trained, so that checkpoints can leave them out."""
    weights: dict[str, Tensor] = {}
    for kind, part in recipe.parts.items():
        if not keeps_initial_weights(recipe, kind, part):
            continue
        module: nn.Module = getattr(policy, kind)
        extra_parameters = getattr(module, "extra_parameters", ())
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad and name not in extra_parameters:
                weights[f"{kind}.{name}"] = parameter
    return FrozenWeights(frozenset(weights), checksum(weights))


def _quantize(policy: Policy, recipe: Recipe) -> None:
    """Quantise frozen weights of parts that set `quantize`; update the names of frozen weights."""
    for kind, part in recipe.parts.items():
        if part.settings.quantize is None:
            continue
        prefix, names = f"{kind}.", policy.frozen_weights.names
        part_names = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        new_names = {prefix + name for name in quantize(getattr(policy, kind), part_names, kind)}
        policy.frozen_weights = replace(policy.frozen_weights, names=names | new_names)
