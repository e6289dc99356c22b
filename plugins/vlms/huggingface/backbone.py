"""The language model of a vision-language model of transformers, as backbone."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core import (
    Backbone,
    ConfigError,
    Memory,
    TokenSequence,
    attention_mask,
    make_memory,
    token_positions,
)
from core.weights import Pretrained
from plugins.vlms.huggingface.grid import MODELS, grid_positions
from plugins.vlms.huggingface.layers import (
    Recording,
    layer_spec,
    obstacle,
    record_layers,
    rotation_of,
    turns_its_keys,
)
from plugins.vlms.huggingface.model import CPU, build_share, repeated_blocks


@dataclass(frozen=True)
class BackboneConfig:
    """A language model; which token sees which is the action tokens' to say."""

    model: str = field(metadata={"located": True})
    """folder with config.json, relative to the recipe's, or a name on the Hugging Face hub."""
    positions: Literal["index", "grid"] = "index"
    """"index", a token's place in its sequence, or "grid", which gives an image's tokens rows and
    columns, as Qwen2-VL and Qwen2.5-VL were trained; not for heads that need layers.
    """


class HuggingFaceBackbone(Backbone):
    """Runs the language model on embeddings, without its output layer.

    It keeps its layers for heads, unless it computes in them what no head can know: `layers` says
    of which models that holds. Raises ConfigError where the model is not to be had, is not made of
    these pieces, or has no such positions. `pretrained` takes the model's folder.
    """

    offers = frozenset({"keys_values", "hidden_states", "extend"})

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.source = config.model
        self.share = build_share(config.model, "backbone")
        self.model = self.share.module
        self.width = int(self.model.config.hidden_size)
        # Gemma in PaliGemma relies on a mask even where attention is causal; others need none.
        self.causal_alone = all(
            getattr(module, "is_causal", True) for module in self.model.modules()
        )
        self.longest = getattr(self.model.config, "sliding_window", None)
        self.additive = (
            self.model.config._attn_implementation != "sdpa"
        )  # adds the mask to the scores
        self.on_grid = config.positions == "grid"
        if self.on_grid and self.share.config.model_type not in MODELS:
            raise ConfigError(
                f"backbone.positions: '{config.model}' is a '{self.share.config.model_type}', and rows and columns are "
                f'for {" and ".join(MODELS)}; set it to "index"'
            )
        self.obstacle = obstacle(self.model) or self._record()
        if self.obstacle:
            self.offers = frozenset()
        else:
            self.layer_spec = layer_spec(self.model.config)

    @property
    def blocks(self) -> list[nn.Module]:
        """The decoder's layers."""
        return repeated_blocks(self.model)

    def forward(self, sequence: TokenSequence) -> Tensor:
        """(S L width) -> normed hidden states (S L width).

        ConfigError where attention other than causal meets a sequence longer than the window that
        some layers slide.
        """
        return self._run(sequence, None, None)

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """(S L width) -> normed hidden states, and of every layer hidden states, keys and values.

        ConfigError where a head could not compute with them: for some models, and where windows
        that slide are shorter than the sequence.
        """
        self._raise_if_obstructed()
        before = 0 if past is None else past.tokens.shape[1]
        self._raise_if_slid(before + sequence.tokens.shape[1])
        recording = Recording(past)
        tokens = self._run(sequence, past, recording)
        keys, values, streams = recording.close()
        return make_memory(sequence, tokens, keys, values, streams, past)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Turn queries or keys (S heads n d) at positions (S n); ConfigError where `remember`
        raises it.
        """
        self._raise_if_obstructed()
        return rotation_of(self.model, self.blocks)(x, position)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Take the language model without embedding and output layer, strictly; ConfigError lists
        what does not fit.
        """
        self.share.load("backbone", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.share.publish()

    def describe(self) -> dict[str, Any]:
        """The language model's configuration."""
        return self.share.description

    def _record(self) -> str:
        """Prepare the model for `remember`; say why it cannot be had, or nothing."""
        if self.on_grid:
            return 'backbone.positions = "grid" gives tokens places that a head does not know'
        record_layers(self.model, self.blocks)
        try:
            with CPU:
                alike = turns_its_keys(self.model, self.blocks)
        except ConfigError as error:
            return str(error)
        return "" if alike else "its layers do not all turn their keys alike"

    def _run(
        self, sequence: TokenSequence, past: Memory | None, recording: Recording | None
    ) -> Tensor:
        """Run the model on a sequence, behind the past's -> normed hidden states (S L width)."""
        before = None if past is None else past.sequence
        mask = self._mask(sequence, before)
        more = {} if recording is None else {"recording": recording}
        hidden: Tensor = self.model(
            inputs_embeds=sequence.tokens,
            attention_mask=mask,
            position_ids=self._positions(sequence, before),
            use_cache=False,
            **more,
        ).last_hidden_state
        return hidden

    def _positions(self, sequence: TokenSequence, past: TokenSequence | None) -> Tensor | None:
        """Positions as the model takes them, (S L) or (3 S L); nothing where they are indices.

        The model counts those itself. Given them, it would look for several sequences in one row.
        """
        if not self.on_grid:
            return (
                None
                if past is None and sequence.private is None
                else token_positions(sequence, past)
            )
        if sequence.grid is None:
            raise ConfigError(
                'backbone.positions: "grid", and the vision encoder or the action tokens give no rows and columns; set '
                'it to "index"'
            )
        return grid_positions(sequence.grid)

    def _mask(self, sequence: TokenSequence, past: TokenSequence | None) -> Tensor | None:
        """What the model takes as mask (S 1 L P+L); nothing where it is causal without one."""
        visible = attention_mask(sequence, past)
        if visible is None and self.causal_alone:
            return None
        if visible is None:
            length = sequence.tokens.shape[1]
            visible = torch.ones(
                1, 1, length, length, dtype=torch.bool, device=sequence.tokens.device
            ).tril()
        self._raise_if_slid(visible.shape[-1])
        if not self.additive:
            return visible
        lowest = torch.finfo(sequence.tokens.dtype).min
        return torch.zeros_like(visible, dtype=sequence.tokens.dtype).masked_fill(~visible, lowest)

    def _raise_if_slid(self, length: int) -> None:
        """Refuse a sequence longer than the window: layers that slide it ignore what a mask says."""
        if self.longest is not None and length > self.longest:
            raise ConfigError(
                f"action_tokens.attention: a sequence has {length} tokens, and this model slides a window of "
                f"{self.longest} with causal attention only, for heads that need no layers; shorten it, or choose "
                "another attention or model"
            )

    def _raise_if_obstructed(self) -> None:
        if self.obstacle:
            raise ConfigError(
                f"backbone.model: '{self.source}' keeps no layers for a policy head, for {self.obstacle}; choose "
                "another model, or a head that needs no layers"
            )
