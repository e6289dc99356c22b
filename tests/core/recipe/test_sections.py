"""The sections that are no components: what contradicts itself, and what is derived."""

import pytest

from core.episodes.seeds import EVALUATION_SEEDS, LAST_SEED
from core.recipe.sections import (
    MOST_DEMONSTRATIONS,
    ActionConfig,
    DataConfig,
    EvaluateConfig,
    StoreConfig,
)
from core.recipe.train_section import TrainConfig


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("data/bridge.zarr", "bridge"),
        ("data/bridge.zarr/", "bridge"),
        ("s3://bucket/folder/lab.zarr?region=eu", "lab"),
        ("episodes", "episodes"),
    ],
)
def test_a_store_is_called_after_its_path(path, label):
    assert StoreConfig(path).label == label
    assert StoreConfig(path, name="mine").label == "mine"


def test_one_path_is_one_store():
    assert DataConfig(path="a.zarr").store_configs == (StoreConfig("a.zarr"),)
    two = (StoreConfig("a.zarr"), StoreConfig("b.zarr"))
    assert DataConfig(stores=two).store_configs == two


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (TrainConfig, {"batch_size": 6, "accumulation": 4}, "must be a multiple of accumulation"),
        (TrainConfig, {"schedule": "constant", "decay": 0.5}, "decay has no effect"),
        (DataConfig, {}, "name either one store with path"),
        (DataConfig, {"path": "a", "cameras": ("x", "x")}, "cameras names one twice: x"),
        (ActionConfig, {"clip_range": (1.0, -1.0)}, "clip_range must rise"),
        (EvaluateConfig, {"episodes": 0}, "leave nothing to try"),
        (EvaluateConfig, {"first_seed": LAST_SEED, "episodes": 2}, "leads to seeds above"),
        (
            EvaluateConfig,
            {"episodes": 0, "chains": 1, "controls": ("blank_images",)},
            "controls compare with single tasks",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_the_seeds_of_demonstrations_stay_below_those_of_evaluation():
    assert MOST_DEMONSTRATIONS * 10 <= EVALUATION_SEEDS
