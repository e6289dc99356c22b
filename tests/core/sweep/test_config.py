"""The file of a sweep: every mistake at once, each with a way out."""

from pathlib import Path
from shutil import copy

import pytest

from core.errors import ConfigError
from core.sweep.config import Range, check_sweep, read_files

SWEEP = """
recipes = ["base.toml"]
seeds = [3, 5]
baseline = "one"
[[variant]]
name = "one"
[[variant]]
name = "two"
overrides = ["train.steps=9"]
[grid]
"train.batch_size" = [8, 16]
[search]
trials = 4
[search.ranges]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"optimizer.name" = ["adamw", "sgd"]
[slurm]
partition = "gpu"
"""


def mistakes(**values: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check_sweep({"recipes": ["base.toml"], **values}, "a.toml")
    return error.value.mistakes


def test_a_file_says_all(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    values, file = read_files([path])
    assert file == path
    config = check_sweep(values, "sweep.toml")
    assert config.recipes == (tmp_path / "base.toml",)
    assert config.all_seeds == (3, 5)
    assert [variant.name for variant in config.variant] == ["one", "two"]
    assert config.grid == {"train.batch_size": (8, 16)}
    assert config.search is not None
    assert config.search.ranges == {
        "train.learning_rate": Range(1e-4, 1e-2, log=True),
        "optimizer.name": ("adamw", "sgd"),
    }
    assert config.slurm.partition == "gpu"


def test_recipes_beside_a_sweep_replace_its_own(tmp_path: Path) -> None:
    sweep, recipe = tmp_path / "sweep.toml", tmp_path / "other.toml"
    sweep.write_text(SWEEP)
    recipe.write_text("[train]\nsteps = 3\n")
    values, file = read_files([recipe, sweep])
    assert (values["recipes"], file) == ([str(recipe)], sweep)
    assert read_files([recipe]) == ({"recipes": [str(recipe)]}, None)
    with pytest.raises(ConfigError, match="a second sweep"):
        read_files([sweep, copy(sweep, tmp_path / "again.toml")])


def test_a_number_of_seeds_begins_with_zero() -> None:
    assert check_sweep({"recipes": ["a.toml"]}, "a").all_seeds == (0, 1, 2)
    assert check_sweep({"recipes": ["a.toml"], "seeds": 1}, "a").all_seeds == (0,)


def test_all_mistakes_are_told_at_once() -> None:
    lines = mistakes(
        sedes=3, threads=0, variant=[{"nam": "one"}], slurm={"minutes": -1}, ray=3, search={}
    )
    assert lines == [
        "a.toml: sedes: unknown key; did you mean 'seeds'?",
        "a.toml: threads: expected greater than 0, got 0",
        "a.toml: search.ranges: missing; this key has no default",
        "a.toml: slurm.minutes: expected greater than 0, got -1",
        "a.toml: ray: expected a section [ray], got 3",
        "a.toml: variant.0.nam: unknown key; did you mean 'name'?",
        "a.toml: variant.0.name: missing; this key has no default",
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"recipes": []}, "recipes names none; name one"),
        ({"seeds": [1, 1]}, "seeds names one twice: 1"),
        ({"seeds": []}, "seeds names none; name one"),
        ({"grid": {"train.steps": []}}, "grid: train.steps has no values"),
        ({"grid": {"train.seed": [1]}}, "train.seed is what seeds sets; name the seeds there"),
        ({"overrides": ["train.seed = 4"]}, "train.seed is what seeds sets; name the seeds there"),
        ({"variant": [{"name": "a"}, {"name": "a"}]}, "variant.name names one twice: a"),
        ({"variant": {"name": "a"}}, "variant: expected tables [[variant]], got {'name': 'a'}"),
        (
            {"grid": {"a.b": [1]}, "search": {"ranges": {"a.b": [1]}}},
            "a.b is in grid and in search.ranges; drop one of the two",
        ),
        ({"search": {"ranges": {"a.b": []}}}, "search: ranges: a.b has no choices"),
        ({"search": {"ranges": {}}}, "search: ranges names no key; name one, or drop the section"),
    ],
)
def test_a_contradiction_is_one_line(values: dict[str, object], line: str) -> None:
    assert mistakes(**values) == [f"a.toml: {line}"]


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"low": 2, "high": 1}, "low 2 must be below high 1"),
        ({"low": 0, "high": 1, "log": True}, "log = true needs a low above zero, got 0"),
        ({"low": 0, "high": 10**400}, "low and high must be between -1e+100 and 1e+100"),
        ({"low": "a", "high": 2}, "expected int or float, got 'a'"),
        ({"low": 1, "high": 2, "logg": True}, "unknown key; did you mean 'log'?"),
        (3, "expected {low = 1, high = 4}, or a list of choices, got 3"),
    ],
)
def test_a_wrong_range_is_one_line(choices: object, line: str) -> None:
    (mistake,) = mistakes(search={"ranges": {"a.b": choices}})
    assert mistake.startswith("a.toml: search.ranges.a.b")
    assert mistake.endswith(f": {line}")


@pytest.mark.parametrize(
    "values",
    [
        {"seeds": 10**11},
        {"search": {"ranges": {"a.b": {"low": 0.0, "high": 1.0}}, "trials": 10**11}},
        {"grid": {f"a.{letter}": list(range(10)) for letter in "bcdefghijkl"}},
    ],
)
def test_more_runs_than_anyone_has_time_for_are_refused(values: dict[str, object]) -> None:
    (line,) = mistakes(**values)
    assert line.endswith("runs, and a sweep has 10000 at most; name fewer")


@pytest.mark.parametrize(
    ("slurm", "line"),
    [
        ({"partition": "a\nrm b"}, "options of sbatch are one line of text each"),
        ({"additional": {"comment": "a'\nrm b\n'"}}, "options of sbatch are one line of text each"),
        ({"additional": {"--account": "lab"}}, "additional.--account: expected the name of"),
        ({"additional": {"open-mode": "append"}}, "additional.open_mode: the sweep reads this"),
    ],
)
def test_options_of_sbatch_are_options_alone(slurm: dict[str, object], line: str) -> None:
    (mistake,) = mistakes(slurm=slurm)
    assert mistake.startswith(f"a.toml: slurm: {line}")
