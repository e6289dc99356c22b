"""The contract tests on all built-in datasets, exporters, optimisers and environments.

Those of the parts are in the parts' own files.
"""

from pathlib import Path

import pytest

from core.errors import DataError
from core.recipe.checking import fill, parse_settings
from core.registry.catalogue import load_plugins
from core.registry.components import Component
from core.registry.hookspecs import ComponentKind
from plugins.environments.metaworld import MetaWorld, MetaWorldConfig
from plugins.environments.tabletop import Tabletop, TabletopConfig
from tests.core.testing.failing import failures
from tests.core.training.runs import needs_muon
from tests.plugins.test_damaged_sources import BY_NAME


def component(kind: ComponentKind, name: str) -> Component:
    found = load_plugins()[kind].get(name)
    assert found is not None
    return found


def test_every_built_in_dataset_has_an_example() -> None:
    assert {
        c.name for c in load_plugins()["dataset"] if c.build.__module__.startswith("plugins.")
    } == {*BY_NAME}


@pytest.mark.parametrize("name", BY_NAME)
def test_datasets(name: str, tmp_path: Path) -> None:
    dataset = component("dataset", name)
    mistakes: list[str] = []
    values = parse_settings(BY_NAME[name].settings, mistakes)
    config = fill(dataset.config, values, name, mistakes)
    assert not mistakes
    source = BY_NAME[name].write(tmp_path / "source.zarr")
    assert not failures("dataset", dataset.build, config, source=source)


@pytest.mark.parametrize("images", ["image", "video"])
def test_lerobots_exporter(images: str) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
    from plugins.datasets.lerobot import LeRobot, LeRobotConfig, LeRobotWriter, LeRobotWriterConfig

    config = LeRobotWriterConfig(images=images)  # type: ignore[arg-type]
    assert not failures(
        "exporter", LeRobotWriter, config, read=lambda path: LeRobot(LeRobotConfig(), source=path)
    )


@pytest.mark.parametrize("settings", [{}, {"compression": "none", "validation_episodes": 1}])
def test_robomimics_exporter(settings: dict[str, object]) -> None:
    pytest.importorskip("h5py", reason="needs h5py (pip install -e '.[robomimic]')")
    from plugins.datasets.robomimic import (
        Robomimic,
        RobomimicConfig,
        RobomimicWriter,
        RobomimicWriterConfig,
    )

    config = RobomimicWriterConfig(**settings)  # type: ignore[arg-type]
    assert not failures(
        "exporter",
        RobomimicWriter,
        config,
        read=lambda path: Robomimic(RobomimicConfig(), source=path),
    )


@pytest.mark.parametrize("name", ["adamw", "sgd", pytest.param("muon", marks=needs_muon)])
def test_optimizers(name: str) -> None:
    optimizer = component("optimizer", name)
    assert not failures("optimizer", optimizer.build, optimizer.config())


@pytest.mark.parametrize("continued", [0.0, 1.0])
def test_tabletop(continued: float) -> None:
    config = TabletopConfig(image_size=16, continued=continued)
    assert not failures("environment", Tabletop, config, slow=True)


@pytest.mark.simulator
@pytest.mark.slow
def test_metaworld() -> None:
    try:
        MetaWorld(MetaWorldConfig()).close()
    except DataError as error:
        pytest.skip(str(error))
    assert not failures("environment", MetaWorld, MetaWorldConfig(image_size=32), slow=True)
