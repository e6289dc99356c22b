import json
import shutil
import socket
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
import torch

import core
from core import cli
from core.environments.environment import Observation
from core.episodes.episode import Camera, Gripper
from core.errors import CheckpointError, ConfigError, DataError, PolicyError
from core.loading.opening import open_data
from core.recipe.recipe import load_acting_recipe
from core.registry.catalogue import load_plugins
from core.rollout.actor import disagreements, load_actor
from core.weights.checkpoint import checkpoints, choose_checkpoint
from tests.contexts import noise
from tests.toy_environment import ToyConfig, ToyEnvironment, toy_info


def observations(count, steps=1):
    """Return what `count` toys show in their first steps: [step][toy]."""
    toys = [ToyEnvironment(ToyConfig()) for _ in range(count)]
    for seed, toy in enumerate(toys):
        toy.reset("reach_red", seed)
    shown = []
    for _ in range(steps):
        shown.append([toy.observe() for toy in toys])
        for toy in toys:
            toy.step(toy.expert())
    return shown


def test_loading_needs_the_runs_folder_alone(trained, load):
    recipe = load()
    moved = trained.rename(trained.with_name("moved"))
    text = (moved / "recipe.toml").read_text().replace(str(recipe.data.path), "/nowhere/else.zarr")
    (moved / "recipe.toml").write_text(text)
    actor = load_actor(moved)
    chunks, _ = actor.step(
        observations(2)[0], ["touch the red disc", "find the blue spot"], actor.start(2)
    )
    assert chunks.shape == (2, 3, 3)
    assert chunks.dtype == np.float32
    assert set(np.unique(chunks[..., 2])) <= {-1.0, 1.0}  # in the environment's units


def test_acting_step_by_step_is_what_training_computed(trained, load):
    """Frames of a stored episode, one after the other, give what their window gives."""
    data = open_data(load())
    (dataset,) = data.datasets
    actor, store = load_actor(trained), dataset.view.store
    _, validation = data.loaders(actor.policy.text_encoder.tokenize, 1, torch.device("cpu"))
    batch = next(validation.once())
    episode = next(e for e in range(len(store)) if store.episode_id(e) == batch.episodes[0])
    window = load().data.window
    with torch.inference_mode():
        expected = dataset.action_normalizer.unnormalize(
            actor.policy.predict(batch, noise()).numpy()
        )[0]
    frames = {name: np.empty((window, 16, 16, 3), np.uint8) for name in actor.info.cameras}
    for name, out in frames.items():
        store.read_frames(name, episode, 0, window, out)
    state = actor.start(1)
    for t in range(window):
        observation = Observation(
            {name: out[t] for name, out in frames.items()}, store.proprio(episode, t, t + 1)[0]
        )
        chunks, state = actor.step([observation], [store.instruction(episode)], state)
        np.testing.assert_allclose(chunks[0], expected[t], atol=1e-5)


def test_a_rows_actions_do_not_depend_on_its_neighbours(trained):
    actor, shown = load_actor(trained), observations(3, steps=2)
    instructions = ["touch the red disc", "find the blue spot please, and do take your time", "red"]
    together, state = [], actor.start(3)
    for step in shown:
        chunks, state = actor.step(step, instructions, state)
        together.append(chunks)
    for row in range(3):
        state = actor.start(1)
        for t, step in enumerate(shown):
            alone, state = actor.step([step[row]], [instructions[row]], state)
            np.testing.assert_allclose(alone[0], together[t][row], atol=1e-5)


def test_a_row_forgets_when_it_is_reset_and_the_others_remember(trained):
    actor, (first, second) = load_actor(trained), observations(2, steps=2)
    without_memory, _ = actor.step(second, ["red", "red"], actor.start(2))
    _, state = actor.step(first, ["red", "red"], actor.start(2))
    with_memory, _ = actor.step(second, ["red", "red"], state)
    mixed, _ = actor.step(second, ["red", "red"], actor.reset(state, {0: 5}))
    np.testing.assert_array_equal(mixed[0], without_memory[0])
    np.testing.assert_array_equal(mixed[1], with_memory[1])
    assert not np.array_equal(with_memory[0], without_memory[0])
    assert not actor.policy.training


