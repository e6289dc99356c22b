import numpy as np
import pytest
from hypothesis import given, strategies as st

from core.episodes.text import decode_text, encode_text
from core.errors import DataError


@given(
    texts=st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), max_size=5
    )
)
def test_any_text_comes_back(texts: list[str]) -> None:
    assert decode_text(encode_text(texts, 32)) == texts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ä" * 5, "takes 10 bytes and has room for 8; give"),
        ("a\0", "holds a zero character"),
        ("\ud800", "Unicode"),
    ],
)
def test_texts_that_would_not_come_back(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"text 1, .*{message}"):
        encode_text(["fine", text], 8)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(DataError, match="frame 1: no UTF-8 text"):
        decode_text(np.array([[65, 0], [255, 0]], np.uint8))
