"""Contract tests of environments: sound ones pass, each broken one fails its checks."""

import itertools

import numpy as np
import pytest

from core.environments import Environment, Observation, Task
from core.episodes import Feature
from tests.core.testing.failing import assert_fails, failures
from tests.toy_environment import ToyConfig, ToyEnvironment, toy_info


class Toy(ToyEnvironment):
    """The toy with one camera; `build` is called with a config of None here."""

    def __init__(self, config):
        super().__init__(ToyConfig())


class ToyWithoutExpertOrChains(Toy):
    """It also has a feature."""

    expert = Environment.expert
    begin_chain = Environment.begin_chain

    def __init__(self, config):
        super().__init__(config)
        feature = Feature((2,), "float32", "force", "N")
        self.info = toy_info().__class__(**{**vars(self.info), "features": {"force": feature}})

    def observe(self):
        seen = super().observe()
        return Observation(seen.images, seen.proprio, {"force": np.zeros(2, np.float32)})


class NoEnvironment:
    def __init__(self, config):
        pass


class ToyWithoutVersions(Toy):
    def __init__(self, config):
        super().__init__(config)
        del self.versions


class ToyMisnamesATask(Toy):
    def __init__(self, config):
        super().__init__(config)
        self.tasks["reach_red"] = Task("red", ("reach",), 40)


class ToyForgetsTheComma(Toy):
    def __init__(self, config):
        super().__init__(config)
        self.tasks["reach_red"] = Task("reach_red", ("reach the red disc"), 40)


class ToyDrawsItsTasks(Toy):
    counter = itertools.count()

    def __init__(self, config):
        super().__init__(config)
        words = (f"reach the disc number {next(self.counter)}",)
        self.tasks["reach_red"] = Task("reach_red", words, 40)


class ToyMisnamesACamera(Toy):
    def observe(self):
        seen = super().observe()
        return Observation({"top": seen.images["front"]}, seen.proprio)


class ToyInFloats(Toy):
    def observe(self):
        seen = super().observe()
        return Observation({"front": seen.images["front"] / 255}, seen.proprio)


class ToyKeepsItsImage(Toy):
    """Draws every image into one array."""

    def __init__(self, config):
        super().__init__(config)
        self.image = np.zeros((16, 16, 3), np.uint8)

    def observe(self):
        seen = super().observe()
        self.image[:] = seen.images["front"]
        return Observation({"front": self.image}, seen.proprio)


class ToyMovesWhenObserved(Toy):
    def observe(self):
        self._point = self._point * 0.99
        return super().observe()


class ToyRemembers(Toy):
    """Every episode begins where the last one ended."""

    def __init__(self, config):
        super().__init__(config)
        self.begun = False

    def reset(self, task, seed):
        point = self._point
        super().reset(task, seed)
        if self.begun:
            self._point = point
        self.begun = True


class ToyDrawsGlobally(Toy):
    def reset(self, task, seed):
        super().reset(task, seed)
        self._point = np.random.uniform(-0.8, 0.8, 2)


class ToyIgnoresTheSeed(Toy):
    def reset(self, task, seed):
        super().reset(task, 0)


class ToySaysNothing(Toy):
    def step(self, action):
        super().step(action)


class ToyIsDoneAtOnce(Toy):
    """Its task is done after the first step, whatever the action."""

    def step(self, action):
        super().step(action)
        return True


class ToyBeginsDone(Toy):
    """It says itself that the task of some seeds is done before the first step."""

    def is_done(self):
        return self._seed == 2


class ToySaysMoreThanAnnounced(Toy):
    def observe(self):
        seen = super().observe()
        return Observation({**seen.images, "top": seen.images["front"]}, seen.proprio)


class ToyExpertOfFourNumbers(Toy):
    def expert(self):
        return np.append(super().expert(), 0)


class ToyExpertOfNaN(Toy):
    def expert(self):
        return super().expert() * np.nan


class ToyExpertOutOfRange(Toy):
    def expert(self):
        return super().expert() * [10, 10, 1]


class ToyExpertCounts(Toy):
    """The expert's action depends on how often it was asked."""

    asked = 0

    def expert(self):
        self.asked += 1
        return super().expert() * [0.9 ** (self.asked % 5), 1, 1]


class ToyExpertFails(Toy):
    def expert(self):
        return np.array([0, 0, 1], np.float32)


