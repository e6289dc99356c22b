"""Shows: what the lamp does at each moment, and until when the gripper waits."""

from plugins.environments.tabletop.shows import Past, Show

SHOW = Show("red", go=3, lamp=("red", "bright", "bright", "dark"))


def test_the_last_colour_stays() -> None:
    assert [SHOW.colour(moment) for moment in (0, 1, 3, 9)] == ["red", "bright", "dark", "dark"]


def test_without_a_show_the_button_switches_the_lamp() -> None:
    assert Show().colour(0) is None
    assert not Past().is_waiting


def test_the_gripper_waits_until_the_show_lets_it_go() -> None:
    assert [Past(SHOW, moment).is_waiting for moment in (0, 2, 3)] == [True, True, False]
