"""A chart as an element of a page."""

import re
import xml.etree.ElementTree as ET

from core.report.svg import INK, SERIES, draw_svg


def line(colour):
    return lambda axes: axes.plot([0, 1 / 3], [0, 2 / 3], color=colour, marker="o")


def test_colours_become_variables_of_the_page():
    svg = draw_svg("a chart", 100, line(INK))
    assert "var(--ink)" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)


def test_the_label_is_escaped_and_numbers_are_rounded():
    svg = draw_svg("a < b", 100, line(INK))
    root = ET.fromstring(svg.replace("xlink:href", "href"))
    assert root.get("aria-label") == "a < b"
    assert not re.findall(r' d="[^"]*\.\d{3}', svg)


def test_ids_differ_between_charts_and_agree_between_drawings():
    first, again = (draw_svg("a", 100, line(SERIES[0])) for _ in range(2))
    other = draw_svg("a", 100, line(SERIES[1]))
    assert first == again
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
