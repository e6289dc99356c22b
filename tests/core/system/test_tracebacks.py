import json
import re

from core.system.tracebacks import error_in_one_line, place_of, show_traceback


def raised(function, *arguments):
    try:
        function(*arguments)
    except (ValueError, SyntaxError) as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_line_of_the_own_code_is_named_though_a_library_raised():
    error = raised(json.loads, "{")
    assert re.search(rf", at {__file__}:\d+$", error_in_one_line(error, __name__))
    assert "json/decoder.py:" in error_in_one_line(error)
    assert "json/decoder.py:" in error_in_one_line(error, "nowhere")


def test_a_syntax_error_is_where_the_code_is_wrong(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nx = = 2\n")
    error = raised(compile, path.read_text(), str(path), "exec")
    assert error_in_one_line(error, "broken") == f"SyntaxError: invalid syntax, at {path}:2"


def test_a_message_of_several_lines_becomes_one():
    assert error_in_one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert error_in_one_line(KeyError()) == "KeyError"


def test_functions_have_a_place_and_built_in_ones_have_none():
    assert re.fullmatch(rf", at {__file__}:\d+", place_of(raised))
    assert place_of(len) == ""


def test_tracebacks_are_shown_on_request_alone(monkeypatch, capsys):
    error = raised(json.loads, "{")
    monkeypatch.delenv("JOINERY_TRACEBACK", raising=False)
    show_traceback(error)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("JOINERY_TRACEBACK", "1")
    show_traceback(error)
    assert "Traceback (most recent call last)" in capsys.readouterr().err
