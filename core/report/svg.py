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

# Placeholder colours, which occur nowhere else. Matplotlib draws with them; each of them is then
# replaced by a CSS variable that the style sheet defines for light and for dark pages.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)
}
STYLE: dict[Any, Any] = {
    # keep text as text, not as curves: it takes fewer bytes, can be selected, and gets the page's
    # font
    "svg.fonttype": "none",
    "svg.hashsalt": "joinery",  # a fixed salt, so that the same input gives the same page
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
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


def draw_svg(label: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> str:
    """Return a chart as an SVG element.

    label: the text that a screen reader reads out instead of the chart.
    size: width and height in inches. The page scales the chart, so the size only sets its
        proportions, and how large text and lines are relative to the chart.
    paint: draws on the axes.
    """
    stream = StringIO()
    with matplotlib.rc_context(STYLE):
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
