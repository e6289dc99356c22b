"""Parquet tables as LeRobot writes them: numbered files, schemas, and the table of tasks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import import_optional
from plugins.datasets.lerobot.features import FILES_PER_CHUNK, Features


@dataclass(frozen=True)
class FileNumber:
    """A file in a numbered series: its folder's index ("chunk"), and its index in that folder."""

    chunk: int = 0
    file: int = 0

    def next(self) -> "FileNumber":
        """Return the indices of the next file."""
        if self.file + 1 == FILES_PER_CHUNK:
            return FileNumber(self.chunk + 1, 0)
        return FileNumber(self.chunk, self.file + 1)

    def make_path(self, root: Path, template: str) -> Path:
        """Return the file's path, and make its folder."""
        path = root / template.format(chunk_index=self.chunk, file_index=self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class TableFiles:
    """Writes tables of one schema, one after the other, into numbered files.

    Each table is a row group. A file has at most about `limit` bytes, unless its only table is
    larger.
    """

    def __init__(self, root: Path, template: str, limit: int) -> None:
        self._parquet = import_optional("pyarrow.parquet", extra="lerobot")
        self._root, self._template, self._limit = root, template, limit
        self._number = FileNumber()
        self._writer: Any = None
        self._path = Path()
        self._rows = 0  # number of rows written to the open file

    def reserve(self, rows: int) -> FileNumber:
        """Return the file for the next `rows` rows: a new file if the open file lacks room."""
        if self._writer is not None:
            size = self._path.stat().st_size
            if size + size / self._rows * rows >= self._limit:
                self.close()
                self._number = self._number.next()
        return self._number

    def write(self, table: Any) -> None:
        """Write a table to the file that was reserved for it."""
        if self._writer is None:
            self._path, self._rows = self._number.make_path(self._root, self._template), 0
            self._writer = self._parquet.ParquetWriter(
                self._path, table.schema, compression="snappy"
            )
        self._writer.write_table(table)
        self._rows += table.num_rows

    def close(self) -> None:
        """Write the footer of the open file, and close it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


def frame_schema(features: Features) -> Any:
    """Return the schema of the tables in data/, in LeRobot's types.

    The schema's metadata also holds the columns' types, for Hugging Face's library `datasets`.
    """
    arrow = import_optional("pyarrow", extra="lerobot")
    types = {"float32": arrow.float32(), "int64": arrow.int64()}
    image_type = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    fields: list[Any] = []
    declarations: dict[str, Any] = {}
    for key, feature in features.items():
        dtype, width = feature["dtype"], feature["shape"][0]
        if dtype == "video":  # videos have no column
            continue
        if dtype == "image":
            fields.append((key, image_type))
            declarations[key] = {"_type": "Image"}
        elif width == 1:
            fields.append((key, types[dtype]))
            declarations[key] = {"dtype": dtype, "_type": "Value"}
        else:
            fields.append((key, arrow.list_(types[dtype], width)))
            element = {"dtype": dtype, "_type": "Value"}
            declarations[key] = {"feature": element, "length": width, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": declarations}})}
    return arrow.schema(fields, metadata=metadata)


def frame_table(schema: Any, columns: Mapping[str, np.ndarray | list[Any]]) -> Any:
    """Make a table of a schema.

    columns: {name: column}; a column is a numeric array (n) or (n D), or a list of images.
    """
    arrow = import_optional("pyarrow", extra="lerobot")
    arrays = []
    for field in schema:
        column = columns[field.name]
        if not isinstance(column, np.ndarray):
            arrays.append(arrow.array(column, type=field.type))
        elif arrow.types.is_fixed_size_list(field.type):
            flat = arrow.array(column.reshape(-1))
            arrays.append(arrow.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            arrays.append(arrow.array(column.reshape(-1)))
    return arrow.Table.from_arrays(arrays, schema=schema)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write meta/tasks.parquet: the tasks, whose indices are their places in this sequence.

    LeRobot expects the metadata of a pandas table whose index is the task.
    """
    arrow = import_optional("pyarrow", extra="lerobot")

    def pandas_column(name: str | None, pandas_type: str, numpy_type: str) -> dict[str, Any]:
        types = {"pandas_type": pandas_type, "numpy_type": numpy_type}
        return {"name": name, "field_name": name, **types, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [pandas_column(None, "unicode", "object")],
        "columns": [
            pandas_column("task_index", "int64", "int64"),
            pandas_column("task", "unicode", "object"),
        ],
        "attributes": {},
    }
    schema = arrow.schema(
        [("task_index", arrow.int64()), ("task", arrow.string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    table = arrow.table([range(len(tasks)), list(tasks)], schema=schema)
    import_optional("pyarrow.parquet", extra="lerobot").write_table(table, path)
