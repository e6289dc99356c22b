"""Records keys and values in every layer of transformers' language models.

A model finds its attention function by name, in transformers' attention interface. The name
"joinery" stands for a function that puts the keys and values of earlier tokens before the new ones,
records the joined keys and values, and then does what transformers' own "sdpa" does. The
`Recording` is a keyword argument of each call, not a global variable, so that threads and models
share nothing.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core import LayerSpec, Memory, import_library
from plugins.vlms.huggingface.configuration import as_config_error

ATTENTION = "joinery"  # the name under which transformers finds the attention function
LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotations that depend on a sequence's length


@dataclass
class Recording:
    """The hidden states, keys and values that one forward pass computes in the layers.

    A recording is open until the forward pass is over. Gradient checkpointing runs layers again in
    the backward pass. The layers then need the same past, but must not record anything. A closed
    recording keeps none of the tensors that it recorded: their autograd graph refers to the
    recording, because the layers need it when they run again, and a reference back to the tensors
    would make a cycle that is never freed.

    past: keys and values of the earlier tokens.
    keys, values: {layer: (S K P+L d)}.
    hidden_states: (S L D) before the first layer and after each layer.
    """

    past: Memory | None
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    hidden_states: list[Tensor] = field(default_factory=list)
    open: bool = True

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the past before keys and values (S K L d) -> (S K P+L d), and record the result."""
        if self.past is not None:
            keys = torch.cat([self.past.keys[layer], keys], dim=2)
            values = torch.cat([self.past.values[layer], values], dim=2)
        if self.open:
            self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def close(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Stop recording; return and drop keys, values and hidden states, in the layers' order."""
        order = sorted(self.keys)
        keys, values = [self.keys[i] for i in order], [self.values[i] for i in order]
        hidden_states = self.hidden_states
        self.keys, self.values, self.hidden_states, self.open = {}, {}, [], False
        return keys, values, hidden_states


def record_layers(model: Any, blocks: Sequence[nn.Module]) -> None:
    """Make a model's forward pass fill a `Recording`, if it gets one as argument `recording`."""
    transformers = import_library("transformers", extra="vlm")
    attention, masks = transformers.AttentionInterface(), transformers.AttentionMaskInterface()
    transformers.AttentionInterface.register(ATTENTION, partial(_attend, attention["sdpa"]))
    transformers.AttentionMaskInterface.register(ATTENTION, masks["sdpa"])
    model.set_attn_implementation(ATTENTION)
    for block in blocks:
        block.register_forward_hook(_record_hidden_states, with_kwargs=True)


def layer_spec(config: Any) -> LayerSpec:
    """Describe the layers of a language model from its configuration."""
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return LayerSpec(config.num_hidden_layers, heads, key_heads, head_width)


def find_obstacle(model: Any) -> str:
    """Return why a head cannot compute with a language model's keys and values; "" if a head can.

    This function only reads settings; `rotates_all_keys_alike` tests the rotation by running the
    model.
    """
    config = model.config
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention caps its scores, which a head does not know"
    if config._attn_implementation != "sdpa" or not hasattr(config, "num_attention_heads"):
        return f"its attention is '{config._attn_implementation}' and not sdpa"
    if getattr(getattr(model, "rotary_emb", None), "rope_type", "default") in LENGTH_DEPENDENT:
        return "its rotation depends on the length of the sequence"
    return ""


@torch.no_grad()
def rotates_all_keys_alike(model: Any, blocks: Sequence[nn.Module]) -> bool:
    """Return whether every layer rotates its recorded keys as `rotation_of` would.

    The test runs one token at position 0 and at position 7, each time alone. A token that sees only
    itself has the same hidden states at every position, so its keys may differ only by the
    rotation. The result is False for models in which some layers rotate differently or not at all.
    Raises ConfigError if running or rotating fails.
    """
    token = torch.linspace(-1, 1, model.config.hidden_size, dtype=model.dtype)
    position, recording = torch.tensor([[0], [7]]), Recording(None)
    model.eval()
    try:
        with as_config_error("its layers cannot be tried out"):
            model(
                inputs_embeds=token.expand(2, 1, -1),
                attention_mask=torch.ones(2, 1, 1, 1, dtype=torch.bool),
                position_ids=position,
                use_cache=False,
                recording=recording,
            )
            keys, _, hidden_states = recording.close()
            expected = [rotation_of(model, blocks)(key[:1], position[1:]) for key in keys]
            spec = layer_spec(model.config)
    finally:
        model.train()
    are_alike = all(_is_close(key[1:], other) for key, other in zip(keys, expected, strict=True))
    depths_agree = len(keys) == len(blocks) == len(hidden_states) - 1 == spec.depth
    shapes = {tuple(key.shape) for key in keys}
    return are_alike and depths_agree and shapes == {(2, spec.key_heads, 1, spec.head_width)}


def rotation_of(model: Any, blocks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a model's own rotation of queries or keys (S heads n d) at positions (S n)."""
    attention = next(module for module in blocks[0].modules() if hasattr(module, "layer_idx"))
    apply = sys.modules[type(attention).__module__].apply_rotary_pos_emb

    def rotate(x: Tensor, position: Tensor) -> Tensor:
        cosine, sine = model.rotary_emb(x, position)
        no_keys = x[:, :0]
        result: Tensor = apply(x, no_keys, cosine, sine)[0]
        return result

    return rotate


def _is_close(x: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal up to the rounding errors of bfloat16."""
    if x.shape != expected.shape:
        return False
    return bool((x - expected).abs().max() <= 0.02 * expected.abs().max())


def _attend(
    sdpa: Callable[..., Any],
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    recording: Recording | None = None,
    **settings: Any,
) -> Any:
    """Attend as transformers expects; `settings` are further arguments of transformers' "sdpa"."""
    if recording is not None:
        key, value = recording.extend(module.layer_idx, key, value)
    return sdpa(module, query, key, value, attention_mask, **settings)


def _record_hidden_states(
    block: nn.Module,  # noqa: ARG001
    arguments: Any,
    keywords: dict[str, Any],
    output: Any,
) -> None:
    """Record each block's output and the first block's input; checkpointing reruns no hook."""
    recording = keywords.get("recording")
    if recording is not None:
        if not recording.hidden_states:
            recording.hidden_states.append(arguments[0])
        recording.hidden_states.append(output if isinstance(output, Tensor) else output[0])
