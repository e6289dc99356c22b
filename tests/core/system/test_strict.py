import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.system.strict import from_plain, one_line


@dataclass(frozen=True)
class Inner:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("a size is not negative")


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: tuple[Inner, ...]
    ratio: float = 0.5


def test_plain_data_becomes_nested_dataclasses() -> None:
    plain = {"path": "a/b", "inner": [{"size": 1}, {"size": 2}]}
    assert from_plain(Outer, plain) == Outer(Path("a/b"), (Inner(1), Inner(2)))


@pytest.mark.parametrize("size", ["1", 1.5, True, None])
def test_no_other_type_is_taken_for_a_number(size: object) -> None:
    with pytest.raises(ValidationError, match="size"):
        from_plain(Inner, {"size": size})


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        from_plain(Inner, {"size": object()})


def test_all_mistakes_stand_in_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        from_plain(Outer, {"path": 3, "inner": [{"size": -1}]})
    assert one_line(caught.value) == (
        "path: Input should be a valid string; inner.0: a size is not negative"
    )


def test_a_mistake_at_the_top_has_no_location() -> None:
    with pytest.raises(ValidationError) as caught:
        from_plain(Inner, {"size": -1})
    assert one_line(caught.value) == "a size is not negative"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), "No space left on device"),
        (ValueError("two\n  lines"), "two lines"),
        (ValueError("x" * 300), "x" * 200),
        (KeyError("name"), "'name'"),
        (EOFError(), "EOFError"),
    ],
)
def test_one_line_of_other_errors(error: Exception, line: str) -> None:
    assert one_line(error) == line
