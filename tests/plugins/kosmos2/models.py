"""Small Kosmos-2 policies, batches for them, and transformers' own model with their weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from core import ActionSpec, Batch, ContextSpec, TokenSequence, import_library
from core.policy.policy import Policy
from core.policy.publishing import export_folder
from core.policy.recomputation import recompute_blocks
from core.testing.common import generator
from core.weights import Pretrained
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens
from plugins.heads.lstm import LSTMConfig, LSTMHead
from plugins.text.sentencepiece import SHIPPED
from plugins.vlms.kosmos2 import (
    Kosmos2Backbone,
    Kosmos2BackboneConfig,
    Kosmos2Text,
    Kosmos2TextConfig,
    Kosmos2Vision,
    Kosmos2VisionConfig,
)
from plugins.vlms.kosmos2.text import TAGS

VOCABULARY = 1000 + 2 + len(TAGS)  # of the shipped model of 1,000 pieces


CAMERAS = {"gripper": (3, 28, 28), "static": (3, 40, 40)}


ACTION = ActionSpec(window=2, horizon=3, dim=7, binary=(6,))


PARTS = ("vision_encoder", "text_encoder", "backbone")


@dataclass(frozen=True)
class Size:
    """Of all three parts together."""

    vision: Kosmos2VisionConfig
    text: Kosmos2TextConfig
    backbone: Kosmos2BackboneConfig


def size(width, depth, heads, mlp, clip=(32, 2, 2), image=28, latents=5) -> Size:
    clip_width, clip_depth, clip_heads = clip
    return Size(
        Kosmos2VisionConfig(width, heads, latents, clip_width, clip_depth, clip_heads, image),
        Kosmos2TextConfig(SHIPPED, width=width, vocabulary=VOCABULARY),
        Kosmos2BackboneConfig(width, depth, heads, mlp, dropout=0.0, attention_dropout=0.0),
    )


SIZES = {
    "tiny": size(32, 3, 4, 64),
    "real head": size(
        128, 2, 2, 256, clip=(128, 2, 2), image=42, latents=7
    ),  # heads of 64, as in Kosmos-2
    "full width": size(2048, 1, 32, 8192, clip=(1024, 1, 16), image=28, latents=64),
}


TINY = SIZES["tiny"]


def make(
    of: Size = TINY, window: int = 2, formulation="policy_head", attention="causal", cameras=CAMERAS
) -> Policy:
    torch.manual_seed(0)
    text, backbone = Kosmos2Text(of.text), Kosmos2Backbone(of.backbone)
    action, tokens = (
        replace(ACTION, window=window),
        LearnedConfig(formulation=formulation, attention=attention),
    )
    context = ContextSpec(width=backbone.width, action_tokens=1)
    return Policy(
        Kosmos2Vision(of.vision, cameras=cameras),
        text,
        {"vision": torch.nn.Identity(), "text": torch.nn.Identity()},
        backbone,
        LearnedTokens(
            tokens, width=backbone.width, action=action, proprio_dim=0, text_prefix=text.prefix
        ),
        LSTMHead(LSTMConfig(layers=2, hidden_size=16, mlp=(8,)), context=context, action=action),
    ).eval()


def perturb(policy: Policy) -> None:
    """Move every weight off its start: norms of one and biases of zero would hide a mistake."""
    for i, weight in enumerate(policy.parameters()):
        generator = torch.Generator().manual_seed(i)
        weight.data += 0.02 * torch.randn(weight.shape, generator=generator)


def checkpointed_backbone(config: Kosmos2BackboneConfig) -> Kosmos2Backbone:
    backbone = Kosmos2Backbone(config)
    recompute_blocks(backbone, "backbone")
    return backbone


def batch_of(
    policy: Policy, instructions=("open the drawer", "push the red block to the left", "stop")
) -> Batch:
    ids = [torch.tensor(policy.text_encoder.tokenize(text)) for text in instructions]
    pad = torch.nn.utils.rnn.pad_sequence
    generator = torch.Generator().manual_seed(1)
    window = policy.policy_head.memory.window
    shape = (len(ids), window)
    actions = torch.rand(*shape, ACTION.horizon, ACTION.dim, generator=generator)
    return Batch(
        images={
            name: torch.randint(256, (*shape, *size), generator=generator, dtype=torch.uint8)
            for name, size in CAMERAS.items()
        },
        instructions=instructions,
        text_ids=pad(ids, batch_first=True),
        text_mask=pad([torch.ones_like(row, dtype=torch.bool) for row in ids], batch_first=True),
        proprio=None,
        actions=actions,
        action_mask=torch.ones(*shape, ACTION.horizon, ACTION.dim, dtype=torch.bool),
    )


def sequence_of(policy: Policy, batch: Batch) -> TokenSequence:
    """What the backbone reads of a batch."""
    text = policy.encode_text(batch.text_ids, batch.text_mask)
    images = policy.encode_images(batch, text, generator())
    return policy.action_tokens.layout(images.projected, text.projected, None, None, generator())


def load(policy: Policy, source: Path, parts=PARTS) -> None:
    """Load a source's weights into parts of a policy."""
    weights = Pretrained(str(source))
    for part in parts:
        getattr(policy, part).load_pretrained(weights)


def reference_model(policy: Policy, folder: Path):
    """transformers' own model with the weights of a policy."""
    transformers = import_library("transformers")
    export_folder(policy, folder / "kosmos2")
    model = transformers.Kosmos2Model.from_pretrained(
        folder / "kosmos2", attn_implementation="eager"
    )
    return model.eval()


def largest_difference(received: Tensor, expected: Tensor) -> float:
    """Relative to the largest expected number."""
    difference = (received - expected).detach().abs().max()
    return float(difference / expected.detach().abs().max())
