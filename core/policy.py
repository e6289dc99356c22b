"""Five parts -> one nn.Module: the data flow of every policy, whatever its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from core.augmentation import Augmentation
from core.contracts import (
    ActionSpec,
    ActionTokens,
    Backbone,
    Batch,
    Loadable,
    PolicyHead,
    TextEncoder,
    TokenGroup,
    VisionEncoder,
)
from core.errors import RecipeError
from core.hookspecs import Kind
from core.lora import add_adapters
from core.pretrained import NOTHING, Pretrained, Published, checksum
from core.quantization import quantize
from core.recipe import Recipe
from core.sections import AugmentationConfig
from core.tokens import full_mask, hide_cameras


@dataclass(frozen=True)
class PolicyState:
    """What a policy remembers between two steps of an episode; None at reset."""

    vision: TokenGroup  # (B, up to context - 1, N, D)
    proprio: Tensor | None  # (B, up to context - 1, P)
    head: Any


class Policy(nn.Module):
    """A vision-language-action policy of five parts, trained jointly.

    images -> vision encoder -> projection ─┐
    text   -> text encoder   -> projection ─┴> action tokens -> backbone -> policy head

    Before the vision encoder, an augmentation may change the images.
    """

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        text_encoder: TextEncoder,
        backbone: Backbone,
        action_tokens: ActionTokens,
        policy_head: PolicyHead,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.vision_encoder = vision_encoder
        self.text_encoder = text_encoder
        self.projections = nn.ModuleDict(
            {
                "vision": _projection(vision_encoder.width, backbone.width),
                "text": _projection(text_encoder.width, backbone.width),
            }
        )
        self.backbone = backbone
        self.action_tokens = action_tokens
        self.policy_head = policy_head
        self.frozen: list[nn.Module] = []
        self.published: Published = NOTHING

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss: the head's named terms, and their sum as "total"; scalars."""
        terms = self.policy_head.loss(self.read(batch), batch)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def predict(self, batch: Batch) -> Tensor:
        """Return normalised actions (B T H A) for every frame of the window."""
        actions: Tensor = self.policy_head(self.read(batch))
        return actions

    def read(self, batch: Batch) -> Tensor:
        """Return the readout (B T Q D): what the backbone made of the action tokens."""
        vision, text = self._encode(batch)
        return self._mix(vision, text, batch.proprio)

    def step(self, batch: Batch, state: PolicyState | None) -> tuple[Tensor, PolicyState]:
        """One new frame (T = 1) and the last state (None at reset) -> actions (B H A) and the next state."""
        vision, text = self._encode(batch)
        proprio = batch.proprio
        if state is not None:
            vision = _join(state.vision, vision)
            proprio = None if proprio is None else torch.cat([cast(Tensor, state.proprio), proprio], dim=1)
        readout = self._mix(vision, text, proprio)[:, -1]
        actions, head = self.policy_head.step(readout, state.head if state is not None else None)
        first = max(0, vision.tokens.shape[1] - (self.action_tokens.context - 1))  # of the frames to remember
        remembered = TokenGroup(vision.tokens[:, first:], None if vision.mask is None else vision.mask[:, first:])
        return actions, PolicyState(remembered, None if proprio is None else proprio[:, first:], head)

    def freeze(self, kind: Kind) -> None:
        """Keep a part as it is: no gradients, and no dropout."""
        part: nn.Module = getattr(self, kind)
        part.requires_grad_(False).eval()
        self.frozen.append(part)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def _encode(self, batch: Batch) -> tuple[TokenGroup, TokenGroup]:
        """Batch -> vision (B T N D) and text (B N D), both of the backbone's width."""
        text: TokenGroup = self.text_encoder(batch.text_ids, batch.text_mask)
        images = batch.images if self.augmentation is None else self.augmentation(batch.images)
        vision: TokenGroup = self.vision_encoder(images, text)
        if not batch.present.keys().isdisjoint(self.vision_encoder.cameras):
            all_there = torch.ones(len(batch.text_ids), dtype=torch.bool, device=batch.text_ids.device)
            present = [batch.present.get(name, all_there) for name in self.vision_encoder.cameras]
            vision = hide_cameras(vision, torch.stack(present, dim=1))
        return (
            replace(vision, tokens=self.projections["vision"](vision.tokens)),
            replace(text, tokens=self.projections["text"](text.tokens)),
        )

    def _mix(self, vision: TokenGroup, text: TokenGroup, proprio: Tensor | None) -> Tensor:
        sequence = self.action_tokens.layout(vision, text, proprio)
        return self.backbone.read(sequence)


