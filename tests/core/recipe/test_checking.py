"""Plain data become dataclasses, or one line for every mistake in them."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated

import pytest
from annotated_types import Gt

from core.recipe.checking import fill, parse_settings, parse_value


@dataclass(frozen=True)
class Config:
    size: Annotated[int, Gt(0)]
    rate: float = 0.5
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names == ("bad",):
            raise ValueError("names must be good")


def test_a_dataclass_is_filled_with_its_defaults():
    mistakes: list[str] = []
    assert fill(Config, {"size": 3, "names": ["a"]}, "part", mistakes) == Config(3, 0.5, ("a",))
    assert mistakes == []


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, ["part.size: missing; this key has no default"]),
        ({"size": "3"}, ["part.size: expected a valid integer, got '3'"]),
        ({"size": 3, "sise": 4}, ["part.sise: unknown key; did you mean 'size'?"]),
        ({"size": 3, "names": ["bad"]}, ["part: names must be good"]),
        (
            {"size": 3, "names": "good"},
            ["part.names: expected a list, such as [\"good\"], got 'good'"],
        ),
        ({"size": 3, "rate": float("nan")}, ["part.rate: expected a finite number, got nan"]),
        (
            {"size": 3, "names": [date(2020, 1, 1)]},
            ["part.names.0: expected a string, a number or a list, got 2020-01-01"],
        ),
        (
            {"size": 0, "rate": "x", "nams": []},
            [
                "part.nams: unknown key; did you mean 'names'?",
                "part.size: expected greater than 0, got 0",
                "part.rate: expected a valid number, got 'x'",
            ],
        ),
    ],
)
def test_every_mistake_is_a_line_that_says_where(values, lines):
    mistakes: list[str] = []
    assert fill(Config, values, "part", mistakes) is None
    assert mistakes == lines


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), (" [1, 2] ", [1, 2]), ("linear", "linear"), ("3\nx = 4", "3\nx = 4"), ("", "")],
)
def test_a_value_is_toml_or_a_word(text, value):
    assert parse_value(text) == value


def test_settings_of_the_command_line_are_read_as_toml():
    mistakes: list[str] = []
    assert parse_settings(["size=3", "mode = fast", "names=['a=b']", "text="], mistakes) == {
        "size": 3,
        "mode": "fast",
        "names": ["a=b"],
        "text": "",
    }
    assert mistakes == []


def test_a_pair_that_is_none_is_one_line_and_sets_nothing():
    mistakes: list[str] = []
    assert parse_settings(["size", "=3", "mode=fast"], mistakes) == {"mode": "fast"}
    assert mistakes == ["size: expected key=value", "=3: expected key=value"]


def test_settings_replace_those_of_a_file_or_remove_them():
    mistakes: list[str] = []
    file = {"size": 3, "mode": "fast", "name": "arm"}
    pairs = ["size=unset", "mode='unset'", "fps=5"]
    assert parse_settings(pairs, mistakes, file) == {"mode": "unset", "name": "arm", "fps": 5}
    assert mistakes == []
    assert file["size"] == 3
    parse_settings(["siz=unset"], mistakes, file)
    assert mistakes == ["siz=unset: no file sets siz; did you mean 'size'?"]
