"""Draws the charts of all pages: curves over training steps, action chunks, histograms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from core.report.run_files import PredictedEpisode
from core.report.run_metrics import Series
from core.report.series import COLOURS, colour, sign
from core.report.store_distributions import Dimension
from core.report.svg import INK, MUTED, SERIES, draw_svg

DASHED = (0, (4, 1.5))
# Height in pixels of a chart of curves, of one of many charts, and of a histogram with its labels.
HIGH, LOW, LABELLED = 208, 130, 168
# A curve of more than 1.5 times this many points is divided into this many buckets; each bucket is
# drawn as a mean and a range.
BUCKETS = 240
# If a chart has more than this many curves, they have fewer buckets each, and no ranges.
MAX_SHADES, BUCKETS_OF_MANY = 3, 60
# A curve of at most this many points gets a sign at each point. Without one, a curve of a single
# point would be invisible. A longer curve gets this many signs, if there are other curves.
MAX_SIGNS = 12
# At most about this many of the predicted chunks of an episode are drawn.
MAX_CHUNKS = 14


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the name of a curve, its number, and whether its line is solid.

    number: the number of the series, which has a colour and a sign; 0 for muted curves.
    """

    name: str
    number: int
    solid: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart with its title, its legend, and a note below the chart."""

    title: str
    svg: str
    legend: Sequence[Key] = ()
    note: str = ""


def curves(
    title: str, series: Mapping[str, Series | None], *, logarithmic: bool = False
) -> Chart | None:
    """Draw several series over the training steps; None if no series can be drawn.

    The n-th series has the n-th colour and sign, even if an earlier series cannot be drawn. On a
    page about several runs, a run therefore looks the same in every chart.
    """
    drawable = {
        (number, name): curve
        for number, (name, curve) in enumerate(series.items(), 1)
        if curve and _is_drawable(curve, logarithmic)
    }
    if not drawable:
        return None

    def paint(axes: Axes) -> None:
        for (number, _), curve in drawable.items():
            _paint_curve(axes, curve, number, len(drawable))
        axes.set_xlabel("step")
        if logarithmic:
            _make_logarithmic(axes)

    legend = [Key(name, number) for number, name in drawable]
    longest = max(len(curve.steps) for curve in drawable.values())
    note = ""
    if (bucket := longest / _bucket_count(len(drawable))) > 1.5:
        note = f"Means of about {bucket:.0f} measurements"
        note += "." if len(drawable) > MAX_SHADES else "; the shade is the range within them."
    return Chart(title, draw_svg(title, HIGH, paint), legend, note)


def validation_curves(
    error: Series, constant: Series | None, by_task: Mapping[str, Series]
) -> Chart:
    """Draw the errors of the policy and of the best constant action per task on held-out episodes.

    by_task: {task: the policy's error on its held-out episodes}, drawn in the background.
    """
    title = "Error on held-out episodes"

    def paint(axes: Axes) -> None:
        for curve in by_task.values():
            axes.plot(
                curve.steps,
                curve.values,
                color=MUTED,
                alpha=0.4,
                linewidth=0.8,
                marker="." if len(curve.steps) == 1 else "",
            )
        if constant:
            _paint_curve(axes, constant, 2, 2, DASHED)
        _paint_curve(axes, error, 1, 2)
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)

    legend = [Key("policy, mean squared error", 1)]
    if constant:
        legend.append(Key("best constant action per task", 2, solid=False))
    if by_task:
        legend.append(Key("policy, task by task", 0))
    return Chart(title, draw_svg(title, HIGH, paint), legend)


def action_chunks(episode: PredictedEpisode) -> list[Chart]:
    """Draw a chart per action dimension: the demonstrator's actions and the predicted chunks.

    One chunk is drawn every few steps, so that no more than two or three overlap.
    """
    length, horizon = episode.predicted.shape[:2]
    starts = np.arange(0, length, max(1, horizon // 2, ceil(length / MAX_CHUNKS)))
    steps = starts[:, None] + np.arange(horizon)  # (chunks H)
    inside = steps < length
    # One call of `plot` draws all chunks; a NaN after each chunk separates its line from the next.
    gap = np.full((len(starts), 1), np.nan)
    times = np.append(np.where(inside, steps, 0), np.zeros((len(starts), 1), int), axis=1)

    def chart(index: int, name: str) -> Chart:
        chunks = np.where(inside, episode.predicted[starts, :, index], np.nan)
        chunks = np.append(chunks, gap, axis=1)

        def paint(axes: Axes) -> None:
            axes.plot(episode.true[:, index], color=INK, linewidth=1.3)
            axes.plot(times.ravel(), chunks.ravel(), color=SERIES[1], linewidth=1.1)
            axes.plot(
                starts, chunks[:, 0], color=SERIES[1], linestyle="", marker="o", markersize=3.4
            )
            axes.margins(x=0.02)

        label = f"{name}: true action and predicted chunks"
        return Chart(name, draw_svg(label, LOW, paint))

    return [chart(index, name) for index, name in enumerate(episode.names)]


def histogram(dimension: Dimension) -> Chart:
    """Draw a histogram: how many frames of a store have each value of a dimension."""
    hue = SERIES[0] if dimension.feature == "action" else SERIES[2]

    def paint(axes: Axes) -> None:
        axes.stairs(dimension.counts, dimension.edges, fill=True, color=hue, linewidth=0)
        axes.set_xlabel(dimension.unit)
        axes.set_ylabel("frames")
        axes.locator_params(nbins=4)
        axes.margins(x=0)

    omitted = {
        "outside of what is drawn": dimension.outside,
        "NaN or infinite": dimension.not_finite,
    }
    note = "; ".join(f"{count:,} frames {reason}" for reason, count in omitted.items() if count)
    title = f"{dimension.feature} {dimension.name}"
    return Chart(title, draw_svg(f"{title}: frames by value", LABELLED, paint), note=note)


def _paint_curve(
    axes: Axes, series: Series, number: int, count: int, dash: object = "solid"
) -> None:
    """Draw a series as a line; for a long series, draw the mean and the range of each bucket.

    number: the number of the series, which gives its colour and sign.
    count: number of series in the chart; among many, each is drawn with fewer points, and without
        ranges, which would hide the others.
    """
    steps, values, hue = series.steps, series.values, SERIES[colour(number) - 1]
    if len(steps) > 1.5 * _bucket_count(count):
        buckets = np.array_split(np.arange(len(steps)), _bucket_count(count))
        lows, highs = (
            np.array([least_or_most(values[bucket]) for bucket in buckets])
            for least_or_most in (np.min, np.max)
        )
        steps, values = (
            np.array([numbers[bucket].mean() for bucket in buckets]) for numbers in (steps, values)
        )
        if count <= MAX_SHADES:
            axes.fill_between(steps, lows, highs, color=hue, alpha=0.18, linewidth=0)
    signs = {} if count == 1 and len(steps) > MAX_SIGNS else _signs(number, len(steps))
    axes.plot(steps, values, color=hue, linestyle=dash, **signs)


def _bucket_count(curves: int) -> int:
    return BUCKETS if curves <= MAX_SHADES else BUCKETS_OF_MANY


def _signs(number: int, count: int) -> dict[str, Any]:
    """Return how matplotlib marks a curve of `count` points with the sign of its series."""
    # signs of long curves begin at different places, so that they rarely hide each other
    every = max(1, count // MAX_SIGNS)
    first = number * every // COLOURS % every
    return {
        "marker": Outline(sign(number), closed=False),
        "markersize": 5 if count <= MAX_SIGNS else 6,
        "markeredgewidth": 0,
        "markevery": (first, every),
    }


def _is_drawable(series: Series, logarithmic: bool) -> bool:
    values = series.values[np.isfinite(series.values)]
    return bool((values > 0).any() if logarithmic else len(values))


def _make_logarithmic(axes: Axes) -> None:
    """Use a logarithmic axis with plain numbers.

    An axis that spans less than a factor of 200 has ticks at 2 and 5 times each power of ten, too.
    """
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
