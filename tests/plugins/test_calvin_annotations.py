"""CALVIN's pickled annotations: plain data are read, code and false claims are refused."""

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError
from plugins.environments.calvin.annotations import read_annotations
from tests.damage import bounded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auto_lang_ann.npy"


def test_plain_data_arrays_and_numbers_are_read(path: Path) -> None:
    content = {"ann": ["open the drawer"], "emb": np.arange(6.0).reshape(2, 3), "n": np.int64(7)}
    np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    annotations = read_annotations(path)
    assert annotations["ann"] == ["open the drawer"]
    np.testing.assert_array_equal(annotations["emb"], content["emb"])
    assert annotations["n"] == 7


class Exploit:
    def __reduce__(self) -> Any:
        return (print, ("this ran",))


def test_annotations_that_would_run_code_are_refused(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(path, {"language": Exploit()}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(
        DataError,
        match=r"auto_lang_ann.npy: asks for builtins.print, which is no data .*not loaded",
    ):
        read_annotations(path)
    assert "this ran" not in capsys.readouterr().out


def pickled(operations: bytes) -> bytes:
    """An .npy file of one object, whose pickle is made of these operations."""
    np.save(stream := BytesIO(), np.array(None, dtype=object), allow_pickle=True)
    content = stream.getvalue()
    return content[: content.index(b"\n") + 1] + b"\x80\x04" + operations + b"."


ENDLESS = pickle.dumps(10**12)[2:-1].partition(b"\x8a")[2]


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (b"\x8e" + (2**40).to_bytes(8, "little") + b"few", "expected 1099511627776 bytes"),
        (b"Nr" + (2**31).to_bytes(4, "little"), "it remembers 2,147,483,648 objects"),
        (b"cnumpy\nndarray\n(\x8a" + ENDLESS + b"tR", None),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(\x8a"
            + ENDLESS
            + b"tC\x01btR",
            None,
        ),
        (
            b"cnumpy\nndarray\n)R(K\x01(\x8a"
            + ENDLESS
            + b"tcnumpy\ndtype\n(X\x02\x00\x00\x00u1tR\x89C\x01atb",
            r"an array \(1000000000000,\) in 1 bytes",
        ),
    ],
)
def test_annotations_that_claim_more_than_they_hold(
    path: Path, operations: bytes, message: str | None
) -> None:
    path.write_bytes(pickled(operations))
    with bounded(), pytest.raises(DataError, match=f"auto_lang_ann.npy: damaged .*{message or ''}"):
        read_annotations(path)