def test_a_row_that_forgets_acts_as_at_the_start_and_its_draws_go_on(trained):
    actor, (first, second) = load_actor(trained), observations(2, steps=2)
    without_memory, _ = actor.step(second, ["red", "red"], actor.start(2))
    _, state = actor.step(first, ["red", "red"], actor.reset(actor.start(2), {0: 7, 1: 8}))
    with_memory, _ = actor.step(second, ["red", "red"], state)
    forgetful = actor.forget(state, [0])
    mixed, _ = actor.step(second, ["red", "red"], forgetful)
    np.testing.assert_array_equal(mixed[0], without_memory[0])
    np.testing.assert_array_equal(mixed[1], with_memory[1])
    assert forgetful.keys == state.keys == [(7, 1), (8, 1)]


@pytest.mark.parametrize("dimension", [0, 2], ids=["position", "gripper"])
def test_no_action_that_is_not_finite_is_given_out(trained, dimension):
    actor, (first, second) = load_actor(trained), observations(2, steps=2)
    act = actor.policy.policy_head.act

    def broken(context, state, generator):
        actions, state = act(context, state, generator)
        actions[1, 0, dimension] = float("nan")
        return actions, state

    _, state = actor.step(first, ["red", "blue"], actor.start(2))
    actor.policy.policy_head.act = broken
    message = (
        r"^policy_head 'lstm' of plugin 'plugins\.heads\.lstm' \(joinery \S+\): act returned "
        r"NaN or infinity, in 1 of 9 numbers for 'blue'; no action is given out; .*step_00000004"
    )
    with pytest.raises(PolicyError, match=message) as caught:
        actor.step(second, ["red", "blue"], state)
    assert "\n" not in str(caught.value)


def test_a_picture_of_another_dtype_is_refused(trained):
    actor, ((first,),) = load_actor(trained), observations(1)
    pictures = {name: image / np.float32(255) for name, image in first.images.items()}
    with pytest.raises(DataError, match=r"shows float32 .*multiply it by 255"):
        actor.step([replace(first, images=pictures)], ["red"], actor.start(1))


def test_a_state_of_other_rows_is_refused(trained):
    actor, (shown,) = load_actor(trained), observations(2)
    for state, rows in ((actor.start(3), 3), (None, 0)):
        with pytest.raises(DataError, match=rf"a state of {rows} rows; begin with start\(2\)"):
            actor.step(shown, ["red", "blue"], state)
    actor.step(shown, ["red", "blue"], actor.start(2))


def test_an_instruction_is_encoded_once(trained):
    actor, steps = load_actor(trained), observations(3, steps=3)
    calls, encoder = [], actor.policy.text_encoder
    encoder.register_forward_hook(lambda *_: calls.append(1))
    state = actor.start(3)
    for step in steps:
        _, state = actor.step(step, ["red", "find the blue spot", "red"], state)
    assert len(calls) == 2


def test_every_difference_of_conventions_is_a_line(trained):
    actor, info = load_actor(trained), toy_info(2)
    actor.check(info)  # one camera more than the policy has does not matter
    action = replace(
        info.action,
        mode="absolute",
        frame="base",
        rotation="euler_xyz",
        scale=(0.1, 0.2, 1.0),
        rate=20.0,
        grippers=(Gripper(2, "binary", closed=1.0, open=-1.0),),
        names=("x", "y", "grip"),
    )
    other = replace(
        info, fps=20.0, action=action, cameras={"front": Camera(8, 16)}, proprio=("y", "x")
    )
    with pytest.raises(ConfigError) as caught:
        actor.check(other)
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "fps",
        *(
            f"action.{key}"
            for key in ("names", "mode", "frame", "rotation", "scale", "rate", "grippers")
        ),
        "proprio",
        "camera 'front'",
        "if the environment has 'gripper' under another name, say so",
    ]
    assert "action.mode: the policy has delta, the environment absolute" in caught.value.mistakes
    with pytest.raises(
        ConfigError, match=r"^camera 'front': the policy needs it.*did you mean 'font'"
    ):
        actor.check(replace(info, cameras={"font": Camera(16, 16)}))


