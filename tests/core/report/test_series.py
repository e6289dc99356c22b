"""Colours and signs of series: told apart by everybody, legible in light and in dark."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import core.report
from core.report.series import COLOURS, colour, points, sign

STYLE = (Path(core.report.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
# How people see linear RGB who lack one of the three kinds of cones: Machado, Oliveira and
# Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
SIGHTS = {
    "all cones": np.eye(3),
    "no long cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no middle cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ]
    ),
    "no short cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.3039],
        ]
    ),
}
WORDS = ("ink", "muted", "blue", "orange", "green", "violet")


def variables(scheme: str) -> dict[str, np.ndarray]:
    """The colours of the style sheet as linear RGB, {name: (3)}."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): #([0-9a-f]{6});", part)) for part in STYLE.split("@media")[:2]
    )
    chosen = light | dark if scheme == "dark" else light
    return {
        name: to_linear(np.frombuffer(bytes.fromhex(digits), np.uint8) / 255)
        for name, digits in chosen.items()
    }


def to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """The contrast of the Web Content Accessibility Guidelines, from 1 to 21."""
    dark, light = sorted(float(x @ (0.2126, 0.7152, 0.0722)) + 0.05 for x in (one, other))
    return light / dark


def to_oklab(rgb: np.ndarray) -> np.ndarray:
    """Colours (3) in which distances are about as large as they look (Ottosson, 2020)."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.793617785, -0.0040720468],
        [1.9779984951, -2.428592205, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.808675766],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ rgb)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_everybody_tells_eight_colours_apart(scheme, sight):
    seen = [
        to_oklab((SIGHTS[sight] @ variables(scheme)[f"series-{number}"]).clip(0, 1))
        for number in range(1, COLOURS + 1)
    ]
    # blue and orange of matplotlib's own colours are 0.3 apart, its orange and red 0.1
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 0.08


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("background", ["paper", "raised"])
def test_words_and_lines_are_legible(scheme, background):
    colours = variables(scheme)
    for word in WORDS:
        assert contrast(colours[word], colours[background]) >= 7, word
    for number in range(1, COLOURS + 1):
        assert contrast(colours[f"series-{number}"], colours[background]) >= 3, number


def test_words_have_no_other_colours():
    """So that the contrasts above are those of all words of all pages."""
    assert set(re.findall(r"(?<![\w-])color: ([^;}]+)", STYLE)) == {
        f"var(--{name})" for name in WORDS
    }
    assert not re.findall(r"#[0-9a-f]{3,8}\b", re.sub(r"--[\w-]+: #[0-9a-f]+;", "", STYLE))


def test_sixty_four_series_differ_in_colour_or_sign():
    looks = {(colour(number), points(number)) for number in range(1, COLOURS**2 + 1)}
    assert len(looks) == COLOURS**2


def test_a_sign_is_as_large_as_any_other():
    for number in range(1, COLOURS + 1):
        assert np.abs(np.linalg.norm(sign(number), axis=1).max() - 1) < 1e-9
