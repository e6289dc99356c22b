"""The command: it prints a schema that is JSON."""

import json

import pytest

from core.commands.schema import main


def test_the_schema_is_json_and_names_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"train", "data", "policy_head"} <= schema["properties"].keys()
