"""A stranger's world with a depth camera and a force sensor: recorded, trained on and acted in,
with no word in core.

Its package is in tests/third_party; here it is imported from there, and its world registered by
hand.
"""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from core import run
from core.contracts.batch import Batch
from core.demonstrations.collect import collect
from core.demonstrations.expert import demonstrate
from core.environments.environment import EVALUATION_SEEDS, Observation
from core.environments.workers import EnvironmentSpec, open_workers
from core.episodes.episode import Feature
from core.errors import CheckpointError, ConfigError, DataError
from core.evaluation.predictions import write_predictions
from core.loading.training_data import open_data
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from core.rollout.actor import Actor, load_actor
from core.rollout.attempt import Trial, begin, visual_features
from core.rollout.plan import BLANK, Attempt
from core.rollout.results import STANDARD
from core.rollout.rows import Queue, roll_out
from core.store.store import EpisodeStore
from core.testing import Check, Given, checks_for
from core.weights.checkpoint import checkpoints
from tests.toy_policy import RECIPE

PACKAGE = Path(__file__).parents[3] / "tests" / "third_party" / "joinery-depth-force"
NAME = "depth_force_press"
SIZE = 24
FIRST = EVALUATION_SEEDS


@pytest.fixture(scope="module")
def world() -> Any:
    """The stranger's module; its world's name is known to recipes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)  # processes of environments look there, too
        import depth_force.world

        if load_plugins()["environment"].get(NAME) is None:
            plugin = Plugin("depth_force.world", "joinery-depth-force", "0.1.0")
            config, build = depth_force.world.PressConfig, depth_force.world.Press
            load_plugins()["environment"].add(Component("environment", NAME, config, build, plugin))
        yield depth_force.world


def spec_of(world: ModuleType) -> EnvironmentSpec:
    return EnvironmentSpec(NAME, world.Press, world.PressConfig())


@pytest.fixture(scope="module")
def pristine(world: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with press.toml, press.zarr and the run `run` of a policy that is given depth and
    force.
    """
    folder = tmp_path_factory.mktemp("press")
    text = RECIPE.replace("toy.zarr", "press.zarr").replace('"toy"', f'"{NAME}"')
    (folder / "press.toml").write_text(
        text.replace("window = 2", 'window = 2\nfeatures = ["depth", "force"]')
    )
    assert run.main([str(folder / "press.toml"), "--output", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def trained(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the run; its recipe names the store of `pristine`."""
    return Path(shutil.copytree(pristine / "run", tmp_path / "run"))


def observation_of(world: ModuleType, seed: int = 0) -> Observation:
    press = world.Press(world.PressConfig())
    press.reset("press", seed)
    observation: Observation = press.observe()
    return observation


def record_batches(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """What the policy is given from now on."""
    batches: list[Batch] = []
    act = actor.policy.act

    def recording(batch: Batch, state: Any, text: Any) -> Any:
        batches.append(batch)
        return act(batch, state, text)

    monkeypatch.setattr(actor.policy, "act", recording)
    return batches


# ----------------------------------------------------------------------------------- demonstrations


def test_demonstrations_hold_what_was_observed(world: ModuleType, tmp_path: Path) -> None:
    summary = collect(spec_of(world), tmp_path / "press.zarr", (), 4, 0.2, workers=1)
    assert summary.tasks["press"].kept == 4
    store = EpisodeStore(tmp_path / "press.zarr")
    assert store.info.features == world.describe(SIZE).features
    press = world.Press(world.PressConfig())
    for number in range(4):
        read = store.read(number)
        expected = demonstrate(press, "press", int(read.id.rpartition("/")[2]), 0.2)
        assert expected is not None
        assert all(
            np.array_equal(read.features[name], expected.features[name])
            for name in ("depth", "force")
        )
        assert {array.dtype.name for array in read.features.values()} == {"uint16", "float32"}


def test_the_worlds_store_is_continued(world: ModuleType, tmp_path: Path) -> None:
    for count in (1, 2):
        collect(spec_of(world), tmp_path / "press.zarr", (), count, 0.0, workers=1)
    assert len(EpisodeStore(tmp_path / "press.zarr")) == 2


# ----------------------------------------------------------------------------------------- training


def test_training_says_what_it_gives_to_the_policy(pristine: Path) -> None:
    data = open_data(load_recipe(pristine / "press.toml", [], load_plugins()))
    assert data.feature_specs == {
        "depth": Feature((SIZE, SIZE, 1), "uint16", "depth", "mm"),
        "force": Feature((6,), "float32", "force", "N"),
    }
    training, _ = data.loaders(lambda text: [1], 4, torch.device("cpu"))
    batch = next(training.batches(seed=0))
    assert batch.features["depth"].shape == (4, 2, SIZE, SIZE, 1)
    assert batch.features["depth"].dtype == torch.uint16
    assert batch.features["force"].shape == (4, 2, 6)


def test_a_feature_that_no_store_has_is_a_line(pristine: Path) -> None:
    recipe = load_recipe(
        pristine / "press.toml", ['data.features=["depht", "force"]'], load_plugins()
    )
    with pytest.raises(
        ConfigError,
        match=r"^data.features: no feature 'depht'; did you mean 'depth'\? \(store .*\)$",
    ):
        open_data(recipe)


def test_a_run_goes_on_with_the_same_features_alone(
    pristine: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(pristine / "press.toml"), "--output", str(trained), "--resume"]
    assert run.main(words) == 0
    capsys.readouterr()
    assert run.main([*words, 'data.features=["force"]']) != 0
    assert "data.features: the run in" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- acting


def test_the_policy_is_given_what_the_world_shows(
    world: ModuleType, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = load_actor(trained)
    batches = record_batches(actor, monkeypatch)
    observations = [observation_of(world, seed) for seed in range(3)]
    actor.step(observations, ["press the block"] * 3, actor.start(3))
    (batch,) = batches
    for name in ("depth", "force"):
        expected = np.stack([observation.features[name] for observation in observations])[:, None]
        np.testing.assert_array_equal(batch.features[name].cpu().numpy(), expected)
    assert batch.embodiment is not None
    assert batch.embodiment.tolist() == [0, 0, 0]


def test_a_world_that_shows_something_else_is_told_so(world: ModuleType, trained: Path) -> None:
    actor, observation = load_actor(trained), observation_of(world)
    wrong = {**observation.features, "depth": observation.features["depth"].astype(np.float32)}
    with pytest.raises(
        DataError,
        match=r"feature 'depth': the environment shows float32 \(24, 24, 1\), its info says",
    ):
        actor.step([replace(observation, features=wrong)], ["press"], actor.start(1))


def test_a_world_that_shows_nothing_is_told_so_beside_others_that_do(
    world: ModuleType, trained: Path
) -> None:
    actor, observation = load_actor(trained), observation_of(world)
    lacking = replace(observation, features={"force": observation.features["force"]})
    with pytest.raises(
        DataError, match=r"feature 'depth': the environment shows nothing, its info says uint16"
    ):
        actor.step([observation, lacking], ["press", "press"], actor.start(2))


def test_every_difference_of_features_is_a_line(world: ModuleType, trained: Path) -> None:
    actor, info = load_actor(trained), world.describe(SIZE)
    more = {**info.features, "reward": Feature((), "float32", "reward")}
    actor.check(replace(info, features=more))  # what the policy does not read does not matter
    other = {"depht": info.features["depth"], "force": replace(info.features["force"], unit="kN")}
    with pytest.raises(ConfigError) as caught:
        actor.check(replace(info, features=other))
    assert caught.value.mistakes == [
        "feature 'force': the policy has float32 (6,), force in N, the environment float32 (6,), force in kN",
        "feature 'depth': the policy needs it, and the environment has none; did you mean 'depht'?",
    ]


def test_policies_of_before_there_were_features_read_none(trained: Path) -> None:
    file = checkpoints(trained)[-1].folder / "state.json"
    state = json.loads(file.read_text())
    del state["features"]
    file.write_text(json.dumps(state))
    assert load_actor(trained).info.features == {}
    file.write_text(json.dumps({**state, "features": {"depth": {"shape": [0]}}}))
    with pytest.raises(CheckpointError, match="does not say how to act"):
        load_actor(trained)


def test_predictions_are_made_from_the_stored_features(
    pristine: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(pristine / "press.toml", [], load_plugins())
    actor, store = load_actor(trained), EpisodeStore(pristine / "press.zarr")
    batches = record_batches(actor, monkeypatch)
    write_predictions(actor, recipe, tmp_path / "predictions.npz")
    whole = store.read(len(store) - 1).features  # the one that is held out
    for name in ("depth", "force"):
        shown = np.concatenate([batch.features[name].cpu().numpy()[0] for batch in batches])
        np.testing.assert_array_equal(shown, whole[name])


class Presser:
    """Goes to the block that the depth camera shows, and down; so it needs no picture."""

    def __init__(self, world: ModuleType) -> None:
        self.info = world.describe(SIZE)
        self.columns = (np.arange(SIZE) + 0.5) * world.TABLE / SIZE
        self.observations: list[Observation] = []

    def start(self, rows: int) -> None:
        """It remembers nothing."""

    def reset(self, state: None, seeds: dict[int, int]) -> None:
        """So there is nothing to forget."""

    def step(
        self, observations: list[Observation], instructions: list[str], state: None
    ) -> tuple[np.ndarray, None]:
        self.observations += observations
        return np.stack([self._chunk(observation) for observation in observations])[:, None], None

    def _chunk(self, observation: Observation) -> np.ndarray:
        row = observation.features["depth"][0, :, 0]
        if row.min() == row.max():
            return np.zeros(2, np.float32)
        away = self.columns[row == row.min()].mean() - observation.proprio[0]
        return (
            np.float32([0, -1])
            if abs(away) < 0.015
            else np.float32([np.clip(100 * away, -1, 1), 0])
        )


@pytest.mark.parametrize("condition", [STANDARD, BLANK])
def test_a_policy_without_eyes_has_no_depth_either(world: ModuleType, condition: str) -> None:
    """A lane without an attempt shows zeros of everything."""
    presser = Presser(world)
    press = world.Press(world.PressConfig())
    attempts = [Attempt(condition, "press", FIRST + i, "press the block") for i in range(2)]
    visual = visual_features(presser.info)
    start = partial(
        begin, tasks=press.tasks, execute=1, records=lambda attempt: True, visual=visual
    )
    with open_workers(spec_of(world), 2, 60.0) as workers:
        ended = [
            one for one, _ in roll_out(presser, workers, 3, Queue(attempts, press.tasks), start)
        ]  # type: ignore[arg-type]
    assert [one.result.success for one in ended] == [condition == STANDARD] * 2
    spare = presser.observations[2]
    assert {name: (array.dtype.name, array.any()) for name, array in spare.features.items()} == {
        "depth": ("uint16", False),
        "force": ("float32", False),
    }
    for trial in (one.trial for one in ended):
        assert trial is not None
        assert trial.frames[0].features["depth"].any() == (condition == STANDARD)
        assert trial.frames[-1].features["force"].any() == (condition == STANDARD)


def test_what_the_blind_feel(world: ModuleType) -> None:
    observation = observation_of(world)
    pressed = {**observation.features, "force": np.ones(6, np.float32)}
    visual = visual_features(world.describe(SIZE))
    trial = Trial("press", seed=0, max_steps=9, blank=visual)
    next(trial.run(replace(observation, features=pressed), execute=1))
    assert not trial.observation.images["top"].any()
    assert not trial.observation.features["depth"].any()
    assert trial.observation.features["force"].all()


def checks_of_the_strangers_encoder() -> list[Check]:
    """What the encoder's author runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        from depth_force.vision import DepthForceConfig, DepthForceEncoder
        from depth_force.world import describe

    given = Given(features=describe(SIZE).features)
    return checks_for("vision_encoder", DepthForceEncoder, DepthForceConfig(), given)


@pytest.mark.parametrize("check", checks_of_the_strangers_encoder(), ids=str)
def test_the_strangers_encoder_keeps_the_contract(check: Check) -> None:
    check()


def test_the_strangers_encoder_says_which_features_it_reads() -> None:
    from depth_force.vision import DepthForceConfig, DepthForceEncoder

    with pytest.raises(
        ConfigError, match=r"data.features: 'depth_force' reads force; name it there"
    ):
        DepthForceEncoder(
            DepthForceConfig(),
            cameras={},
            features={"depth": Feature((2, 2, 1), "uint16", "depth")},
        )