class ToyChainsOfUnknownTasks(Toy):
    def begin_chain(self, seed):
        super().begin_chain(seed)
        return ["reach_green"]


class ToyChainsAsItLikes(Toy):
    counter = 0

    def begin_chain(self, seed):
        type(self).counter += 1
        return super().begin_chain(seed + self.counter)


class ToyCannotClose(Toy):
    def close(self):
        raise AttributeError("no renderer")


class ToyClosesAfterAnEpisode(Toy):
    begun = False

    def reset(self, task, seed):
        self.begun = True
        super().reset(task, seed)

    def close(self):
        if not self.begun:
            raise AttributeError("no renderer")


BROKEN = [
    (ToyMisnamesATask, {"tasks_are_stable"}),
    (ToyForgetsTheComma, {"tasks_are_stable"}),
    (ToyDrawsItsTasks, {"tasks_are_stable"}),
    (ToyMisnamesACamera, {"observations_are_what_info_says"}),
    (ToyInFloats, {"observations_are_what_info_says"}),
    (ToyKeepsItsImage, {"observations_do_not_change_later"}),
    (ToyMovesWhenObserved, {"observing_changes_nothing"}),
    (ToyRemembers, {"a_used_environment_equals_a_new_one"}),
    (ToyDrawsGlobally, {"a_used_environment_equals_a_new_one"}),
    (ToyIgnoresTheSeed, {"seeds_decide"}),
    (ToySaysNothing, {"step_says_whether_the_task_is_done"}),
    (ToyIsDoneAtOnce, {"no_task_is_done_before_it_begins"}),
    (ToyBeginsDone, {"no_task_is_done_before_it_begins"}),
    (ToySaysMoreThanAnnounced, {"observations_are_what_info_says"}),
    (ToyExpertOutOfRange, {"expert_obeys_the_action_convention"}),
    (ToyExpertCounts, {"expert_changes_nothing"}),
    (ToyExpertFails, {"expert_succeeds"}),
    (ToyChainsOfUnknownTasks, {"chains_are_of_known_tasks"}),
    (ToyChainsAsItLikes, {"chains_are_of_known_tasks"}),
    (ToyClosesAfterAnEpisode, {"closes"}),
]
# What these do is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {
    ToySaysMoreThanAnnounced,
    ToyMisnamesACamera,
    ToyInFloats,
    ToyMovesWhenObserved,
    ToyRemembers,
    ToyDrawsGlobally,
    ToySaysNothing,
    ToyExpertOutOfRange,
    ToyExpertCounts,
    ToyClosesAfterAnEpisode,
}


def test_a_sound_environment_passes_every_check():
    assert not failures("environment", Toy, slow=True)


def test_an_environment_without_expert_or_chains_passes_the_other_checks():
    assert not failures("environment", ToyWithoutExpertOrChains)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (NoEnvironment, "build: expected an Environment, received a NoEnvironment"),
        (ToyWithoutVersions, "self.versions: expected a Mapping, received None"),
        (
            ToyExpertOfFourNumbers,
            "the expert: expected a valid action, received DataError: an action of shape (4,): "
            "expected (3,), x, y, gripper",
        ),
        (ToyCannotClose, "close(): expected no error, received AttributeError: no renderer"),
        (ToyExpertOfNaN, "the expert: expected a valid action, received DataError: an action that"),
    ],
)
def test_an_environment_that_cannot_play_fails_one_check_that_says_why(build, message):
    errors = failures("environment", build)
    assert list(errors) == ["builds_and_plays"]
    assert str(errors["builds_and_plays"]).startswith(message)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_environment_fails_the_checks_of_its_rule(build, expected):
    assert_fails("environment", build, expected, others_too=build in FAIL_OTHERS_TOO)


def test_what_an_environment_holds_is_freed_after_each_check():
    open_environments = []

    class Counted(Toy):
        def __init__(self, config):
            super().__init__(config)
            open_environments.append(self)

        def close(self):
            open_environments.remove(self)

    failures("environment", Counted)
    assert not open_environments


def test_an_environment_that_cannot_be_pickled_is_told_why():
    class Local(Toy):
        pass

    errors = failures("environment", Local, slow=True)
    assert list(errors) == ["runs_in_a_process_of_its_own"]
    message = "register a class or a function of a module"
    assert message in str(errors["runs_in_a_process_of_its_own"])
