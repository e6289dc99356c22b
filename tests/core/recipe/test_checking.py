from core.recipe.checking import parse_settings


def test_settings_of_the_command_line_are_read_as_toml():
    mistakes: list[str] = []
    assert parse_settings(["size=3", "mode = fast", "names=['a=b']", "text="], mistakes) == {
        "size": 3,
        "mode": "fast",
        "names": ["a=b"],
        "text": "",
    }
    assert mistakes == []


def test_a_pair_that_is_none_is_one_line_and_sets_nothing():
    mistakes: list[str] = []
    assert parse_settings(["size", "=3", "mode=fast"], mistakes) == {"mode": "fast"}
    assert mistakes == ["size: expected key=value", "=3: expected key=value"]
