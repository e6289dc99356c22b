from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import core
from core.environments import Observation
from core.loading.mixture import Mixture
from core.loading.opening import open_data
from core.recipe.contents import Recipe
from core.rollout.actor import load_actor
from core.rollout.loaded_policy import LoadedPolicy
from core.store.store import EpisodeStore
from tests.toy_policy import load, one_thread, pristine_run, trained  # noqa: F401 (fixtures)


def observation_of(store: EpisodeStore, episode: int, frame: int) -> Observation:
    read = store[episode]
    images = {name: frames[frame] for name, frames in read.images.items()}
    return Observation(images, read.proprio[frame])


def test_a_store_gives_episodes_by_number(store: EpisodeStore) -> None:
    opened = core.open_store(str(store.path))
    last = opened[-1]
    assert last.id == store.episode_id(len(store) - 1)
    np.testing.assert_array_equal(last.actions, store.read(len(store) - 1).actions)
    with pytest.raises(IndexError, match=f"episode {len(store)} of {len(store)}"):
        opened[len(store)]
    assert [episode.id for episode in opened] == [store.episode_id(i) for i in range(len(store))]


def test_samples_of_a_store_are_its_numbers_as_they_are(store: EpisodeStore) -> None:
    samples = core.training_samples(store, window=3, horizon=4)
    assert len(samples) == store.frame_count
    number = int(store.start[1]) + 2
    sample, episode = samples[number], store[1]
    last = len(episode) - 1
    frames = np.minimum(np.arange(2, 5), last)
    np.testing.assert_array_equal(sample.frames, frames)
    for name, images in sample.images.items():
        np.testing.assert_array_equal(images, episode.images[name][frames])
    reach = 2 + np.arange(3)[:, None] + np.arange(4)
    np.testing.assert_array_equal(sample.actions, episode.actions[np.minimum(reach, last)])
    np.testing.assert_array_equal(sample.action_mask[..., 0], reach <= last)
    np.testing.assert_array_equal(sample.proprio, episode.proprio[frames])
    assert (sample.instruction, sample.task) == (episode.instruction, episode.task)
    assert samples[-1].episode == store.episode_id(len(store) - 1)
    assert [one.episode for one in samples[:2]] == [store.episode_id(0)] * 2
    with pytest.raises(IndexError, match=f"sample {len(samples)} of"):
        samples[len(samples)]


@pytest.mark.parametrize("split", ["training", "validation"])
def test_samples_of_a_recipe_are_what_the_loader_gives(
    load: Callable[..., Recipe],  # noqa: F811
    split: str,
) -> None:
    recipe = load()
    samples = core.training_samples(recipe, split=split)  # type: ignore[arg-type]
    data = open_data(recipe)
    loaders = dict(
        zip(
            ("training", "validation"),
            data.loaders(lambda text: [len(text)], 1, torch.device("cpu")),
            strict=True,
        )
    )
    batches = loaders[split].once()
    count = 0
    for sample, batch in zip(samples, batches, strict=True):
        np.testing.assert_array_equal(sample.targets, batch.actions[0].numpy())
        np.testing.assert_array_equal(sample.action_mask, batch.action_mask[0].numpy())
        np.testing.assert_array_equal(sample.normalized_proprio, batch.proprio[0].numpy())
        for name, images in sample.images.items():
            np.testing.assert_array_equal(images, batch.images[name][0].movedim(1, -1).numpy())
        assert batch.instructions[0] == sample.instruction
        count += 1
    assert count == len(samples) > 0