def test_units_are_compared_where_both_are_known(trained):
    actor, info = load_actor(trained), toy_info()
    known = replace(
        info, action=replace(info.action, units=("m", "m", "1")), proprio_units=("m", "m")
    )
    actor.check(known)  # the policy's data do not say
    other = replace(known, proprio_units=("m", "mm"))
    assert disagreements(known, known, "the policy") == []
    assert disagreements(known, other, "the policy") == [
        "unit of proprio 'y': the policy has m, the environment mm"
    ]


def test_a_checkpoint_is_chosen_by_name_or_by_step(trained):
    steps = [checkpoint.step for checkpoint in checkpoints(trained)]
    assert len(steps) > 1
    assert [load_actor(trained, step).checkpoint.step for step in steps] == steps
    assert load_actor(trained).checkpoint.step == choose_checkpoint(trained, "last").step


def test_acting_needs_no_plugin_of_the_optimiser(trained):
    recipe = trained / "recipe.toml"
    text = recipe.read_text(encoding="utf-8")
    assert 'name = "adamw"' in text
    recipe.write_text(text.replace('name = "adamw"', 'name = "elsewhere"'), encoding="utf-8")
    assert load_actor(trained).horizon > 0


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; name the folder of a run"):
        load_actor(tmp_path)


def test_a_checkpoint_that_does_not_say_how_to_act_is_refused(trained):
    path = checkpoints(trained)[-1].folder / "state.json"
    state = json.loads(path.read_text())
    without_fps = {key: value for key, value in state.items() if key != "fps"}
    for damaged in (without_fps, state | {"cameras": ["front"]}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(CheckpointError, match="does not say how to act"):
            load_actor(trained)


def test_weights_that_do_not_fit_are_refused(trained):
    text = (trained / "recipe.toml").read_text()
    (trained / "recipe.toml").write_text(text.replace("hidden_size = 16", "hidden_size = 8"))
    with pytest.raises(CheckpointError, match="the weights do not fit"):
        load_actor(trained)


@pytest.fixture
def far_from_home(trained, monkeypatch):
    """A run whose environment, data, optimiser and loggers are elsewhere, without a network."""
    path = trained / "recipe.toml"
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    values["data"]["path"] = "https://stranger.example/toy.zarr"
    values["optimizer"] = {"name": "elsewhere"}
    values["train"] |= {"loggers": [{"name": "elsewhere"}], "callbacks": [{"name": "elsewhere"}]}
    values["environment"] = {"name": "elsewhere", "file": "https://stranger.example/scene.xml"}
    values["demonstrations"] = {"episodes": 2}
    values["evaluate"] = {"replan_steps": 99, "unknown": 1}
    path.write_text(tomli_w.dumps(values), encoding="utf-8")

    def refuse(*address):
        raise AssertionError(f"a request to {address}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("core.store.objects.Objects.__init__", refuse)
    return trained


def test_acting_needs_the_policy_alone(far_from_home):
    policy = core.load_policy(far_from_home)
    ((observation,),) = observations(1)
    assert policy.act(observation, "touch the red disc").shape == (3, 3)


def test_a_part_that_is_not_installed_is_a_line_with_its_package(far_from_home):
    path = far_from_home / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('name = "lstm"', 'name = "strange"'), encoding="utf-8")
    packages = json.loads((far_from_home / "packages.json").read_text(encoding="utf-8"))
    packages["policy_head"] = {"name": "strange", "package": "joinery-strange", "version": "1.2"}
    (far_from_home / "packages.json").write_text(json.dumps(packages), encoding="utf-8")
    message = (
        r"policy_head\.name: no policy_head is called 'strange'.*; this run used 'strange' of "
        r"joinery-strange 1\.2: pip install joinery-strange==1\.2$"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        load_actor(far_from_home)
    assert "\n" not in str(caught.value)


def test_a_run_is_reported_and_compared_far_from_home(far_from_home, tmp_path):
    other = shutil.copytree(far_from_home, tmp_path / "other")
    assert cli.main(["report", str(far_from_home)]) == 0
    page = tmp_path / "compare.html"
    assert cli.main(["compare", str(far_from_home), str(other), "--output", str(page)]) == 0
    assert page.exists()
    assert load_acting_recipe(far_from_home, load_plugins()).environment is None
