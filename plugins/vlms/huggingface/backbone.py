"""The language model of a vision-language model of transformers, as backbone."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from core import Backbone, Pretrained, RecipeError, TokenSequence
from plugins.vlms.huggingface.model import build_share

Attention = Literal["causal", "prefix"]


@dataclass(frozen=True)
class BackboneConfig:
    """A language model, and what its attention may see; no token ever sees a later frame or padding.

    model: folder with config.json, relative to the recipe's, or a name on the Hugging Face hub.
    attention: "causal", or "prefix", which lets a frame's observation see itself both ways, as PaliGemma was trained.
    gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
    """

    model: str = field(metadata={"located": True})
    attention: Attention = "causal"
    gradient_checkpointing: bool = False


class HuggingFaceBackbone(Backbone):
    """Runs the language model on embeddings, without its output layer; a token's position is its index.

    Raises RecipeError where the model is not to be had, or is not made of these pieces. `pretrained` takes the
    model's folder.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.source = config.model
        self.share = build_share(config.model, "backbone", config.gradient_checkpointing)
        self.model = self.share.module
        self.width = int(self.model.config.hidden_size)
        self.attention = config.attention
        # Gemma in PaliGemma relies on a mask even where attention is causal; others need none.
        self.causal_alone = all(getattr(module, "is_causal", True) for module in self.model.modules())
        self.longest = getattr(self.model.config, "sliding_window", None)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width).

        RecipeError where "prefix" meets a sequence that is longer than the window that some layers slide.
        """
        hidden: Tensor = self.model(
            inputs_embeds=sequence.tokens, attention_mask=self._mask(sequence), use_cache=False
        ).last_hidden_state
        return hidden

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take the language model without embedding and output layer, strictly; RecipeError lists what does not fit."""
        self.share.load("backbone", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.share.publish()

    def describe(self) -> dict[str, Any]:
        """The language model's configuration."""
        return self.share.description

    def _mask(self, sequence: TokenSequence) -> Tensor | None:
        """What the model takes as mask: nothing where it is causal alone, for no real token has padding before it."""
        if self.attention == "causal" and self.causal_alone:
            return None
        length = sequence.tokens.shape[1]
        if self.longest is not None and length > self.longest:
            raise RecipeError(
                f"backbone.attention: a sequence has {length} tokens, and this model slides a window of {self.longest} "
                "with causal attention only; shorten it, or choose another attention or model"
            )
        seen = may_see(sequence, self.attention)
        if self.model.config._attn_implementation == "sdpa":
            return seen
        lowest = torch.finfo(sequence.tokens.dtype).min  # other implementations add the mask to the scores
        return torch.zeros_like(seen, dtype=sequence.tokens.dtype).masked_fill(~seen, lowest)


def may_see(sequence: TokenSequence, attention: Attention) -> Tensor:
    """Which token (row) sees which (column) -> (S 1 L L) bool."""
    count, length = sequence.tokens.shape[:2]
    seen = torch.ones(length, length, dtype=torch.bool, device=sequence.tokens.device).tril().expand(count, -1, -1)
    if attention == "prefix":
        same_frame = sequence.frame[:, :, None] == sequence.frame[:, None, :]
        seen = seen | (same_frame & ~sequence.is_action[:, None, :])
    if sequence.mask is not None:
        seen = seen & sequence.mask[:, None, :]
    return seen.unsqueeze(1)
