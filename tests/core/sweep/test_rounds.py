"""In which order variants are tried, and how Optuna chooses among them."""

from pathlib import Path

import pytest

from core.sweep.config import check_sweep
from core.sweep.rounds import rounds
from core.sweep.study import propose
from core.sweep.variants import Variant

RANGES = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


def test_a_random_search_is_one_round(recipe: Path) -> None:
    search = {"ranges": RANGES, "trials": 6}
    config = check_sweep({"recipes": [str(recipe)], "search": search}, "a")
    (variants,) = rounds(config, lambda _: None)
    assert len({variant.name for variant in variants}) == 6
    assert all(variant.name.startswith("learning_rate=") for variant in variants)
    config = check_sweep({"recipes": [str(recipe)], "search": search, "grid": {"a.b": [1, 2]}}, "a")
    (variants,) = rounds(config, lambda _: None)
    assert len(variants) == 12
    drawn = [variant.values for variant in variants]
    assert drawn[:6] == drawn[6:], "the same values with each point of the grid"


class Study:
    """A study of a function whose best learning rate is near 0.01."""

    def __init__(self, recipe: Path) -> None:
        pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[optuna]'")
        search = {"ranges": RANGES, "trials": 25, "method": "optuna", "round": 5}
        self.config = check_sweep({"recipes": [str(recipe)], "search": search}, "a")

    def goodness(self, variant: Variant) -> float | None:
        rate = variant.values["train.learning_rate"]
        return None if rate < 2e-4 else -abs(rate - 0.01)

    def run(self) -> list[list[Variant]]:
        return list(rounds(self.config, self.goodness))


def test_a_study_follows_the_results(recipe: Path) -> None:
    chosen = Study(recipe).run()
    assert [len(variants) for variants in chosen[:2]] == [5, 5]
    first, last = (
        [abs(v.values["train.learning_rate"] - 0.01) for v in chosen[n]] for n in (0, -1)
    )
    assert min(last) < 0.003
    assert sorted(last)[2] < sorted(first)[2]
    names = [variant.name for variants in chosen for variant in variants]
    assert len(set(names)) == len(names)


def test_a_study_that_is_made_anew_chooses_the_same(recipe: Path) -> None:
    study = Study(recipe)
    assert study.run() == study.run()


def test_choices_of_any_kind(recipe: Path) -> None:
    pytest.importorskip("optuna", reason="needs optuna: pip install -e '.[optuna]'")
    ranges = {"policy_head.mlp": [[32], [64, 64]], "backbone.depth": {"low": 1, "high": 3}}
    search = check_sweep({"recipes": [str(recipe)], "search": {"ranges": ranges}}, "a").search
    assert search is not None
    values = propose(search, 0, [({"policy_head.mlp": [64, 64], "backbone.depth": 2}, 0.5)])
    assert values["policy_head.mlp"] in ([32], [64, 64])
    assert values["backbone.depth"] in (1, 2, 3)
    assert isinstance(values["backbone.depth"], int)
