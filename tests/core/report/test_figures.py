"""The charts: which curves are drawn, in which colours, with which legend."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from core.report.figures import BUCKETS, Chart, action_chunks, curves, validation_curves
from core.report.run_files import PredictedEpisode
from core.report.run_metrics import Series
from core.report.svg import TEXT_SIZE, WIDTH


def series(*values: float) -> Series:
    return Series(np.arange(1, len(values) + 1), np.array(values, dtype=float))


def colours(chart: Chart) -> set[str]:
    return set(re.findall(r"var\((--series-\d)\)", chart.svg))


def test_a_chart_has_only_the_pages_colours_and_no_fixed_size():
    chart = curves("Loss <1>", {"a": series(3, 2, 1), "b": series(1, 2, 3)})
    assert chart is not None
    root = ET.fromstring(chart.svg.replace("xlink:href", "href"))
    assert root.get("aria-label") == "Loss <1>"
    assert root.get("width") is None
    assert re.findall(r"#[0-9a-f]{6}\b", chart.svg) == []
    assert "clip-path" not in chart.svg
    assert colours(chart) == {"--series-1", "--series-2"}


def test_a_curve_keeps_its_colour_where_another_is_missing():
    chart = curves("Loss", {"a": None, "b": series(1, 2), "c": series(np.nan), "d": series(2, 1)})
    assert chart is not None
    assert [(key.name, key.number) for key in chart.legend] == [("b", 2), ("d", 4)]
    assert colours(chart) == {"--series-2", "--series-4"}


def test_eight_curves_have_eight_colours_and_signs():
    chart = curves("Loss", {str(i): series(i, i + 1) for i in range(8)})
    assert chart is not None
    assert colours(chart) == {f"--series-{number}" for number in range(1, 9)}
    markers = re.findall(r'<path id="[^"]+" d="([^"]+)"', chart.svg)
    assert len(set(markers)) == 8


def test_a_long_curve_alone_has_no_signs():
    long = series(*range(1, 100))
    alone, together = (curves("Loss", dict.fromkeys(names, long)) for names in ("a", "ab"))
    assert alone is not None
    assert together is not None
    assert alone.svg.count("<use") < together.svg.count("<use") - 20


def test_texts_of_all_charts_have_one_size_in_pixels():
    episode = PredictedEpisode("task", "do it", ("x",), np.zeros((3, 1)), np.zeros((3, 2, 1)))
    error = Series(np.arange(3), np.arange(3.0))
    for chart in (
        curves("Loss", {"a": error}),
        validation_curves(error, None, {}),
        *action_chunks(episode),
    ):
        assert chart is not None
        width = ET.fromstring(chart.svg.replace("xlink:href", "href")).get("viewBox", "").split()[2]
        assert float(width) == WIDTH
        assert set(re.findall(r"font-size: ([^;\"]+)", chart.svg)) | set(
            re.findall(r"font: ([^ ]+) ", chart.svg)
        ) == {f"{TEXT_SIZE}px"}


@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0,), (np.nan,), (np.inf,)])
def test_nothing_positive_has_no_logarithmic_chart(values):
    assert curves("Loss", {"a": series(*values)}, logarithmic=True) is None


def test_infinity_and_zero_are_gaps():
    assert curves("Loss", {"a": series(1, np.inf, 0, np.nan, 2)}, logarithmic=True)


def test_many_steps_do_not_make_a_large_chart():
    values = np.exp(np.random.default_rng(0).normal(size=100 * BUCKETS))
    chart = curves("Loss", {"a": series(*values)}, logarithmic=True)
    assert chart is not None
    assert len(chart.svg) < 40_000


def test_ticks_are_plain_numbers():
    chart = curves("Loss", {"a": series(0.001, 10)}, logarithmic=True)
    assert chart is not None
    assert {">0.001<", ">0.1<", ">10<"} <= set(re.findall(r">[\d.]+<", chart.svg))


def test_validation_names_what_it_draws():
    chart = validation_curves(series(3, 1), series(2, 2), {"a": series(3, 1)})
    assert [key.number for key in chart.legend] == [1, 2, 0]
    assert len(validation_curves(series(3, 1), None, {}).legend) == 1


@pytest.mark.parametrize(("length", "horizon"), [(1, 1), (3, 10), (40, 5)])
def test_every_dimension_of_an_episode_is_drawn(length, horizon):
    random = np.random.default_rng(0)
    true, predicted = random.normal(size=(length, 2)), random.normal(size=(length, horizon, 2))
    charts = action_chunks(PredictedEpisode("task", "do it", ("x", "$y$"), true, predicted))
    assert [chart.title for chart in charts] == ["x", "$y$"]
    assert charts[0].svg != charts[1].svg
    assert all(colours(chart) == {"--series-2"} for chart in charts)


def test_the_same_numbers_give_the_same_chart():
    first, second = (curves("Loss", {"a": series(1, 2)}) for _ in range(2))
    assert first == second
