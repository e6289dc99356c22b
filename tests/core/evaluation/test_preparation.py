from dataclasses import replace

import pytest
from rich.console import Console

from core.environments.workers import Description
from core.errors import ConfigError, DataError
from core.evaluation.preparation import (
    check_only,
    describe_environment,
    environment_spec,
    prepare,
)
from core.recipe.contents import Choice
from core.store.store import EpisodeStore
from tests.factories import make_store
from tests.toy_command import TOY
from tests.toy_environment import ToyConfig, ToyEnvironment, toy_info, toy_tasks

QUIET = Console(quiet=True)


class Chainless(ToyEnvironment):
    """A toy without chains."""

    def begin_chain(self, seed):
        return super(ToyEnvironment, self).begin_chain(seed)


def test_missing_demonstrations_are_recorded_once(load, tmp_path, capsys):
    recipe = load(f"data.path={tmp_path / 'new.zarr'}", "demonstrations.episodes=2")
    prepare(recipe, Console())
    assert len(EpisodeStore(tmp_path / "new.zarr")) == 4
    assert "4 episodes recorded" in " ".join(capsys.readouterr().out.split())
    prepare(recipe, Console())
    assert capsys.readouterr().out == ""


def test_a_dry_run_says_which_demonstrations_are_missing_and_records_none(load, tmp_path, capsys):
    path = tmp_path / "new.zarr"
    recipe = load(f"data.path={path}", "demonstrations.episodes=2")
    assert not check_only(recipe, Console())
    assert not path.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{path}: demonstrations would be recorded: 2 of reach_red, 2 of reach_blue"
    )
    assert lines[1].startswith("without them there are no data")
    prepare(recipe, QUIET)
    assert check_only(recipe, Console())
    assert capsys.readouterr().out == ""
    more = replace(recipe, demonstrations=replace(recipe.demonstrations, episodes=3))
    assert check_only(more, Console())
    assert "1 of reach_red, 1 of reach_blue\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is a URL, where no"):
        check_only(load("data.path=s3://bucket/new.zarr"), QUIET)


def test_demonstrations_are_not_recorded_into_a_url(load):
    with pytest.raises(
        ConfigError, match=r"data.path: s3://bucket/new.zarr is a URL, where no \[demonstrations\]"
    ):
        prepare(load("data.path=s3://bucket/new.zarr"), QUIET)


def test_more_demonstrations_than_the_recipe_asks_for_are_reported(load, tmp_path, capsys):
    recipe = load(f"data.path={tmp_path / 'new.zarr'}", "demonstrations.episodes=2")
    prepare(recipe, QUIET)
    prepare(
        replace(recipe, demonstrations=replace(recipe.demonstrations, tasks=("reach_red",))),
        Console(width=200),
    )
    assert capsys.readouterr().out.endswith(
        "2 episodes more than [demonstrations] asks for; they are trained on, too\n"
    )


def test_a_recipe_without_environment_needs_no_preparation(load):
    prepare(replace(load(), demonstrations=None, evaluate=None, environment=None), QUIET)


def test_unknown_tasks_are_an_error_before_anything_is_recorded(load, tmp_path):
    recipe = load(
        f"data.path={tmp_path / 'new.zarr'}",
        "demonstrations.tasks=['reach_rd']",
        "evaluate.tasks=['fly']",
    )
    with pytest.raises(ConfigError) as caught:
        prepare(recipe, QUIET)
    assert len(caught.value.mistakes) == 2
    assert not (tmp_path / "new.zarr").exists()


def test_an_environment_without_chains_is_an_error(load):
    recipe = load("evaluate.chains=5")
    chainless = replace(recipe, environment=Choice(replace(TOY, build=Chainless), ToyConfig()))
    with pytest.raises(ConfigError, match=r"^evaluate.chains: Chainless has no chains of tasks"):
        describe_environment(chainless)
    assert describe_environment(recipe) == Description(toy_info(), toy_tasks(), {"toy": "1"})


