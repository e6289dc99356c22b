"""Contract tests of vision encoders."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core.contracts.abilities import HasTokenCount
from core.contracts.batch import TokenGroup
from core.contracts.parts import VisionEncoder
from core.registry.hookspecs import Build
from core.testing.common import (
    BATCH,
    Check,
    Setup,
    expect,
    expect_close,
    expect_group,
    expect_width,
    features,
    normal,
    padded,
)
from core.testing.every_part import PartUnderTest, checks_of

Images = dict[str, Tensor]


def checks(build: Build, config: Any, setup: Setup) -> list[Check]:
    """Return the checks of a vision encoder."""
    arguments = {
        "cameras": setup.cameras,
        "text_width": setup.text_width,
        "features": setup.features,
    }
    part = PartUnderTest(
        VisionEncoder, build, config, arguments, partial(encode_in_type, setup=setup)
    )
    tests = (
        shape_is_declared,
        samples_are_independent,
        frames_are_independent,
        cameras_are_apart,
        padded_text_is_not_seen,
    )
    return checks_of(part, tests, setup)


def encode(encoder: VisionEncoder, images: Images, text: TokenGroup) -> Tensor:
    """Return the tokens (B T N width) of images and text, with zeros at the padding."""
    return padded(encoder(images, text))


def encode_in_type(encoder: VisionEncoder, dtype: torch.dtype, setup: Setup) -> Tensor:
    """Return the tokens of the test images and the test text; the text is of type `dtype`."""
    words = text(setup)
    return encode(encoder, images(setup), replace(words, tokens=words.tokens.to(dtype)))


def shape_is_declared(encoder: VisionEncoder, setup: Setup) -> None:
    """Images {camera: (B T C Y X)} give tokens (B T N width), N as in `count` if it has that."""
    group = encoder(images(setup), text(setup))
    count = encoder.count if isinstance(encoder, HasTokenCount) else None
    expect_group(group, (BATCH, setup.action.window, count, encoder.width), "vision tokens")
    expect_width(encoder, group.tokens.shape[-1])
    expect(
        group.mask is None or bool(group.mask.any(-1).all()),
        "mask",
        "a real token in every frame",
        "none in some",
    )


@torch.no_grad()
def samples_are_independent(encoder: VisionEncoder, setup: Setup) -> None:
    """A sample gives the same tokens alone as in a batch."""
    words = text(setup)
    assert words.mask is not None
    together = encode(encoder, images(setup), words)
    for i in range(BATCH):
        row = slice(i, i + 1)
        alone = encode(
            encoder,
            {name: x[row] for name, x in images(setup).items()},
            TokenGroup(words.tokens[row], words.mask[row]),
        )
        expect_close(alone, together[row], f"tokens of sample {i} alone, against the batch")


@torch.no_grad()
def frames_are_independent(encoder: VisionEncoder, setup: Setup) -> None:
    """A frame gives the same tokens alone as in a window.

    A robot relies on this, because it encodes each frame alone and only once.
    """
    together = encode(encoder, images(setup), text(setup))
    for t in range(setup.action.window):
        frame = {name: x[:, t : t + 1] for name, x in images(setup).items()}
        alone = encode(encoder, frame, text(setup))
        expect_close(
            alone, together[:, t : t + 1], f"tokens of frame {t} alone, against the window"
        )


@torch.no_grad()
def cameras_are_apart(encoder: VisionEncoder, setup: Setup) -> None:
    """A camera's image changes only that camera's tokens; tokens are in the order of `cameras`."""
    if not encoder.separates_cameras:
        return
    names = list(getattr(encoder, "cameras", ()))
    expect(
        sorted(names) == sorted(setup.cameras),
        "cameras",
        f"{sorted(setup.cameras)}, in the order of tokens",
        f"{names}",
    )
    before = encode(encoder, images(setup), text(setup))
    count = before.shape[2]
    expect(
        count % len(names) == 0, "tokens", f"as many of each of {len(names)} cameras", str(count)
    )
    for name in names:
        changed_images = {**images(setup), name: 255 - images(setup)[name]}
        after = encode(encoder, changed_images, text(setup))
        tokens_before = before.tensor_split(len(names), 2)
        tokens_after = after.tensor_split(len(names), 2)
        for other, expected, received in zip(names, tokens_before, tokens_after, strict=True):
            if other != name:
                expect_close(
                    received, expected, f"tokens of camera '{other}' after a change of '{name}'"
                )


@torch.no_grad()
def padded_text_is_not_seen(encoder: VisionEncoder, setup: Setup) -> None:
    """The contents of the text's padding do not change the tokens."""
    words = text(setup)
    assert words.mask is not None
    noise = 7 * normal(*words.tokens.shape, seed=18)
    other = replace(words, tokens=torch.where(words.mask[..., None], words.tokens, noise))
    expect_close(
        encode(encoder, images(setup), other),
        encode(encoder, images(setup), words),
        "tokens after a change of the text's padding",
    )


def images(setup: Setup) -> Images:
    """Return random images {camera: (B T C Y X) uint8} and features {name: (B T ...)}."""
    generator = torch.Generator().manual_seed(0)
    lead = (BATCH, setup.action.window)
    return features(setup) | {
        name: torch.randint(256, (*lead, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in setup.cameras.items()
    }


def text(setup: Setup) -> TokenGroup:
    """Return random text tokens (B 4 text_width); the last two of the first sample are padding."""
    mask = torch.ones(BATCH, 4, dtype=torch.bool)
    mask[0, 2:] = False
    return TokenGroup(normal(BATCH, 4, setup.text_width, seed=2), mask)
