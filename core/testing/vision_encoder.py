"""Contract tests of vision encoders."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.batch import TokenGroup
from core.contracts.parts import VisionEncoder
from core.registry.components import call_build
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Given,
    Subject,
    checks_of_every_part,
    expect,
    expect_close,
    expect_group,
    expect_width,
    features,
    normal,
    padded,
)

Images = dict[str, Tensor]


def checks(build: Build, config: Any, given: Given) -> list[Check]:
    """Return the checks of a vision encoder."""
    offered = {"cameras": given.cameras, "text_width": given.text_width, "features": given.features}
    make = partial(call_build, build, config, offered)
    subject = Subject(make, partial(_run, given=given))
    own = (
        shape_is_declared,
        samples_are_independent,
        frames_are_independent,
        cameras_are_apart,
        padded_text_is_not_seen,
    )
    return [
        *(Check(check.__name__, partial(check, subject, given)) for check in own),
        *checks_of_every_part(subject),
    ]


def shape_is_declared(subject: Subject, given: Given) -> None:
    """{camera: (B T C Y X)} -> (B T N width)."""
    encoder = subject.build()
    group = encoder(images(given), text(given))
    expect_group(group, (BATCH, given.action.window, None, encoder.width), "vision tokens")
    expect_width(encoder, group.tokens.shape[-1])
    expect(
        group.mask is None or bool(group.mask.any(-1).all()),
        "mask",
        "a real token in every frame",
        "none in some",
    )


@torch.no_grad()
def samples_are_independent(subject: Subject, given: Given) -> None:
    """A sample alone gives what it gives in a batch."""
    encoder: VisionEncoder = subject.build()
    together, words = padded(encoder(images(given), text(given))), text(given)
    for i in range(BATCH):
        own_words = TokenGroup(
            words.tokens[i : i + 1], None if words.mask is None else words.mask[i : i + 1]
        )
        alone = padded(
            encoder({name: x[i : i + 1] for name, x in images(given).items()}, own_words)
        )
        expect_close(alone, together[i : i + 1], f"tokens of sample {i} alone, against the batch")


@torch.no_grad()
def frames_are_independent(subject: Subject, given: Given) -> None:
    """A frame alone gives what it gives in a window: a robot encodes each frame once."""
    encoder: VisionEncoder = subject.build()
    together = padded(encoder(images(given), text(given)))
    for t in range(given.action.window):
        alone = padded(
            encoder({name: x[:, t : t + 1] for name, x in images(given).items()}, text(given))
        )
        expect_close(
            alone, together[:, t : t + 1], f"tokens of frame {t} alone, against the window"
        )


@torch.no_grad()
def cameras_are_apart(subject: Subject, given: Given) -> None:
    """Another image of one camera changes that camera's tokens alone, its share in the order of
    `cameras`.
    """
    encoder: VisionEncoder = subject.build()
    if not encoder.separates_cameras:
        return
    names = list(getattr(encoder, "cameras", ()))
    expect(
        sorted(names) == sorted(given.cameras),
        "cameras",
        f"{sorted(given.cameras)}, in the order of tokens",
        f"{names}",
    )
    before = padded(encoder(images(given), text(given)))
    count = before.shape[2]
    expect(
        count % len(names) == 0, "tokens", f"as many of each of {len(names)} cameras", str(count)
    )
    for v, name in enumerate(names):
        changed = padded(encoder({**images(given), name: 255 - images(given)[name]}, text(given)))
        shares = zip(
            before.tensor_split(len(names), 2), changed.tensor_split(len(names), 2), strict=True
        )
        for other, (expected, received) in enumerate(shares):
            if other != v:
                expect_close(
                    received,
                    expected,
                    f"tokens of camera '{names[other]}' after a change of '{name}'",
                )


@torch.no_grad()
def padded_text_is_not_seen(subject: Subject, given: Given) -> None:
    """What the padding of the text holds changes nothing."""
    encoder: VisionEncoder = subject.build()
    words = text(given)
    assert words.mask is not None
    noise = 7 * normal(*words.tokens.shape, seed=18)
    other = replace(words, tokens=torch.where(words.mask[..., None], words.tokens, noise))
    expected = padded(encoder(images(given), words))
    expect_close(
        padded(encoder(images(given), other)),
        expected,
        "tokens after a change of the text's padding",
    )


def images(given: Given) -> Images:
    """Random images {camera: (B T C Y X) uint8}, and features beside."""
    generator = torch.Generator().manual_seed(0)
    lead = (BATCH, given.action.window)
    return features(given) | {
        name: torch.randint(256, (*lead, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in given.cameras.items()
    }


def text(given: Given) -> TokenGroup:
    """Random text tokens (B 4 text_width); the first sample has two."""
    mask = torch.ones(BATCH, 4, dtype=torch.bool)
    mask[0, 2:] = False
    return TokenGroup(normal(BATCH, 4, given.text_width, seed=2), mask)


def _run(encoder: VisionEncoder, dtype: torch.dtype, given: Given) -> Tensor:
    words = text(given)
    return padded(encoder(images(given), replace(words, tokens=words.tokens.to(dtype))))
