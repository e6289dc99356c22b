"""Records of TFRecord files, written by tensorboard's writer."""

from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from core.errors import DataError
from plugins.datasets.rlds.records import FOOTER, HEADER, read_example, record_offsets
from tests.plugins.test_rlds import example


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        for number in range(3):
            writer.write(example({"number": [number], "half": [0.5], "text": [b"a", b"b"]}))
    return path


def test_records_are_found_and_read(path: Path) -> None:
    offsets = record_offsets(path)
    assert len(offsets) == 3
    for number, offset in enumerate(offsets):
        values = read_example(path, offset)
        assert {name: [*value] for name, value in values.items()} == {
            "number": [number],
            "half": [0.5],
            "text": [b"a", b"b"],
        }


def test_offsets_end_with_the_record_that_is_cut_off(path: Path) -> None:
    offsets = record_offsets(path)
    path.write_bytes(path.read_bytes()[: offsets[2] + HEADER.size + FOOTER.size])
    assert record_offsets(path) == offsets
    with pytest.raises(DataError, match=f"the record at byte {offsets[2]:,} is cut off"):
        read_example(path, offsets[2])


def test_a_file_that_cannot_be_opened_has_one_offset(tmp_path: Path) -> None:
    assert record_offsets(tmp_path / "missing") == [0]
    with pytest.raises(DataError, match="missing: cannot be read"):
        read_example(tmp_path / "missing", 0)