def build_policy(
    recipe: Recipe,
    cameras: Mapping[str, tuple[int, int, int]],
    action: ActionSpec,
    proprio_dim: int,
    *,
    from_checkpoint: bool = False,
    quantized: bool = True,
) -> Policy:
    """Build the five parts that a recipe names, fill them with published weights, and freeze those it says.

    cameras: {name: (C, Y, X)}. from_checkpoint: a checkpoint of the run will follow, so that only those published
    weights are read which it leaves out. quantized: false keeps every weight as it was published, whatever the recipe
    says. Raises RecipeError, as parts do when they refuse their configuration.
    """
    policy = _join_parts(recipe, cameras, action, proprio_dim)
    _load_pretrained(policy, recipe, from_checkpoint)
    _choose_what_trains(policy, recipe)
    policy.published = _published(policy, recipe)
    if quantized:
        _quantize(policy, recipe)
    return policy


def _join_parts(
    recipe: Recipe, cameras: Mapping[str, tuple[int, int, int]], action: ActionSpec, proprio_dim: int
) -> Policy:
    """Build the five parts, each from its configuration and what the others are like."""
    build = {kind: part.component.build for kind, part in recipe.parts.items()}
    config = {kind: part.config for kind, part in recipe.parts.items()}
    text_encoder = build["text_encoder"](config["text_encoder"])
    backbone = build["backbone"](config["backbone"])
    return Policy(
        build["vision_encoder"](config["vision_encoder"], cameras=cameras, text_width=text_encoder.width),
        text_encoder,
        backbone,
        build["action_tokens"](
            config["action_tokens"],
            width=backbone.width,
            window=action.window,
            proprio_dim=proprio_dim,
            text_prefix=text_encoder.prefix,
        ),
        build["policy_head"](config["policy_head"], width=backbone.width, action=action),
        Augmentation(recipe.augmentation, cameras) if recipe.augmentation != AugmentationConfig() else None,
    )


def _load_pretrained(policy: Policy, recipe: Recipe, from_checkpoint: bool) -> None:
    """Give each part its share of the weights it names; parts that name one source share one opening of it."""
    opened: dict[str, Pretrained] = {}
    for kind, part in recipe.parts.items():
        settings, module = part.settings, getattr(policy, kind)
        if not settings.pretrained or (from_checkpoint and not settings.base_is_published):
            continue
        if not isinstance(module, Loadable):
            raise RecipeError(f"{kind}.pretrained: '{part.component.name}' has no published weights to load; drop it")
        source = module.source if settings.pretrained is True else settings.pretrained
        if source is None:
            raise RecipeError(f"{kind}.pretrained: '{part.component.name}' names no source; write a folder or a name")
        try:
            module.load_pretrained(opened.setdefault(source, Pretrained(source)))
        except RecipeError as error:
            raise RecipeError([f"{kind}.{line}" for line in error.mistakes]) from None


def _choose_what_trains(policy: Policy, recipe: Recipe) -> None:
    """Freeze parts and add adapters."""
    for kind, part in recipe.parts.items():
        if part.settings.train is False:
            policy.freeze(kind)
        elif part.settings.train == "lora":
            add_adapters(getattr(policy, kind), part.settings, kind)


def _published(policy: Policy, recipe: Recipe) -> Published:
    """Which weights no checkpoint need hold."""
    weights: dict[str, Tensor] = {}
    for kind in (kind for kind, part in recipe.parts.items() if part.settings.base_is_published):
        module: nn.Module = getattr(policy, kind)
        own = getattr(module, "own", ())  # parameters that no source has
        frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad and name not in own}
        weights |= {f"{kind}.{name}": p for name, p in frozen.items()}
    return Published(frozenset(weights), checksum(weights))


def _quantize(policy: Policy, recipe: Recipe) -> None:
    """Keep the published weights of linear layers in fewer bits where the recipe says so."""
    for kind, part in recipe.parts.items():
        if part.settings.quantize is not None:
            prefix = f"{kind}."
            kept = {name.removeprefix(prefix) for name in policy.published.names if name.startswith(prefix)}
            held = {prefix + name for name in quantize(getattr(policy, kind), kept, kind)}
            policy.published = replace(policy.published, names=policy.published.names | held)


def _projection(width: int, target: int) -> nn.Module:
    return nn.Identity() if width == target else nn.Linear(width, target)


def _join(old: TokenGroup, new: TokenGroup) -> TokenGroup:
    """Join frames (B t N D) along time."""
    tokens = torch.cat([old.tokens, new.tokens], dim=1)
    if old.mask is None and new.mask is None:
        return TokenGroup(tokens)
    return TokenGroup(tokens, torch.cat([full_mask(old), full_mask(new)], dim=1))