def test_action_chunks_of_samples_are_theirs_without_images(
    load: Callable[..., Recipe],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = core.training_samples(load())
    indices = [5, 0, len(samples) - 1]
    expected = [samples[i] for i in indices]
    monkeypatch.setattr(Mixture, "fill_images", None)
    targets, mask = samples.action_chunks(indices)
    np.testing.assert_array_equal(targets, np.stack([sample.targets for sample in expected]))
    np.testing.assert_array_equal(mask, np.stack([sample.action_mask for sample in expected]))


def test_a_policy_acts_as_it_is_evaluated(trained: Path) -> None:  # noqa: F811
    recipe = core.load_recipe(trained / "recipe.toml")
    store = core.open_store(recipe.data.path)  # type: ignore[arg-type]
    instruction = store.instruction(0)
    policy, actor = core.load_policy(trained), load_actor(trained)
    state = actor.reset(actor.start(1), {0: 5})
    policy.reset(seed=5)
    for frame in range(3):
        observation = observation_of(store, 0, frame)
        expected, state = actor.step([observation], [instruction], state)
        actions = policy.act(observation, instruction)
        np.testing.assert_array_equal(actions, expected[0])
        assert actions.shape == (policy.horizon, len(policy.info.action.names))


def test_a_policy_s_state_can_be_kept_outside(trained: Path) -> None:  # noqa: F811
    recipe = core.load_recipe(trained / "recipe.toml")
    store = core.open_store(recipe.data.path)  # type: ignore[arg-type]
    observations = [observation_of(store, 0, frame) for frame in range(3)]
    policy = core.load_policy(trained)
    inside = [policy.act(observation, "go") for observation in observations]
    state, outside = policy.initial_state(), []
    for observation in observations:
        actions, state = policy.step(observation, "go", state)
        outside.append(actions)
    np.testing.assert_array_equal(inside, outside)
    policy.reset()
    np.testing.assert_array_equal(policy.act(observations[0], "go"), inside[0])


def test_a_policy_that_reads_past_actions_must_be_told_them(trained: Path) -> None:  # noqa: F811
    recipe = core.load_recipe(trained / "recipe.toml")
    observation = observation_of(core.open_store(recipe.data.path), 0, 0)  # type: ignore[arg-type]
    actor = load_actor(trained)
    actor.policy.action_tokens.reads_past = True
    policy = LoadedPolicy(actor)
    executed = policy.act(observation, "go")[0]
    with pytest.raises(core.DataError, match="past_action is None, and the policy reads what"):
        policy.act(observation, "go")
    policy.act(replace(observation, past_action=executed), "go")
    policy.reset()
    policy.act(observation, "go")


def test_an_observation_that_does_not_fit_is_one_clear_line(trained: Path) -> None:  # noqa: F811
    policy = core.load_policy(trained)
    ((name, camera),) = policy.info.cameras.items()
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    proprio = np.zeros(len(policy.info.proprio), np.float32)
    for observation, message in (
        (Observation({}, proprio), f"no camera '{name}'"),
        (Observation({name: image[1:]}, proprio), "the policy was trained on uint8"),
        (Observation({name: image.astype(np.float32)}, proprio), "shows float32"),
        (Observation({name: image}, proprio[1:]), "proprio has shape"),
        (Observation({name: image}, proprio + np.nan), "proprio is not finite"),
    ):
        with pytest.raises(core.DataError, match=message) as caught:
            policy.act(observation, "go")
        assert "\n" not in str(caught.value)


def test_training_and_evaluating_from_python(pristine_run: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = core.load_recipe(pristine_run / "toy.toml", ["train.steps=2"])
    run = core.train(recipe, tmp_path / "run")
    evaluation = core.evaluate(run, ["evaluate.episodes=1", "evaluate.num_envs=2"])
    assert {rate.episodes for rate in evaluation.by_task().values()} == {1}
    with pytest.raises(core.CheckpointError, match="resume"):
        core.train(recipe, run)
    with pytest.raises(core.ConfigError, match=r"only evaluate\.\* and environment\.\*"):
        core.evaluate(run, ["train.steps=7"])


def test_arguments_that_do_not_apply_are_refused(
    trained: Path,  # noqa: F811
    store: EpisodeStore,
) -> None:
    recipe = core.load_recipe(trained / "recipe.toml")
    with pytest.raises(core.ConfigError, match="split: expected 'training' or 'validation'"):
        core.training_samples(recipe, split="train")  # type: ignore[arg-type]
    with pytest.raises(core.ConfigError, match="a store alone has no held-out episodes"):
        core.training_samples(store, split="validation")
    with pytest.raises(core.ConfigError, match="window, horizon: a recipe sets them"):
        core.training_samples(recipe, window=4)
    with pytest.raises(core.CheckpointError, match="has none of step 'worst'; choose 'last'"):
        core.load_policy(trained, "worst")  # type: ignore[arg-type]
    with pytest.raises(core.ConfigError, match="overrides: expected a list"):
        core.load_recipe(trained / "recipe.toml", "train.steps=3")
    assert core.training_samples(store)[0] != core.training_samples(store)[0]


def test_a_mistaken_recipe_says_all_at_once(pristine_run: Path) -> None:  # noqa: F811
    with pytest.raises(core.ConfigError) as caught:
        core.load_recipe(pristine_run / "toy.toml", ["train.stepz=1", "backbone.depth=0"])
    assert len(str(caught.value).splitlines()) == 2
