from dataclasses import fields, replace

import pytest
from hypothesis import given, settings, strategies as st

from core.episodes.episode import Feature
from core.episodes.renaming import NewNames, rename_keys
from core.errors import DataError
from tests.factories import make_info

FORCE = Feature((6,), "float32", "force", "N")
INFO = replace(make_info(), features={"force": FORCE})
KEYS = [field.name for field in fields(NewNames)]


def names_of(info, key: str) -> list[str]:
    """Return the names of one kind in a description."""
    return list(info.action.names if key == "actions" else getattr(info, key))


@pytest.mark.parametrize("key", KEYS)
def test_each_kind_of_name_is_changed_alone(key):
    names = names_of(INFO, key)
    renamed = NewNames(**{key: {"new": names[0]}}).rename(INFO)
    assert names_of(renamed, key) == ["new", *names[1:]]
    assert all(names_of(renamed, other) == names_of(INFO, other) for other in KEYS if other != key)


@pytest.mark.parametrize("key", KEYS)
def test_a_name_that_does_not_exist_is_refused(key):
    name = names_of(INFO, key)[0]
    with pytest.raises(DataError, match=rf"^{key}: no [a-z ]+ '{name}s'"):
        NewNames(**{key: {"new": f"{name}s"}}).rename(INFO)


def test_a_name_like_an_existing_one_is_suggested():
    with pytest.raises(DataError, match="no feature 'forse'; did you mean 'force'"):
        NewNames(features={"tool": "forse"}).rename(INFO)


@pytest.mark.parametrize("key", ["cameras", "actions", "proprio"])
def test_names_that_would_be_lost_are_refused(key):
    first, second, *_ = names_of(INFO, key)
    for clash in ({first: second}, {"a": first, "b": first}):
        with pytest.raises(DataError, match="would have the same name, or one would have two"):
            NewNames(**{key: clash}).rename(INFO)


@settings(deadline=None)
@given(st.permutations(make_info().action.names))
def test_names_may_change_places(order):
    names = make_info().action.names
    renamed = NewNames(actions=dict(zip(order, names, strict=True))).rename(INFO)
    assert renamed.action.names == tuple(order)
    assert renamed.action.scale == INFO.action.scale


def test_a_camera_gets_no_features_name():
    with pytest.raises(DataError, match=r"^cameras: feature 'force': that name is taken"):
        NewNames(cameras={"force": next(iter(INFO.cameras))}).rename(INFO)


def test_the_order_of_items_stays():
    assert list(rename_keys({"a": 1, "b": 2, "c": 3}, {"x": "b"}).items()) == [
        ("a", 1),
        ("x", 2),
        ("c", 3),
    ]
