"""Contract tests of text encoders."""

from typing import Any

import torch
from torch import Tensor

from core.contracts.parts import TextEncoder
from core.registry.hookspecs import Build
from core.testing.common import (
    Check,
    Setup,
    expect,
    expect_close,
    expect_group,
    expect_width,
    padded,
)
from core.testing.every_part import PartUnderTest, checks_of

INSTRUCTIONS = (
    "open the drawer",
    "pick up the red block and put it in the drawer",
    "turn on the light",
)


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:  # noqa: ARG001 (as other kinds)
    """Return the checks of a text encoder."""
    part = PartUnderTest(TextEncoder, build, config, {}, encode)
    return checks_of(
        part, (tokens_are_ids, shape_is_declared, mask_is_passed_on, padding_is_not_seen)
    )


def encode(encoder: TextEncoder, dtype: torch.dtype) -> Tensor:  # noqa: ARG001 (ids are integers)
    """Return the tokens (B N width) of the test instructions."""
    return padded(encoder(*batch(encoder)))


def tokens_are_ids(encoder: TextEncoder) -> None:
    """`tokenize` gives at least one id.

    All ids are integers of at least 0, and the same text gives the same ids every time.
    """
    for instruction in INSTRUCTIONS:
        ids = list(encoder.tokenize(instruction))
        valid = bool(ids) and all(isinstance(i, int) and i >= 0 for i in ids)
        expect(valid, f"tokenize({instruction!r})", "integers from 0, at least one", repr(ids))
        again = list(encoder.tokenize(instruction))
        expect(again == ids, f"tokenize({instruction!r}) called again", repr(ids), repr(again))


def shape_is_declared(encoder: TextEncoder) -> None:
    """Ids (B N) give tokens (B N width), where `width` is the width that the encoder declares."""
    ids, mask = batch(encoder)
    group = encoder(ids, mask)
    expect_group(group, (*ids.shape, encoder.width), "text tokens")
    expect_width(encoder, group.tokens.shape[-1])


def mask_is_passed_on(encoder: TextEncoder) -> None:
    """The encoder returns the mask unchanged, since the next part needs to know the padding."""
    ids, mask = batch(encoder)
    received = encoder(ids, mask).mask
    expect(
        received is not None and torch.equal(received, mask),
        "mask of the text tokens",
        "the mask that came in",
        "none" if received is None else "another",
    )


@torch.no_grad()
def padding_is_not_seen(encoder: TextEncoder) -> None:
    """An instruction gives the same tokens alone as in a batch that is padded with any id."""
    for fill in (0, batch(encoder)[0].max().item()):
        ids, mask = batch(encoder, int(fill))
        together = encoder(ids, mask).tokens
        for i, instruction in enumerate(INSTRUCTIONS):
            alone = encoder(torch.tensor([list(encoder.tokenize(instruction))]), None).tokens
            expect_close(
                together[i : i + 1, : alone.shape[1]],
                alone,
                f"tokens of {instruction!r} in a batch padded with {fill}, against alone",
            )


def batch(encoder: TextEncoder, fill: int = 0) -> tuple[Tensor, Tensor]:
    """Return ids (B N) and mask (B N) of the instructions, padded on the right with `fill`."""
    tokens = [list(encoder.tokenize(instruction)) for instruction in INSTRUCTIONS]
    # even the longest instruction gets one padding token
    length = max(map(len, tokens)) + 1
    ids = torch.tensor([row + [fill] * (length - len(row)) for row in tokens])
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in tokens])
    return ids, mask
