"""Pages: text is formatted and escaped, and files are replaced whole."""

import re
from errno import ENOSPC
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from core.report.page import flatten, highlight_toml, output_file, words, write_page


@given(st.text())
def test_highlighting_changes_no_word(text):
    shown = highlight_toml(text)
    assert unescape(re.sub(r"</?i[^<>]*>", "", shown)) == text
    assert set(re.findall(r"<[^>]*>", shown)) <= {
        "</i>",
        '<i class="comment">',
        '<i class="section">',
        '<i class="key">',
        '<i class="text">',
        '<i class="value">',
    }


def test_highlighting_knows_the_words_of_a_recipe():
    kinds = re.findall(
        r'class="(\w+)">([^<]+)<', highlight_toml('# a\n[train]\nseed = 7\nname = "x = 1 # y"\n')
    )
    assert kinds == [
        ("comment", "# a"),
        ("section", "[train]"),
        ("key", "seed"),
        ("value", "7"),
        ("key", "name"),
        ("text", "&quot;x = 1 # y&quot;"),
    ]


def test_nested_values_are_named_by_their_path():
    nested = {"a": {"b": 1, "c": {"d": [1, "x"]}}, "e": "text", "f": 0.1 + 0.2, "g": None}
    assert flatten(nested) == {
        "a.b": "1",
        "a.c.d": '[1, "x"]',
        "e": "text",
        "f": "0.3",
        "g": "null",
    }


def test_a_name_breaks_after_its_words():
    assert words("data.max_steps") == ["data.", "max_", "steps"]
    assert words("images blanked") == ["images ", "blanked"]
    assert words("_") == ["_"]
    assert words("") == [""]


@given(st.text())
def test_splitting_a_name_changes_no_letter(name):
    assert "".join(words(name)) == name


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_page(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_path_is_refused_before_the_work(tmp_path):
    for path in (tmp_path / "nowhere" / "page.html", tmp_path, Path(tmp_path.root)):
        with pytest.raises(OSError) as refused, output_file(path):  # noqa: PT011
            pytest.fail("the work has begun")
        assert refused.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_page_and_not_the_temporary_file(tmp_path):
    path = tmp_path / "page.html"
    with pytest.raises(OSError, match="No space left") as refused, output_file(path):
        raise OSError(ENOSPC, "No space left on device")
    assert refused.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
