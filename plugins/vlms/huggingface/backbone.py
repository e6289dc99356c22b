"""The backbone of a vision-language model of transformers: its language model."""

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
    find_obstacle,
    layer_spec,
    record_layers,
    rotates_all_keys_alike,
    rotation_of,
)
from plugins.vlms.huggingface.model import CPU, build_part, repeated_blocks, robovlms_names


@dataclass(frozen=True)
class BackboneConfig:
    """A language model and its positions; the recipe's `action_tokens` section defines the mask."""

    model: str = field(metadata={"located": True})
    """folder that holds config.json (a relative path starts at the recipe's folder), or the name of
    a model on the Hugging Face hub.
    """
    positions: Literal["index", "grid"] = "index"
    """"index": the position of a token is its index in the sequence; "grid": the position of an
    image's token contains its row and column, as in the training of Qwen2-VL and Qwen2.5-VL. Heads
    that need the backbone's layers do not work with "grid".
    """


class HuggingFaceBackbone(Backbone):
    """Runs the language model on embeddings, without its output layer.

    It offers the keys, values and hidden states of its layers to heads, if a head can compute with
    them (see `layers.find_obstacle`). To load the model's published weights, set `pretrained` in
    the recipe to true, or to the same folder as `model`.

    Raises ConfigError if the model cannot be loaded, if the model does not consist of a vision
    encoder, an embedding and a language model, or if the model does not support the configured
    positions.
    """

    offers = frozenset({"keys_values", "hidden_states", "extend"})

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.source = config.model
        self.part = build_part(config.model, "backbone")
        self.model = self.part.module
        self.width = int(self.model.config.hidden_size)
        # PaliGemma's Gemma needs a mask even for causal attention; other models do not.
        self.causal_without_mask = all(
            getattr(module, "is_causal", True) for module in self.model.modules()
        )
        self.longest = getattr(self.model.config, "sliding_window", None)
        self.positions = getattr(self.model.config, "max_position_embeddings", None)
        # sdpa takes a boolean mask; eager attention adds a mask of numbers to the scores.
        self.additive_mask = self.model.config._attn_implementation != "sdpa"
        self.on_grid = config.positions == "grid"
        if self.on_grid and self.part.config.model_type not in MODELS:
            raise ConfigError(
                f"backbone.positions: '{config.model}' is a '{self.part.config.model_type}', and "
                f'rows and columns are for {" and ".join(MODELS)}; set it to "index"'
            )
        self.obstacle = find_obstacle(self.model) or self._prepare_recording()
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

        Raises ConfigError if the attention needs a mask and the sequence is longer than the model's
        sliding window.
        """
        return self._run(sequence, None, None)

    def remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """(S L width) -> normed hidden states; hidden states, keys and values of every layer.

        Raises ConfigError if a head could not compute with the layers of this model, or if `past`
        and the sequence together are longer than the model's sliding window.
        """
        self._raise_if_obstructed()
        past_length = 0 if past is None else past.tokens.shape[1]
        self._raise_if_too_long(past_length + sequence.tokens.shape[1])
        recording = Recording(past)
        tokens = self._run(sequence, past, recording)
        keys, values, hidden_states = recording.close()
        return make_memory(sequence, tokens, keys, values, hidden_states, past)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate queries or keys (S heads n d) at positions (S n).

        Raises ConfigError if a head could not compute with the layers of this model.
        """
        self._raise_if_obstructed()
        return rotation_of(self.model, self.blocks)(x, position)

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load the language model except its embedding and output layer, strictly.

        Raises ConfigError that lists what does not fit.
        """
        self.part.load("backbone", weights)

    def publish(self) -> dict[str, Tensor]:
        """Name the weights as transformers does."""
        return self.part.publish()

    def publish_checkpoint(self) -> dict[str, Tensor]:
        """Name the weights as a checkpoint of RoboVLMs does."""
        return robovlms_names(self.publish())

    def describe(self) -> dict[str, Any]:
        """Return the language model's configuration."""
        return self.part.description

    def _prepare_recording(self) -> str:
        """Prepare the model for `remember`; return "", or the reason why `remember` cannot work."""
        if self.on_grid:
            return 'backbone.positions = "grid" gives tokens places that a head does not know'
        record_layers(self.model, self.blocks)
        try:
            with CPU:
                are_alike = rotates_all_keys_alike(self.model, self.blocks)
        except ConfigError as error:
            return str(error)
        return "" if are_alike else "its layers do not all turn their keys alike"

    def _run(
        self, sequence: TokenSequence, past: Memory | None, recording: Recording | None
    ) -> Tensor:
        """Run a sequence that follows `past`; return normed hidden states (S L width)."""
        before = None if past is None else past.sequence
        self._raise_if_beyond_positions(
            sequence.tokens.shape[1] + (0 if past is None else past.tokens.shape[1])
        )
        extra = {} if recording is None else {"recording": recording}
        hidden: Tensor = self.model(
            inputs_embeds=sequence.tokens,
            attention_mask=self._mask(sequence, before),
            position_ids=self._positions(sequence, before),
            use_cache=False,
            **extra,
        ).last_hidden_state
        return hidden

    def _positions(self, sequence: TokenSequence, past: TokenSequence | None) -> Tensor | None:
        """Return the model's argument for positions: (S L), (3 S L), or None for indices.

        Without the argument, the model itself uses indices as positions. With indices as the
        argument, the model would assume that a row may hold several sequences, and would search for
        them.
        """
        if self.on_grid:
            if sequence.grid is None:
                raise ConfigError(
                    'backbone.positions: "grid", and the vision encoder or the action tokens give '
                    'no rows and columns; set it to "index"'
                )
            return grid_positions(sequence.grid)
        if past is None and sequence.private is None:
            return None
        return token_positions(sequence, past)

    def _mask(self, sequence: TokenSequence, past: TokenSequence | None) -> Tensor | None:
        """Return the model's argument for the mask (S 1 L P+L); None if the model needs no mask."""
        tokens = sequence.tokens
        visible = attention_mask(sequence, past)
        if visible is None and self.causal_without_mask:
            return None
        if visible is None:
            shape = (1, 1, tokens.shape[1], tokens.shape[1])
            visible = torch.ones(shape, dtype=torch.bool, device=tokens.device).tril()
        self._raise_if_too_long(visible.shape[-1])
        if not self.additive_mask:
            return visible
        lowest = torch.finfo(tokens.dtype).min
        return torch.zeros_like(visible, dtype=tokens.dtype).masked_fill(~visible, lowest)

    def _raise_if_beyond_positions(self, length: int) -> None:
        """Raise ConfigError for a sequence that is longer than the model was made for.

        With rows and columns, the tokens of an image share positions, so nothing is checked.
        """
        if self.positions is not None and length > self.positions and not self.on_grid:
            raise ConfigError(
                f"backbone.model: a sequence has {length} tokens, and '{self.source}' has "
                f"{self.positions} positions; use fewer or smaller images "
                "(data.cameras, vision_encoder.image_size), a shorter data.window, "
                'or action_tokens.formulation = "policy_head"'
            )

    def _raise_if_too_long(self, length: int) -> None:
        """Raise ConfigError for a sequence longer than the sliding window.

        A mask passed to the model replaces the model's own mask, which would apply the window.
        """
        if self.longest is not None and length > self.longest:
            raise ConfigError(
                f"action_tokens.attention: a sequence has {length} tokens, and this model slides a "
                f"window of {self.longest} with causal attention only, for heads that need no "
                "layers; shorten it, or choose another attention or model"
            )

    def _raise_if_obstructed(self) -> None:
        if self.obstacle:
            raise ConfigError(
                f"backbone.model: '{self.source}' keeps no layers for a policy head, for "
                f"{self.obstacle}; choose another model, or a head that needs no layers"
            )
