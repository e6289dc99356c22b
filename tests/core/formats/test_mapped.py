"""The settings that all formats share, on a dataset in memory."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from core.episodes.correction import ConventionOverride
from core.episodes.episode import ActionConvention
from core.errors import ConfigError, DataError
from core.formats.columns import Column
from core.formats.contracts import Description, Guess, Recording
from core.formats.mapped import MappedSource
from core.formats.mapping import FeatureColumn, SourceMapping

T = TypeVar("T")
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
VALUES: Mapping[str, Any] = {
    "front": IMAGES,
    "depth": IMAGES[..., :1].astype(np.uint16),
    "left": np.arange(12, dtype=np.float32).reshape(4, 3),
    "right": 100 + np.arange(12, dtype=np.float32).reshape(4, 3),
    "state": np.arange(20, dtype=np.float64).reshape(4, 5),
    "words": ["push it"] * 4,
    "letters": np.tile(np.frombuffer(b"pull it\0\0", np.uint8), (4, 1)).astype(np.int32),
    "annotation": np.array([1, 1, 0, 0]),
}
COLUMNS = {
    "front": Column("pictures", (6, 8, 3), "uint8"),
    "depth": Column("depth", (6, 8, 1), "uint16"),
    "left": Column("numbers", (3,), names=("x", "y", "grip")),
    "right": Column("numbers", (3,), names=("x", "y", "grip")),
    "state": Column("numbers", (5,), "float64"),
    "words": Column("text", (), "string"),
    "letters": Column("numbers", (9,), "int32"),
    "annotation": Column("numbers", (1,), "int64", texts={0: "drop it", 1: "turn it "}),
}
CONVENTION = ActionConvention(
    ("x", "y", "grip"), "delta", "tool", "none", (0.1, 0.1, 1.0), rate=5.0
)
DESCRIPTION = Description(
    where="here",
    noun="column",
    columns=COLUMNS,
    cameras={"eye": "front"},
    action=("left",),
    proprio=("state",),
    guess=Guess("absolute", "joint", "nobody knows"),
    origin="made up",
    instruction_column="words",
    fps=5.0,
    convention=CONVENTION,
)


class Memory:
    """Three equal episodes; episode 1 is a failure."""

    def __init__(self, description: Description = DESCRIPTION) -> None:
        self.description = description

    def describe(self, use: Callable[[Description], T]) -> T:
        return use(self.description)

    def ids(self) -> Sequence[str]:
        return ["a", "b", "c"]

    def facts(self, episode: str) -> Mapping[str, Any]:
        return {"success": episode != "b", "quality": "abc".index(episode) / 2, "who": "anna"}

    def members(self, mask: str) -> Collection[str]:
        return {"train": ["a", "b"]}[mask]

    def read(self, episode: str, columns: Collection[str]) -> Recording:
        return Recording(f"here, {episode}", 4, {name: VALUES[name] for name in columns})


def source(description: Description = DESCRIPTION, **settings: Any) -> MappedSource:
    return MappedSource(Memory(description), SourceMapping(**settings))


def test_without_settings_everything_is_as_described() -> None:
    usual = source()
    episode = usual.read("a")
    assert (list(episode.images), episode.instruction, episode.task) == (["eye"], *["push it"] * 2)
    np.testing.assert_array_equal(episode.images["eye"], IMAGES)
    np.testing.assert_array_equal(episode.actions, VALUES["left"])
    np.testing.assert_array_equal(episode.proprio, VALUES["state"])
    assert (usual.info.action, usual.info.assumed) == (CONVENTION, {})
    assert usual.info.proprio == tuple(f"state_{i}" for i in range(5))
    assert usual.notes == ("left out: depth, depth or another single channel of 6 x 8 x 1",)


def test_units_are_those_of_the_dataset_and_of_the_user() -> None:
    known = replace(DESCRIPTION, proprio_units=("m", "m", "", "", "rad"))
    assert source().info.proprio_units == ()
    assert source(known).info.proprio_units == ("m", "m", "", "", "rad")
    settings = {"proprio_names": {"z": "state_2"}, "proprio_units": {"z": "m"}}
    assert source(known, **settings).info.proprio_units == ("m", "m", "m", "", "rad")
    # columns that the user chose are not those that the dataset describes
    assert source(known, proprio="state[4]").info.proprio_units == ()
    with pytest.raises(ConfigError, match="proprio_units: no number is called 'stat_2'; did you"):
        source(proprio_units={"stat_2": "m"})


def test_numbers_of_several_columns_are_joined() -> None:
    action = ("left", "right[0:2]")
    joined = source(action=action, proprio="state[4]", proprio_names={"z": "state_4"})
    episode = joined.read("a")
    np.testing.assert_array_equal(
        episode.actions, np.hstack([VALUES["left"], VALUES["right"][:, :2]])
    )
    np.testing.assert_array_equal(episode.proprio, VALUES["state"][:, 4:])
    assert joined.info.action.names == ("left_x", "left_y", "grip", "right_x", "right_y")
    assert joined.info.proprio == ("z",)


def test_a_convention_holds_for_the_columns_that_it_describes_alone() -> None:
    other = source(action="right").info
    assert (other.action.mode, other.action.frame) == ("absolute", "joint")
    assert other.assumed == dict.fromkeys(
        ("mode", "frame", "rotation", "scale", "grippers"), "nobody knows"
    )
    told = source(action="right", meaning=ConventionOverride(mode="delta", scale=(1, 1, 1))).info
    assert told.action.mode == "delta"
    assert set(told.assumed) == {"frame", "rotation", "grippers"}
    renamed = source(action="right", action_names={"grip_right": "grip"}).info
    assert renamed.action.names == ("x", "y", "grip_right")


def test_features_are_kept_as_they_are() -> None:
    with_depth = source(features={"range": FeatureColumn("depth", "depth", "mm")})
    episode = with_depth.read("a")
    assert episode.features["range"].dtype == np.uint16
    np.testing.assert_array_equal(episode.features["range"], VALUES["depth"])
    assert str(with_depth.info.features["range"]) == "uint16 (6, 8, 1), depth in mm"
    assert with_depth.notes == ()


@pytest.mark.parametrize(
    ("settings", "instruction"),
    [
        ({"instruction": "fold it"}, "fold it"),
        ({"instruction_column": "letters"}, "pull it"),
        ({"instruction_column": "words"}, "push it"),
        ({"instruction_column": "annotation"}, "turn it"),
    ],
)
def test_where_the_words_come_from(settings: dict[str, Any], instruction: str) -> None:
    assert source(**settings).read("a").instruction == instruction


def test_instructions_are_grouped_to_tasks() -> None:
    grouped = source(tasks={"moving": ("push it", "shove it")})
    episode = grouped.read("a")
    assert (episode.task, episode.instruction) == ("moving", "push it")
    assert source(tasks={"moving": ("shove it",)}).read("a").task == "push it"


def test_an_instruction_of_a_task_that_no_episode_has() -> None:
    grouped = source(tasks={"moving": ("push it", "pull it")})
    assert list(grouped.doubts({"push it", "pull it"})) == []
    (line,) = grouped.doubts({"push it"})
    assert line.startswith("tasks.moving: no episode is told 'pull it'")


def test_the_control_rate_follows_a_rate_that_is_corrected() -> None:
    told = source(fps=8.0).info
    assert (told.fps, told.action.rate) == (8.0, 8.0)
    slow_control = replace(DESCRIPTION, convention=replace(CONVENTION, rate=1.0))
    assert source(slow_control, fps=8.0).info.action.rate == 1.0
    kept = source(fps=8.0, meaning=ConventionOverride(rate=4.0)).info
    assert kept.action.rate == 4.0


def test_a_dataset_without_the_usual_action_names_the_setting() -> None:
    other = replace(DESCRIPTION, action=("action",))
    with pytest.raises(ConfigError, match=r"no column 'action'; say action = \.\.\.; did you"):
        source(other)
    assert source(other, action="left").info.action.dim == 3


@pytest.mark.parametrize(
    ("settings", "episodes"),
    [
        ({"episodes": (0, "2")}, "ac"),
        ({"episodes": ("1:",)}, "bc"),
        ({"episodes": ("c", ":1")}, "ac"),
        ({"mask": "train"}, "ab"),
        ({"where": ("success == true",)}, "ac"),
        ({"where": ("success != False",)}, "ac"),
        ({"where": ("quality >= 0.5", "who != bert")}, "bc"),
        ({"mask": "train", "where": ("success == false",)}, "b"),
    ],
)
def test_episodes_are_chosen(settings: dict[str, Any], episodes: str) -> None:
    assert source(**settings).ids() == [*episodes]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "lift"}, "here: there is no column 'lift'; did you mean 'left'"),
        ({"action": "left[3]"}, "'left' holds the numbers 0 to 2"),
        ({"cameras": {"eye": "depth"}}, "column 'depth' holds depth, not pictures"),
        ({"proprio": ("words",)}, "column 'words' holds text, not numbers"),
        ({"action": ()}, "action: names no column"),
        ({"action_names": {"a": "b"}}, "action_names: no number is called 'b'"),
        ({"action_names": {"x": "y"}}, "two of x, x, grip would have one name"),
        ({"instruction": "words"}, 'say instruction_column = "words"'),
        ({"instruction_column": "word"}, "there is no column 'word'; did you mean 'words'"),
        ({"episodes": ("d",)}, "episodes: 'd' is no id and no number below 3"),
        ({"where": ("success",)}, "where: 'success' is no condition"),
        ({"where": ("sucess == true",)}, "has nothing called 'sucess'; did you mean 'success'"),
        ({"where": ("who > 3",)}, "'who' is 'anna' in episode 'a', which cannot be"),
        ({"where": ("quality > 9",)}, "leave none of the 3 episodes"),
        ({"where": ("success == yes",)}, "'success' is True in episode 'a'"),
        ({"tasks": {"a": ("x",), "b": ("x",)}}, "tasks: 'x' belongs to a and to b"),
        ({"action_names": {"a": "x", "b": "x"}}, "gives one number two names"),
        ({"instruction_column": "state"}, "column 'state' holds numbers, not text"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        source(**settings)


def test_what_a_dataset_does_not_say_must_be_said() -> None:
    mute = replace(DESCRIPTION, instruction_column=None, has_instruction=False)
    with pytest.raises(ConfigError, match=r"here: does not say what the robot is told; say instr"):
        source(mute)
    assert source(mute, instruction="go").read("a").instruction == "go"
    timeless = replace(DESCRIPTION, fps=None)
    with pytest.raises(ConfigError, match=r"here: does not say the frame rate; say fps = "):
        source(timeless)
    assert source(timeless, fps=8.0).info.fps == 8.0
    blind = replace(DESCRIPTION, cameras={})
    with pytest.raises(DataError, match="here: holds no pictures"):
        source(blind)


def test_what_is_told_is_no_longer_assumed() -> None:
    guessed = replace(DESCRIPTION, assumed={"fps": "nobody knows"})
    assert source(guessed).info.assumed == {"fps": "nobody knows"}
    assert source(guessed, fps=7.0).info.assumed == {}