def test_an_environment_that_cannot_be_built_is_one_line(load):
    recipe = load()
    broken = replace(recipe, environment=Choice(replace(TOY, build=int), ToyConfig()))
    with pytest.raises(
        DataError, match=r"^environment 'toy' of plugin .* raised \(TypeError"
    ) as caught:
        prepare(broken, QUIET)
    assert "\n" not in str(caught.value)


def test_a_recipe_must_name_an_environment_to_evaluate_in(load):
    with pytest.raises(ConfigError, match=r"^\[environment\]: the recipe has none"):
        environment_spec(replace(load(), environment=None))


def test_data_of_another_environment_are_refused_before_training(load, tmp_path):
    recipe = replace(
        load(f"data.path={make_store(tmp_path / 'other.zarr').path}"), demonstrations=None
    )
    with pytest.raises(ConfigError) as caught:
        prepare(recipe, QUIET)
    names = "('x', 'y', 'z', 'gripper')"
    line = f"action.names: the data in {tmp_path / 'other.zarr'} has {names}, the environment"
    assert line in str(caught.value)
    assert {mistake.partition(":")[0] for mistake in caught.value.mistakes} >= {
        "proprio",
        "camera 'front'",
    }


def test_cameras_that_the_recipe_does_not_use_may_differ(load, tmp_path):
    recipe = load(
        "environment.cameras=2", f"data.path={tmp_path / 'two.zarr'}", "demonstrations.episodes=2"
    )
    prepare(recipe, QUIET)
    one_camera = replace(recipe, environment=Choice(TOY, ToyConfig(cameras=1)), demonstrations=None)
    with pytest.raises(
        ConfigError, match=r"camera 'wrist': the data in .* needs it, and the environment has none"
    ):
        prepare(one_camera, QUIET)
    front = replace(one_camera.data, cameras=("front",))
    prepare(replace(one_camera, data=front), QUIET)


def test_an_environment_with_other_names_says_how_to_rename_them(load, elsewhere):
    recipe = replace(elsewhere(load()), demonstrations=None)
    with pytest.raises(ConfigError) as caught:
        prepare(recipe, QUIET)
    hint = caught.value.mistakes[-1]
    assert hint == (
        "if the environment has 'front' under another name, say so: "
        'evaluate.cameras = {front = "agentview"}, for example'
    )
    cameras = "evaluate.cameras={front='agentview'}"
    with pytest.raises(ConfigError, match=r"evaluate.proprio = \{x = \"east\"\}, for example$"):
        prepare(replace(elsewhere(load(cameras)), demonstrations=None), QUIET)
    names = "evaluate.proprio={x='east', y='north'}"
    prepare(replace(elsewhere(load(cameras, names)), demonstrations=None), QUIET)
    assert describe_environment(elsewhere(load(cameras, names))).info == toy_info()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.cameras={front='agentveiw'}", "cameras: no camera 'agentveiw'; did you mean 'a"),
        ("evaluate.proprio={x='est'}", "proprio: no proprioceptive number 'est'; did you mean 'ea"),
        ("evaluate.actions={x='z'}", "actions: no action 'z'"),
        ("evaluate.features={depth='d'}", "features: no feature 'd'"),
    ],
)
def test_names_that_the_environment_does_not_have_are_errors(load, elsewhere, override, message):
    with pytest.raises(ConfigError, match=f"^evaluate.{message}"):
        describe_environment(elsewhere(load(override)))


def test_recorded_data_of_other_settings_are_refused(load, tmp_path):
    recipe = load(f"data.path={tmp_path / 'two.zarr'}", "demonstrations.episodes=2")
    prepare(recipe, QUIET)
    with pytest.raises(DataError, match="holds episodes of another origin"):
        prepare(replace(recipe, demonstrations=replace(recipe.demonstrations, noise=0.3)), QUIET)
