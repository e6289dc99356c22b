"""Curves as inline SVG. Matplotlib draws numbers and axes; every other word is HTML, where the
browser lays it out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from math import ceil
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from core.report.store_distributions import Dimension
from core.report.run_files import PredictedEpisode
from core.report.run_metrics import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib draws in colours that nobody else uses; the page's style sheet then says what they are,
# in light and dark.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    c: f"--series-{i}" for i, c in enumerate(SERIES, 1)
}
DASHED = (0, (4, 1.5))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "joinery",  # the same input gives the same page
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
WIDE, SMALL, LABELLED = (
    (5.0, 2.6),
    (2.9, 1.45),
    (2.9, 1.9),
)  # inches: a curve's drawing, one of many, with labels
BUCKETS = 240  # a curve of more steps is drawn as the mean and the range of this many buckets
FEW = 12  # a curve of no more points gets a dot at each: one alone would draw no line at all
CHUNKS = 14  # at most as many of an episode's predicted chunks are drawn


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the curve's name, its colour (1 to 6; 0: muted) and whether it is
    solid.
    """

    name: str
    colour: int
    solid: bool = True


@dataclass(frozen=True)
class Chart:
    """A drawing with the words around it."""

    title: str
    svg: str
    legend: Sequence[Key] = ()
    note: str = ""


def curves(
    title: str, series: Mapping[str, Series | None], *, logarithmic: bool = False
) -> Chart | None:
    """Draw several series over the steps, None where there is nothing to draw.

    The n-th series has the n-th colour, whether those before it can be drawn or not.
    """
    drawn = {
        (i, name): one
        for i, (name, one) in enumerate(series.items())
        if one and _drawable(one, logarithmic)
    }
    if not drawn:
        return None

    def paint(axes: "Axes") -> None:
        for (number, _), one in drawn.items():
            _curve(
                axes, one, SERIES[number % len(SERIES)], "solid" if number < len(SERIES) else DASHED
            )
        axes.set_xlabel("step")
        if logarithmic:
            _logarithmic(axes)

    keys = [Key(name, i % len(SERIES) + 1, solid=i < len(SERIES)) for i, name in drawn]
    widest = max(len(one.steps) for one in drawn.values()) / BUCKETS
    note = (
        f"Means of about {widest:.0f} steps; the shade is the range within them."
        if widest > 1.5
        else ""
    )
    return Chart(title, _draw(title, WIDE, paint), keys, note)


def validation(error: Series, constant: Series | None, by_task: Mapping[str, Series]) -> Chart:
    """Draw the error on held-out episodes beside that of each task's best constant action, with the
    tasks behind.
    """
    title = "Error on held-out episodes"

    def paint(axes: "Axes") -> None:
        for one in by_task.values():
            axes.plot(
                one.steps, one.values, color=MUTED, alpha=0.4, linewidth=0.8, marker=_marker(one)
            )
        if constant:
            axes.plot(
                constant.steps,
                constant.values,
                color=SERIES[1],
                linestyle=DASHED,
                marker=_marker(constant),
            )
        axes.plot(error.steps, error.values, color=SERIES[0], marker=_marker(error))
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)

    keys = [Key("policy, mean squared error", 1)]
    keys += [Key("best constant action per task", 2, solid=False)] if constant else []
    keys += [Key("policy, task by task", 0)] if by_task else []
    return Chart(title, _draw(title, WIDE, paint), keys)


