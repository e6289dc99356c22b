"""Errors that say what is wrong, and hints at the nearest known word."""

import pytest

from core.errors import ConfigError, DataError, did_you_mean


def test_all_mistakes_are_lines_of_one_error():
    error = ConfigError(["first", "second"])
    assert error.mistakes == ["first", "second"]
    assert str(error) == "first\nsecond"
    assert ConfigError("alone").mistakes == ["alone"]


def test_a_mistake_of_the_configuration_has_an_exit_code_of_its_own():
    assert ConfigError("x").exit_code == 2
    assert DataError("x").exit_code == 1


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("wirst", ["static", "wrist"], "; did you mean 'wrist'?"),
        ("depth", ["wrist", "static"], "; known: static, wrist"),
        ("depth", [], "; known: none"),
        ("zzz", [f"name {i}" for i in range(31)], ""),
    ],
)
def test_a_hint_is_the_nearest_word_or_the_list_if_it_is_short(word, known, hint):
    assert did_you_mean(word, known) == hint
