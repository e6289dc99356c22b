"""A third party's environment with depth and force: demonstrations, training and evaluation.

Core knows nothing of it. Its package is in tests/third_party; the tests import it from there and
register its environment.
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
from core.episodes.renaming import NewNames
from core.errors import CheckpointError, ConfigError, DataError
from core.evaluation.predictions import write_predictions
from core.loading.opening import open_data
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Plugin
from core.rollout.actor import Actor, load_actor
from core.rollout.attempt import Attempt, start_rollout, visual_features
from core.rollout.plan import BLANK, PlannedAttempt
from core.rollout.queue import Queue
from core.rollout.results import STANDARD
from core.rollout.runner import run_rollouts
from core.store.store import EpisodeStore
from core.testing import Check, Setup, checks_for
from core.weights.checkpoint import checkpoints
from tests.core.rollout.factories import Notes
from tests.core.testing.failing import failures
from tests.toy_policy import RECIPE

PACKAGE = Path(__file__).parents[3] / "tests" / "third_party" / "joinery-depth-force"
NAME = "depth_force_press"
SIZE = 24
FIRST_SEED = EVALUATION_SEEDS


@pytest.fixture(scope="module")
def world() -> Any:
    """The third party's module; its environment is registered, so that recipes can name it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)  # workers import from there, too
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
    """A folder with press.toml, press.zarr and the run `run` of a policy with depth and force."""
    folder = tmp_path_factory.mktemp("press")
    text = RECIPE.replace("toy.zarr", "press.zarr").replace('"toy"', f'"{NAME}"')
    (folder / "press.toml").write_text(
        text.replace("window = 2", 'window = 2\nfeatures = ["depth", "force"]')
    )
    assert run.main([str(folder / "press.toml"), "--output", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def trained(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change; its recipe names the store of `pristine`."""
    return Path(shutil.copytree(pristine / "run", tmp_path / "run"))


def observation_of(world: ModuleType, seed: int = 0) -> Observation:
    press = world.Press(world.PressConfig())
    press.reset("press", seed)
    observation: Observation = press.observe()
    return observation


def record_batches(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Return a list to which every batch of the policy is added from now on."""
    batches: list[Batch] = []
    act = actor.policy.act

    def recording(batch: Batch, state: Any, text: Any) -> Any:
        batches.append(batch)
        return act(batch, state, text)

    monkeypatch.setattr(actor.policy, "act", recording)
    return batches


# ----------------------------------------------------------------------------------- demonstrations


def test_demonstrations_hold_every_feature(world: ModuleType, tmp_path: Path) -> None:
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


def test_a_store_with_features_is_continued(world: ModuleType, tmp_path: Path) -> None:
    for count in (1, 2):
        collect(spec_of(world), tmp_path / "press.zarr", (), count, 0.0, workers=1)
    assert len(EpisodeStore(tmp_path / "press.zarr")) == 2


# ----------------------------------------------------------------------------------------- training


def test_batches_hold_the_features_of_the_recipe(pristine: Path) -> None:
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


def test_a_feature_that_no_store_has_is_an_error(pristine: Path) -> None:
    recipe = load_recipe(
        pristine / "press.toml", ['data.features=["depht", "force"]'], load_plugins()
    )
    with pytest.raises(
        ConfigError,
        match=r"^data.features: no feature 'depht'; did you mean 'depth'\? \(store .*\)$",
    ):
        open_data(recipe)


def test_a_run_is_only_resumed_with_the_same_features(
    pristine: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(pristine / "press.toml"), "--output", str(trained), "--resume"]
    assert run.main(words) == 0
    capsys.readouterr()
    assert run.main([*words, 'data.features=["force"]']) != 0
    assert "data.features: the run in" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- acting


def test_the_policy_is_given_the_environments_features(
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


def test_a_feature_of_another_dtype_is_an_error(world: ModuleType, trained: Path) -> None:
    actor, observation = load_actor(trained), observation_of(world)
    wrong = {**observation.features, "depth": observation.features["depth"].astype(np.float32)}
    with pytest.raises(
        DataError,
        match=r"^observation: feature 'depth' shows float32 \(24, 24, 1\); .* trained on uint16",
    ):
        actor.step([replace(observation, features=wrong)], ["press"], actor.start(1))


def test_a_feature_that_is_missing_in_one_row_is_an_error(world: ModuleType, trained: Path) -> None:
    actor, observation = load_actor(trained), observation_of(world)
    lacking = replace(observation, features={"force": observation.features["force"]})
    with pytest.raises(DataError, match=r"^observation 1: no feature 'depth'; known: force$"):
        actor.step([observation, lacking], ["press", "press"], actor.start(2))


def test_every_difference_of_features_is_a_line(world: ModuleType, trained: Path) -> None:
    actor, info = load_actor(trained), world.describe(SIZE)
    more = {**info.features, "reward": Feature((), "float32", "reward")}
    actor.check(replace(info, features=more))  # what the policy does not read does not matter
    other = {"depht": info.features["depth"], "force": replace(info.features["force"], unit="kN")}
    with pytest.raises(ConfigError) as caught:
        actor.check(replace(info, features=other))
    assert caught.value.mistakes == [
        "feature 'force': the policy has float32 (6,), force in N, "
        "the environment float32 (6,), force in kN",
        "feature 'depth': the policy needs it, and the environment has none; did you mean 'depht'?",
        "if the environment has 'depth' under another name, say so: "
        'evaluate.features = {depth = "depht"}, for example',
    ]


def test_checkpoints_from_before_there_were_features_read_none(trained: Path) -> None:
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
    whole = store.read(len(store) - 1).features  # the held-out episode
    for name in ("depth", "force"):
        shown = np.concatenate([batch.features[name].cpu().numpy()[0] for batch in batches])
        np.testing.assert_array_equal(shown, whole[name])


class DepthActor:
    """Moves above the block that the depth camera shows, and down; it needs no colour image."""

    def __init__(self, world: ModuleType) -> None:
        self.info = world.describe(SIZE)
        self.columns = (np.arange(SIZE) + 0.5) * world.TABLE_WIDTH / SIZE
        self.observations: list[Observation] = []

    def start(self, rows: int) -> None:
        """Return no state, since it has no memory."""

    def reset(self, state: None, seeds: dict[int, int]) -> None:
        """Do nothing, since it has no memory."""

    def step_rows(
        self, observations: list[Observation], instructions: list[str], state: None
    ) -> tuple[np.ndarray, dict[int, str], None]:
        self.observations += observations
        chunks = np.stack([self._chunk(observation) for observation in observations])[:, None]
        return chunks, {}, None

    def _chunk(self, observation: Observation) -> np.ndarray:
        row = observation.features["depth"][0, :, 0]
        if row.min() == row.max():
            return np.zeros(2, np.float32)
        away = self.columns[row == row.min()].mean() - observation.proprio[0]
        if abs(away) < 0.015:
            return np.float32([0, -1])
        return np.float32([np.clip(100 * away, -1, 1), 0])


@pytest.mark.parametrize("condition", [STANDARD, BLANK])
def test_blank_images_mean_no_depth_either(world: ModuleType, condition: str) -> None:
    """A row without an attempt sees zeros in every feature."""
    actor, press = DepthActor(world), world.Press(world.PressConfig())
    plan = [PlannedAttempt(condition, "press", FIRST_SEED + i, "press the block") for i in range(2)]
    recordings: dict[PlannedAttempt, Notes] = {}
    start = partial(
        start_rollout,
        tasks=press.tasks,
        replan_steps=1,
        record=lambda planned: recordings.setdefault(planned, Notes()),
        visual=visual_features(actor.info),
        names=NewNames(),
        jerk=len,
    )
    queue = Queue(plan, press.tasks)
    with open_workers(spec_of(world), 2, 60.0) as workers:
        pairs = list(run_rollouts(actor, workers, 3, queue, start))  # type: ignore[arg-type]
    assert [result.success for result, _ in pairs] == [condition == STANDARD] * 2
    empty_row = actor.observations[2]
    features = {name: (array.dtype.name, array.any()) for name, array in empty_row.features.items()}
    assert features == {"depth": ("uint16", False), "force": ("float32", False)}
    for recording in recordings.values():
        first, *_, last = recording.observations
        assert first.features["depth"].any() == (condition == STANDARD)
        assert last.features["force"].any() == (condition == STANDARD)


def test_features_that_show_no_scene_stay_in_a_blank_observation(world: ModuleType) -> None:
    observation = observation_of(world)
    pressed = {**observation.features, "force": np.ones(6, np.float32)}
    visual = visual_features(world.describe(SIZE))
    attempt = Attempt("press", seed=0, max_steps=9, blank=visual)
    next(attempt.run(replace(observation, features=pressed), replan_steps=1))
    assert not attempt.observation.images["top"].any()
    assert not attempt.observation.features["depth"].any()
    assert attempt.observation.features["force"].all()


def checks_of_the_third_party_encoder() -> list[Check]:
    """Return the contract tests that the encoder's author runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        from depth_force.vision import DepthForceConfig, DepthForceEncoder
        from depth_force.world import describe

    given = Setup(features=describe(SIZE).features)
    return checks_for("vision_encoder", DepthForceEncoder, DepthForceConfig(), given)


@pytest.mark.parametrize("check", checks_of_the_third_party_encoder(), ids=str)
def test_the_third_party_encoder_keeps_the_contract(check: Check) -> None:
    check()


def test_the_third_party_environment_keeps_the_contract(world: ModuleType) -> None:
    assert not failures("environment", world.Press, world.PressConfig(), slow=True)


def test_the_third_party_encoder_says_which_features_it_reads() -> None:
    from depth_force.vision import DepthForceConfig, DepthForceEncoder

    with pytest.raises(
        ConfigError, match=r"data.features: 'depth_force' reads force; name it there"
    ):
        DepthForceEncoder(
            DepthForceConfig(),
            cameras={},
            features={"depth": Feature((2, 2, 1), "uint16", "depth")},
        )
