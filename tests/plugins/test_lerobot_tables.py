"""Numbered files, and the parquet tables in them."""

import json
from pathlib import Path

import pytest

from plugins.datasets.lerobot.tables import FileNumber, TableFiles, write_tasks

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install -e '.[lerobot]')")
parquet = pytest.importorskip("pyarrow.parquet")


def test_a_chunk_holds_a_thousand_files() -> None:
    assert FileNumber(0, 998).next() == FileNumber(0, 999)
    assert FileNumber(0, 999).next() == FileNumber(1, 0)


def test_the_path_of_a_file_has_its_folder(tmp_path: Path) -> None:
    path = FileNumber(2, 3).make_path(tmp_path, "data/chunk-{chunk_index:03d}/{file_index}.parquet")
    assert path == tmp_path / "data" / "chunk-002" / "3.parquet"
    assert path.parent.is_dir()


@pytest.mark.parametrize(("limit", "count"), [(10**9, 1), (1, 3)])
def test_a_file_that_would_exceed_the_limit_is_not_continued(
    tmp_path: Path, limit: int, count: int
) -> None:
    files = TableFiles(tmp_path, "{chunk_index}-{file_index}.parquet", limit)
    for number in range(3):
        files.reserve(2)
        files.write(pyarrow.table({"number": [number, number]}))
    files.close()
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == count
    rows = [row["number"] for path in paths for row in parquet.read_table(path).to_pylist()]
    assert rows == [0, 0, 1, 1, 2, 2]


def test_tasks_are_numbered_in_their_order(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.parquet", ["open the drawer", "close it"])
    table = parquet.read_table(tmp_path / "tasks.parquet")
    assert table.to_pylist() == [
        {"task_index": 0, "task": "open the drawer"},
        {"task_index": 1, "task": "close it"},
    ]
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]
