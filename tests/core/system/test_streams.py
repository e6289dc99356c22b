import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings, strategies as st

from core.system.streams import LOOKALIKES, discard, flush_output, has_reader, robust_streams

ENCODINGS = ["ascii", "latin-1", "cp437", "utf-8"]


@contextmanager
def stdout_of(encoding: str) -> Iterator[io.BytesIO]:
    """Let the standard output be a file in memory."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding, write_through=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield content
    stream.detach()


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(st.characters(exclude_characters="\r\n"), max_size=30))
@settings(deadline=None, max_examples=50)
def test_every_text_can_be_printed_in_every_encoding(encoding: str, text: str) -> None:
    """Also half a character, which is what a name of undecodable bytes holds."""
    with stdout_of(encoding) as content, robust_streams():
        print(text)
    shown = content.getvalue().decode(encoding)
    if text.isascii():
        assert shown == f"{text}\n"
    assert shown.endswith("\n")


def test_what_an_encoding_lacks_is_replaced_by_what_looks_alike() -> None:
    with stdout_of("ascii") as content, robust_streams():
        print("lift – 97 % · „Übung“ → 5 × 3 …")  # noqa: RUF001
    expected = b'lift - 97 % . \\u201e\\xdcbung" > 5 x 3 ~\n'
    assert content.getvalue() == expected
    assert {len(plain) for plain in LOOKALIKES.values()} == {1}  # columns stay below each other


def test_afterwards_the_streams_are_as_before() -> None:
    with stdout_of("ascii"):
        with pytest.raises(ZeroDivisionError), robust_streams():
            raise ZeroDivisionError
        assert sys.stdout.errors == "strict"
        with pytest.raises(UnicodeEncodeError):
            print("…")


@contextmanager
def closed_pipe() -> Iterator[io.TextIOWrapper]:
    """Yield a stream of which nobody reads the other end."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        yield stream


def test_a_closed_pipe_drops_what_is_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_pipe() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert not has_reader(stream)
        print("a line")
        flush_output()
        print("another line")
        flush_output()


def test_what_cannot_be_written_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream, robust_streams():
        monkeypatch.setattr(sys, "stdout", stream)
        print("a line")
        with pytest.raises(OSError, match="No space left on device: 'standard output'"):
            flush_output()
        discard(stream)


def test_who_may_still_read_is_known() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "w", encoding="utf-8") as stream:
        assert has_reader(stream)
    assert has_reader(io.StringIO())


def test_no_file_gets_the_number_of_a_stream_that_is_missing(tmp_path) -> None:
    """Otherwise what a library prints would be written into that file."""
    file = tmp_path / "data"
    code = f"""
import os
from core.system.streams import robust_streams
with robust_streams():
    with open({str(file)!r}, "w") as file:
        print("a line")
        os.write(1, b"what a library prints")
        assert file.fileno() > 2
"""
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&-', sys.executable, code], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_text() == ""
