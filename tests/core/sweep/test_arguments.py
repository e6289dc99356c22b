"""What the command line adds to the file of a sweep."""

from pathlib import Path
from typing import Any

import pytest

from core.commands.sweep import _parser
from core.errors import ConfigError
from core.sweep.arguments import add_arguments, split_values, split_words


def added(*words: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the contents of a sweep's file, with what the arguments add."""
    arguments = _parser().parse(["a.toml", *words])
    values = values or {}
    add_arguments(values, arguments, split_words(arguments.words)[1])
    return values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("mlp,lstm,gpt", ["mlp", "lstm", "gpt"]),
        ("1e-3, 3e-4", [1e-3, 3e-4]),
        ("[64],[64, 32]", [[64], [64, 32]]),
        ("{a = 1, b = [1, 2]},true", [{"a": 1, "b": [1, 2]}, True]),
        ("\"a,b\",'c,d'", ["a,b", "c,d"]),
        ("7", [7]),
    ],
)
def test_commas_divide_values(text: str, values: list[Any]) -> None:
    assert split_values(text) == values


def test_words_are_files_or_overrides(tmp_path: Path) -> None:
    there = tmp_path / "a=b.toml"
    there.touch()
    words = ["a.toml", str(there), "train.steps=3", "policy_head = {name = 'lstm'}"]
    assert split_words(words) == ([Path("a.toml"), there], words[2:])


def test_the_command_line_comes_before_the_file() -> None:
    file = {
        "seeds": 3,
        "overrides": ["train.steps=1"],
        "grid": {"a.b": [1]},
        "search": {"trials": 3, "ranges": {"c.d": [1, 2]}},
        "slurm": {"partition": "cpu", "gpus": 1},
    }
    words = "train.steps=2 slurm.partition=gpu --grid a.b=2,3 --grid e.f=x --seeds 5 --baseline q"
    words += " --range train.learning_rate=1e-4:1e-2:log --range g.h=1:4 --range o.n=a,b --trials 9"
    assert added(*words.split(), values=file) == {
        "seeds": 5,
        "overrides": ["train.steps=1", "train.steps=2"],
        "grid": {"a.b": [2, 3], "e.f": ["x"]},
        "search": {
            "trials": 9,
            "ranges": {
                "c.d": [1, 2],
                "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "g.h": {"low": 1, "high": 4, "log": False},
                "o.n": ["a", "b"],
            },
        },
        "slurm": {"partition": "gpu", "gpus": 1},
        "baseline": "q",
    }


def test_seeds_are_a_number_or_a_list() -> None:
    assert added("--seeds", "4")["seeds"] == 4
    assert added("--seeds", "1,2,8")["seeds"] == [1, 2, 8]
    assert added("--seeds", "[7]")["seeds"] == [7]


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        added("--grid", "steps=3", "--range", "train.steps", "--grid", "a.b=", "--range=a.b=1:2:lg")
    assert [line.partition(":")[0] for line in error.value.mistakes] == [
        "--grid steps=3",
        "--grid a.b=",
        "--range train.steps",
        "--range a.b=1",
    ]


def test_choices_may_hold_colons() -> None:
    assert added("--range", 'a.b="c:d","e"')["search"]["ranges"] == {"a.b": ["c:d", "e"]}


def test_a_table_that_is_none_is_left_to_be_reported() -> None:
    assert added("--grid", "a.b=1", values={"grid": 3})["grid"] == 3