def action_chunks(episode: PredictedEpisode) -> list[Chart]:
    """Draw each action dimension: what the demonstrator did, and the chunks predicted at every few
    steps.
    """
    length, horizon = episode.predicted.shape[:2]
    every = max(1, horizon // 2, ceil(length / CHUNKS))  # so that no more than two or three overlap
    starts = np.arange(0, length, every)
    steps = starts[:, None] + np.arange(horizon)  # (chunks, H)
    inside = steps < length
    broken = np.append(
        np.where(inside, steps, 0), np.zeros((len(starts), 1), int), axis=1
    )  # + 1: between two chunks

    def chart(index: int, name: str) -> Chart:
        chunks = np.where(inside, episode.predicted[starts, :, index], np.nan)
        chunks = np.append(chunks, np.full((len(starts), 1), np.nan), axis=1)

        def paint(axes: "Axes") -> None:
            axes.plot(episode.true[:, index], color=INK, linewidth=1.3)
            axes.plot(broken.ravel(), chunks.ravel(), color=SERIES[1], linewidth=1.1)
            axes.plot(
                starts, chunks[:, 0], color=SERIES[1], linestyle="", marker="o", markersize=2.6
            )
            axes.margins(x=0.02)

        return Chart(name, _draw(f"{name}: true action and predicted chunks", SMALL, paint))

    return [chart(index, name) for index, name in enumerate(episode.names)]


def histogram(dimension: Dimension) -> Chart:
    """Draw how many frames have which value of a dimension."""
    colour = SERIES[0] if dimension.feature == "action" else SERIES[2]

    def paint(axes: "Axes") -> None:
        axes.stairs(dimension.counts, dimension.edges, fill=True, color=colour, linewidth=0)
        axes.set_xlabel(dimension.unit)
        axes.set_ylabel("frames")
        axes.locator_params(nbins=4)
        axes.margins(x=0)

    counted = {
        "outside of what is drawn": dimension.outside,
        "NaN or infinite": dimension.not_finite,
    }
    note = "; ".join(f"{count:,} frames {what}" for what, count in counted.items() if count)
    title = f"{dimension.feature} {dimension.name}"
    return Chart(title, _draw(f"{title}: frames by value", LABELLED, paint), note=note)


def _curve(axes: "Axes", series: Series, colour: str, dash: object) -> None:
    """A line, or for more points than can be told apart the mean of each bucket within its range."""
    if len(series.steps) <= 1.5 * BUCKETS:
        axes.plot(series.steps, series.values, color=colour, linestyle=dash, marker=_marker(series))
        return
    parts = np.array_split(np.arange(len(series.steps)), BUCKETS)
    steps = np.array([series.steps[part].mean() for part in parts])
    means, lows, highs = (
        np.array([f(series.values[part]) for part in parts]) for f in (np.mean, np.min, np.max)
    )
    axes.fill_between(steps, lows, highs, color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, means, color=colour, linestyle=dash)


def _marker(series: Series) -> str:
    return "." if len(series.steps) <= FEW else ""


def _drawable(series: Series, logarithmic: bool) -> bool:
    values = series.values[np.isfinite(series.values)]
    return bool((values > 0).any() if logarithmic else len(values))


def _logarithmic(axes: "Axes") -> None:
    """Plain numbers at the ticks; at 1, 2 and 5 where the axis spans few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def _draw(label: str, size: tuple[float, float], paint: Callable[["Axes"], None]) -> str:
    """The SVG of one chart that `paint` fills."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(which="both", length=0)
        paint(axes)
        return _as_element(figure, label)


def _as_element(figure: "Figure", label: str) -> str:
    """What matplotlib drew as an element of a page: the page's colours and font, own ids, a label,
    no fixed size.
    """
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box, "matplotlib states the view box"
    body = text[text.index(">", box.end()) + 1 :]
    for unwanted in (
        # nothing leaves the axes
        r"<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>",
        r' clip-path="[^"]*"| transform="rotate\(-0 [^"]*"| id="[a-z]+[._]?\w*_\d+"|font-family: [^;]*; ',
    ):
        body = re.sub(unwanted, "", body, flags=re.DOTALL)
    body = re.sub(
        r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+|\s*\n", r"\1", found[0]), body
    )
    body = re.sub(
        r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", lambda found: f"var({VARIABLES[found[0]]})", body
    )
    body = re.sub(r'( id="|href="#)', rf"\g<1>{crc32(body.encode()):08x}-", body)
    return f'<svg class="chart" viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body.strip()}'
