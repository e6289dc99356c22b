"""Keys and values of transformers' language models, layer by layer, by its attention interface.

The model looks its attention up by name. Under a name of ours it finds a function that puts the
keys and values of earlier tokens before the new ones, keeps the result, and then does what
transformers' own "sdpa" does. What it keeps them in, a `Recording`, comes with every call as a
keyword argument, so that threads and models share nothing.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core import LayerSpec, Memory, import_library
from plugins.vlms.huggingface.model import one_line

ATTENTION = "joinery"  # the name under which transformers finds the function
LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotations that change with the length of a sequence


@dataclass
class Recording:
    """What one pass leaves in the layers; `past` is what stood before it.

    Open until the pass is over. Gradient checkpointing runs layers again in the backward pass: they
    must find the same past, but nothing is kept of that, and what was kept must be gone from here
    by then. It belongs to a graph that holds the recording for those later runs, and such a circle
    would never be freed.
    """

    past: Memory | None
    keys: dict[int, Tensor] = field(default_factory=dict)  # of each layer (S K P+L d)
    values: dict[int, Tensor] = field(default_factory=dict)
    streams: list[Tensor] = field(default_factory=list)  # (S L D): as Memory.hidden_states
    open: bool = True

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the past's before a layer's own keys and values (S K L d) -> (S K P+L d), and keep
        them.
        """
        if self.past is not None:
            keys = torch.cat([self.past.keys[layer], keys], dim=2)
            values = torch.cat([self.past.values[layer], values], dim=2)
        if self.open:
            self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def close(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Hand over keys and values, in the order of the layers, and the streams."""
        order = sorted(self.keys)
        recorded = [self.keys[i] for i in order], [self.values[i] for i in order], self.streams
        self.keys, self.values, self.streams, self.open = {}, {}, [], False
        return recorded


def record_layers(model: Any, blocks: Sequence[nn.Module]) -> None:
    """Let a model fill the `recording` that its forward is called with, if it is called with one."""
    transformers = import_library("transformers", extra="vlm")
    attention, masks = transformers.AttentionInterface(), transformers.AttentionMaskInterface()
    transformers.AttentionInterface.register(ATTENTION, partial(_attend, attention["sdpa"]))
    transformers.AttentionMaskInterface.register(ATTENTION, masks["sdpa"])
    model.set_attn_implementation(ATTENTION)
    for block in blocks:
        block.register_forward_hook(_keep_stream, with_kwargs=True)


def layer_spec(config: Any) -> LayerSpec:
    """The layers that a language model's configuration describes."""
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return LayerSpec(config.num_hidden_layers, heads, key_heads, head_width)


def obstacle(model: Any) -> str:
    """Say why a head could not compute with a language model's keys and values, or nothing.

    What its configuration tells; `turns_its_keys` finds what it does not.
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
def turns_its_keys(model: Any, blocks: Sequence[nn.Module]) -> bool:
    """Whether all layers record keys that are turned by `rotation_of`, and by nothing else.

    Tried out with one token, which sees itself alone and so is the same in every layer wherever it
    stands. False for models that turn some layers otherwise, or none; ConfigError where turning or
    running them fails.
    """
    token = torch.linspace(-1, 1, model.config.hidden_size, dtype=model.dtype)
    position, recording = torch.tensor([[0], [7]]), Recording(None)
    model.eval()
    try:
        with one_line("its layers cannot be tried out"):
            model(
                inputs_embeds=token.expand(2, 1, -1),
                attention_mask=torch.ones(2, 1, 1, 1, dtype=torch.bool),
                position_ids=position,
                use_cache=False,
                recording=recording,
            )
            keys, _, streams = recording.close()
            turned = [rotation_of(model, blocks)(key[:1], position[1:]) for key in keys]
            spec = layer_spec(model.config)
    finally:
        model.train()
    alike = all(_close(key[1:], again) for key, again in zip(keys, turned, strict=True))
    shapes = {tuple(key.shape) for key in keys}
    depths = len(keys) == len(blocks) == len(streams) - 1 == spec.depth
    return alike and depths and shapes == {(2, spec.key_heads, 1, spec.head_width)}


def rotation_of(model: Any, blocks: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    """How a model turns queries or keys (S heads n d) at positions (S n): by functions of its own."""
    attention = next(module for module in blocks[0].modules() if hasattr(module, "layer_idx"))
    apply = sys.modules[type(attention).__module__].apply_rotary_pos_emb

    def rotate(x: Tensor, position: Tensor) -> Tensor:
        cosine, sine = model.rotary_emb(x, position)
        turned: Tensor = apply(x, x[:, :0], cosine, sine)[0]  # the second stands for keys: none
        return turned

    return rotate


def _close(x: Tensor, expected: Tensor) -> bool:
    """Within the rounding of bfloat16."""
    return x.shape == expected.shape and bool(
        (x - expected).abs().max() <= 0.02 * expected.abs().max()
    )


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
    """Attention as transformers calls it, which hands over `settings` of its own for `sdpa`."""
    if recording is not None:
        key, value = recording.extend(module.layer_idx, key, value)
    return sdpa(module, query, key, value, attention_mask, **settings)


def _keep_stream(block: nn.Module, arguments: Any, named: dict[str, Any], output: Any) -> None:  # noqa: ARG001
    """Called after a block; gradient checkpointing runs what is inside of it again, and not this."""
    recording = named.get("recording")
    if recording is not None:
        if not recording.streams:
            recording.streams.append(arguments[0])
        recording.streams.append(output if isinstance(output, Tensor) else output[0])
