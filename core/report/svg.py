"""Draw one chart as an SVG element in the colours of the page.

Matplotlib draws the axes and what is on them; titles and legends are HTML outside the SVG.
"""

import re
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any
from zlib import crc32

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.report.series import COLOURS

# Placeholder colours, which occur nowhere else. Matplotlib draws with them; each of them is then
# replaced by a CSS variable that the style sheet defines for light and for dark pages.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0a0a{number:02x}" for number in range(1, COLOURS + 1))
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)
}
# Charts are shown at their own size, so that texts have the same size in all of them, in pixels.
WIDTH, TEXT_SIZE = 352, 12
PIXELS_PER_INCH = 72  # of matplotlib's SVG
STYLE: dict[Any, Any] = {
    # keep text as text, not as curves: it takes fewer bytes, can be selected, and gets the page's
    # font
    "svg.fonttype": "none",
    "svg.hashsalt": "joinery",  # a fixed salt, so that the same input gives the same page
    "text.parse_math": False,
    "font.size": TEXT_SIZE,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.major.pad": 6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.6,
}
# Patterns of text that matplotlib writes but the page does not need: for example clipping (nothing
# is drawn outside the axes) and the font (the style sheet sets it).
SUPERFLUOUS = (
    r"<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>",
    r' clip-path="[^"]*"| transform="rotate\(-0 [^"]*"| id="[a-z]+[._]?\w*_\d+"'
    r"|font-family: [^;]*; ",
)


def draw_svg(label: str, height: int, paint: Callable[[Axes], None]) -> str:
    """Return a chart as an SVG element of WIDTH pixels, which a narrower page makes smaller.

    label: the text that a screen reader reads out instead of the chart.
    height: in pixels.
    paint: draws on the axes.
    """
    stream = StringIO()
    with matplotlib.rc_context(STYLE):
        size = (WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(which="both", length=0)
        paint(axes)
        metadata = {"Date": None, "Creator": None}
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    return _as_element(stream.getvalue(), label)


def _as_element(text: str, label: str) -> str:
    """Turn an SVG file of matplotlib into an element that can share a page with other charts."""
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box, "matplotlib states the view box"
    body = text[text.index(">", box.end()) + 1 :]
    for pattern in SUPERFLUOUS:
        body = re.sub(pattern, "", body, flags=re.DOTALL)

    def round_numbers(attribute: re.Match[str]) -> str:
        return re.sub(r"(\.\d\d)\d+|\s*\n", r"\1", attribute[0])

    body = re.sub(r' (?:d|x|y)="[^"]*"', round_numbers, body)

    def name_colour(colour: re.Match[str]) -> str:
        return f"var({VARIABLES[colour[0]]})"

    body = re.sub(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", name_colour, body)
    # Ids must differ between the charts of a page.
    body = re.sub(r'( id="|href="#)', rf"\g<1>{crc32(body.encode()):08x}-", body)
    attributes = f'class="chart" viewBox="{box[1]}" role="img" aria-label="{escape(label)}"'
    return f"<svg {attributes}>{body.strip()}"
