"""The colour and the sign by which a reader knows a series in charts, in tables and in legends.

Readers with any kind of colour blindness can tell the eight colours apart; a test computes how far
apart each of them sees the colours. The sign says the same a second time, on paper without colours
for example. Beyond eight, colours come again, but not together with the same sign.
"""

import numpy as np

COLOURS = 8
# Each sign is a star: its number of corners, how far the notches between them are from the centre
# (1: as far as the corners), and the angle of the first corner in degrees from above.
SIGNS = (
    (24, 1.0, 0.0),  # a disc
    (4, 0.71, 45.0),  # a square
    (3, 0.5, 0.0),  # a triangle
    (4, 0.38, 0.0),  # a star with four corners
    (3, 0.5, 180.0),  # a triangle upside down
    (4, 0.71, 0.0),  # a diamond
    (4, 0.38, 45.0),  # a cross
    (5, 0.45, 0.0),  # a star with five corners
)


def colour(number: int) -> int:
    """Return the colour, from 1 to COLOURS, of the series with a number, counted from 1."""
    return (number - 1) % COLOURS + 1


def sign(number: int) -> np.ndarray:
    """Return the corners of the sign of a series (n 2): x to the right, y up, from -1 to 1."""
    turns, place = divmod(number - 1, COLOURS)
    corners, notch, first = SIGNS[(place + turns) % len(SIGNS)]
    angles = np.radians(first) + np.arange(2 * corners) * np.pi / corners
    radii = np.where(np.arange(2 * corners) % 2, notch, 1.0)
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)], axis=1)


def points(number: int) -> str:
    """Return the corners of a sign as the points of an SVG polygon, y down, from -5 to 5."""
    return " ".join(f"{5 * x:.1f},{-5 * y:.1f}" for x, y in sign(number))
