"""Series of numbered files, and those of them that are parquet tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import import_optional
from plugins.datasets.lerobot.features import FILES_PER_CHUNK, Features


@dataclass(frozen=True)
class Slot:
    """Which file of a series."""

    chunk: int = 0
    file: int = 0

    def next(self) -> "Slot":
        """The file that comes after."""
        last = self.file + 1 == FILES_PER_CHUNK
        return Slot(self.chunk + 1, 0) if last else Slot(self.chunk, self.file + 1)

    def path(self, root: Path, template: str) -> Path:
        """The file's path, its folder made."""
        path = root / template.format(chunk_index=self.chunk, file_index=self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class TableFiles:
    """Tables of one schema back to back, a row group each, in files that stay below `limit` bytes
    where they can.
    """

    def __init__(self, root: Path, template: str, limit: int) -> None:
        self._parquet = import_optional("pyarrow.parquet", extra="lerobot")
        self._root, self._template, self._limit = root, template, limit
        self._slot = Slot()
        self._writer: Any = None
        self._path = Path()
        self._rows = 0  # of the file at hand

    def reserve(self, rows: int) -> Slot:
        """Which file the next `rows` rows go to: a new one where the last would grow too large with
        them.
        """
        if self._writer is not None:
            size = self._path.stat().st_size
            if size + size / self._rows * rows >= self._limit:
                self.close()
                self._slot = self._slot.next()
        return self._slot

    def write(self, table: Any) -> None:
        """Write a table to the file that was reserved for it."""
        if self._writer is None:
            self._path, self._rows = self._slot.path(self._root, self._template), 0
            self._writer = self._parquet.ParquetWriter(
                self._path, table.schema, compression="snappy"
            )
        self._writer.write_table(table)
        self._rows += table.num_rows

    def close(self) -> None:
        """Write the footer of the file at hand, and let go of it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


def frame_schema(features: Features) -> Any:
    """The columns of data/ in LeRobot's types, with the note by which the library `datasets` knows
    them.
    """
    arrow = import_optional("pyarrow", extra="lerobot")
    types = {"float32": arrow.float32(), "int64": arrow.int64()}
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    fields: list[Any] = []
    known: dict[str, Any] = {}
    for key, feature in features.items():
        kind, width = feature["dtype"], feature["shape"][0]
        if kind == "image":
            fields.append((key, picture))
            known[key] = {"_type": "Image"}
        elif kind != "video":  # videos have no column
            one = {"dtype": kind, "_type": "Value"}
            fields.append((key, types[kind] if width == 1 else arrow.list_(types[kind], width)))
            known[key] = one if width == 1 else {"feature": one, "length": width, "_type": "List"}
    return arrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": known}})})


def frame_table(schema: Any, columns: Mapping[str, np.ndarray | list[Any]]) -> Any:
    """Columns of numbers, (n) or (n D), and of pictures -> a table of that schema."""
    arrow = import_optional("pyarrow", extra="lerobot")
    arrays = []
    for field in schema:
        column = columns[field.name]
        if isinstance(column, np.ndarray):
            flat = arrow.array(column.reshape(-1))
            is_list = arrow.types.is_fixed_size_list(field.type)
            arrays.append(
                arrow.FixedSizeListArray.from_arrays(flat, type=field.type) if is_list else flat
            )
        else:
            arrays.append(arrow.array(column, type=field.type))
    return arrow.Table.from_arrays(arrays, schema=schema)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write what the robot is told, numbered in this order; the text is an index, as pandas reads
    it.
    """
    arrow = import_optional("pyarrow", extra="lerobot")
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": dtype,
            "metadata": None,
        }
        for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    names = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": None,
    }
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [names],
        "columns": columns,
        "attributes": {},
    }
    schema = arrow.schema(
        [("task_index", arrow.int64()), ("task", arrow.string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    table = arrow.table([range(len(tasks)), list(tasks)], schema=schema)
    import_optional("pyarrow.parquet", extra="lerobot").write_table(table, path)
