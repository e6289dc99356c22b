"""Contract tests of text encoders."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.parts import TextEncoder
from core.registry.hookspecs import Build
from core.testing.common import (
    Check,
    Given,
    Subject,
    checks_of_every_part,
    expect,
    expect_close,
    expect_group,
    expect_width,
    padded,
)

INSTRUCTIONS = (
    "open the drawer",
    "pick up the red block and put it in the drawer",
    "turn on the light",
)


def checks(build: Build, config: Any, given: Given) -> list[Check]:  # noqa: ARG001 - every kind is asked alike
    """Return the checks of a text encoder."""
    subject = Subject(partial(build, config), _run)
    own = (tokens_are_ids, shape_is_declared, mask_is_passed_on, padding_is_not_seen)
    return [
        *(Check(check.__name__, partial(check, subject)) for check in own),
        *checks_of_every_part(subject),
    ]


def tokens_are_ids(subject: Subject) -> None:
    """`tokenize` gives at least one id, all of them non-negative integers, the same every time."""
    encoder: TextEncoder = subject.build()
    for instruction in INSTRUCTIONS:
        ids = list(encoder.tokenize(instruction))
        sound = bool(ids) and all(isinstance(i, int) and i >= 0 for i in ids)
        expect(sound, f"tokenize({instruction!r})", "integers from 0, at least one", repr(ids))
        again = list(encoder.tokenize(instruction))
        expect(again == ids, f"tokenize({instruction!r}) called again", repr(ids), repr(again))


def shape_is_declared(subject: Subject) -> None:
    """(B N) -> (B N width)."""
    encoder: TextEncoder = subject.build()
    ids, mask = batch(encoder)
    group = encoder(ids, mask)
    expect_group(group, (*ids.shape, encoder.width), "text tokens")
    expect_width(encoder, group.tokens.shape[-1])


def mask_is_passed_on(subject: Subject) -> None:
    """The next part must know which tokens are padding."""
    encoder: TextEncoder = subject.build()
    ids, mask = batch(encoder)
    received = encoder(ids, mask).mask
    same = received is not None and torch.equal(received, mask)
    expect(
        same,
        "mask of the text tokens",
        "the mask that came in",
        "none" if received is None else "another",
    )


@torch.no_grad()
def padding_is_not_seen(subject: Subject) -> None:
    """An instruction alone gives what it gives in a padded batch, whatever id the padding has."""
    encoder: TextEncoder = subject.build()
    for fill in (0, batch(encoder)[0].max().item()):
        ids, mask = batch(encoder, int(fill))
        together = encoder(ids, mask).tokens
        for i, instruction in enumerate(INSTRUCTIONS):
            alone = encoder(torch.tensor([list(encoder.tokenize(instruction))]), None).tokens
            received = together[i : i + 1, : alone.shape[1]]
            expect_close(
                received,
                alone,
                f"tokens of {instruction!r} in a batch padded with {fill}, against alone",
            )


def batch(encoder: TextEncoder, fill: int = 0) -> tuple[Tensor, Tensor]:
    """The instructions as ids (B N) and mask (B N), padded on the right."""
    tokens = [list(encoder.tokenize(instruction)) for instruction in INSTRUCTIONS]
    length = max(map(len, tokens)) + 1  # at least one column of padding
    ids = torch.tensor([row + [fill] * (length - len(row)) for row in tokens])
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in tokens])
    return ids, mask


def _run(encoder: TextEncoder, dtype: torch.dtype) -> Tensor:  # noqa: ARG001 - ids have no floating-point type
    return padded(encoder(*batch(encoder)))
