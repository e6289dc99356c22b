from dataclasses import replace

from core.episodes.units import different_units, known_units, units_by_name, units_in_order
from tests.factories import make_info


def test_units_are_found_by_name_and_come_back_in_order() -> None:
    units = units_by_name(("x", "y", "grip"), ("m", "", "1"))
    assert units == {"x": "m", "grip": "1"}
    assert units_in_order(("grip", "y", "x"), units) == ("1", "", "m")
    assert units_in_order(("y",), units) == ()
    assert units_by_name(("x", "y"), ()) == {}


def test_actions_and_proprioception_are_told_apart() -> None:
    info = replace(make_info(), proprio=("x",), proprio_units=("mm",))
    info = replace(info, action=replace(info.action, units=("m", "m", "", "1")))
    assert known_units(info) == {
        "action 'x'": "m",
        "action 'y'": "m",
        "action 'gripper'": "1",
        "proprio 'x'": "mm",
    }
    assert known_units(make_info()) == {}


def test_a_unit_that_is_not_known_fits_every_unit() -> None:
    assert different_units({"x": "m", "y": "rad", "z": "m"}, {"x": "mm", "y": "rad"}) == ["x"]
    assert different_units({}, {"x": "mm"}) == []
