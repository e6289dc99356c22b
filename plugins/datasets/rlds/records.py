"""TFRecord files and the Example messages in them, read without TensorFlow."""

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from google_crc32c import value as crc32c

from core import DataError, one_line
from core.formats import file_size

HEADER, FOOTER = (
    struct.Struct("<QI"),
    struct.Struct("<I"),
)  # length and its checksum; the data's checksum
FIELD = descriptor_pb2.FieldDescriptorProto
Values = Sequence[bytes] | Sequence[float] | Sequence[int]


def record_offsets(file: Path) -> list[int]:
    """Where the records of a file begin, as far as they can be followed; no data are read.

    Never raises: the last offset is where `read_example` says what is wrong, be it that the file
    cannot be opened.
    """
    offsets, at = [0], 0
    try:
        size = file_size(file)
        with file.open("rb", buffering=0) as stream:
            while (at := at + HEADER.size + _length(file, stream, at, size) + FOOTER.size) < size:
                offsets.append(at)
    except (DataError, OSError):
        pass
    return offsets


def read_example(file: Path, offset: int) -> Mapping[str, Values]:
    """Read the record at an offset -> {feature: its values}; raises DataError for one that is
    damaged or cut off.
    """
    size = file_size(file)
    try:
        with file.open("rb") as stream:
            data = stream.read(_length(file, stream, offset, size))
            footer = stream.read(FOOTER.size)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); copy it again") from None
    if len(footer) != FOOTER.size or FOOTER.unpack(footer)[0] != _masked(data):
        raise DataError(
            f"{file}: the record at byte {offset:,} does not match its checksum; copy it again"
        )
    example = _example()()
    try:
        example.ParseFromString(data)
    except message.DecodeError:
        raise DataError(f"{file}: the record at byte {offset:,} is no Example message") from None
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def _length(file: Path, stream: IO[bytes], offset: int, size: int) -> int:
    """Bytes of data in the record at an offset of a file of that size, and the stream moved to
    where they begin.
    """
    stream.seek(offset)
    header = stream.read(HEADER.size)
    if len(header) != HEADER.size or HEADER.unpack(header)[1] != _masked(header[:8]):
        raise DataError(
            f"{file}: no record begins at byte {offset:,}, so that what follows cannot be found; it is damaged or no "
            "TFRecord file"
        )
    length = int(HEADER.unpack(header)[0])
    if offset + HEADER.size + length + FOOTER.size > size:
        raise DataError(f"{file}: the record at byte {offset:,} is cut off; copy it again")
    return length


def _masked(data: bytes) -> int:
    """TFRecord's checksum: CRC32C, turned and shifted, so that a checksum of data with checksums is
    no fixed point.
    """
    crc = crc32c(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _values(feature: Any) -> Values:
    kind = feature.WhichOneof("kind")
    values: Values = () if kind is None else getattr(feature, kind).value
    return values


@cache
def _example() -> Any:
    """The message class Example, as TensorFlow's example.proto and feature.proto define it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="joinery/example.proto", package="joinery", syntax="proto3"
    )
    for name, of in (
        ("BytesList", FIELD.TYPE_BYTES),
        ("FloatList", FIELD.TYPE_FLOAT),
        ("Int64List", FIELD.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=of, label=FIELD.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind = ".joinery." + "".join(word.capitalize() for word in name.split("_"))
        _add(feature, name, number, kind, FIELD.LABEL_OPTIONAL).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    _add(entry, "value", 2, ".joinery.Feature", FIELD.LABEL_OPTIONAL)
    _add(features, "feature", 1, ".joinery.Features.FeatureEntry", FIELD.LABEL_REPEATED)
    _add(
        file.message_type.add(name="Example"),
        "features",
        1,
        ".joinery.Features",
        FIELD.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("joinery.Example"))


def _add(parent: Any, name: str, number: int, of: str, label: int) -> Any:
    return parent.field.add(
        name=name, number=number, type=FIELD.TYPE_MESSAGE, type_name=of, label=label
    )
