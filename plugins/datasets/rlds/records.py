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

HEADER = struct.Struct("<QI")  # length of the data, and the checksum of the length
FOOTER = struct.Struct("<I")  # checksum of the data
FIELD = descriptor_pb2.FieldDescriptorProto
Values = Sequence[bytes] | Sequence[float] | Sequence[int]


def record_offsets(file: Path) -> list[int]:
    """Return the offsets in bytes of a file's records, as far as they can be found.

    Only the headers of the records are read. The function never raises: if a header is damaged or
    a record is cut off, that record is the last in the list, and `read_example` raises an error for
    it.
    """
    offsets, at = [0], 0
    try:
        size = file_size(file)
        with file.open("rb", buffering=0) as stream:
            while (
                at := at + HEADER.size + _data_length(file, stream, at, size) + FOOTER.size
            ) < size:
                offsets.append(at)
    except (DataError, OSError):
        pass
    return offsets


def read_example(file: Path, offset: int) -> Mapping[str, Values]:
    """Read the record at an offset; return {feature: its values}.

    Raises DataError for a record that is damaged or cut off.
    """
    size = file_size(file)
    try:
        with file.open("rb") as stream:
            data = stream.read(_data_length(file, stream, offset, size))
            footer = stream.read(FOOTER.size)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}); copy it again") from None
    if len(footer) != FOOTER.size or FOOTER.unpack(footer)[0] != _masked(data):
        raise DataError(
            f"{file}: the record at byte {offset:,} does not match its checksum; copy it again"
        )
    example = _example_class()()
    try:
        example.ParseFromString(data)
    except message.DecodeError:
        raise DataError(
            f"{file}: the record at byte {offset:,} is no Example message, as tensorflow-datasets "
            "writes them; write the dataset with it"
        ) from None
    values: dict[str, Values] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values[name] = () if kind is None else getattr(feature, kind).value
    return values


def _data_length(file: Path, stream: IO[bytes], offset: int, size: int) -> int:
    """Read the record header at an offset; return the length of the record's data in bytes.

    size: size of the file in bytes.

    Afterwards, the stream is at the beginning of the data. Raises DataError if the header
    is damaged or the record is cut off.
    """
    stream.seek(offset)
    header = stream.read(HEADER.size)
    if len(header) != HEADER.size or HEADER.unpack(header)[1] != _masked(header[:8]):
        raise DataError(
            f"{file}: no record begins at byte {offset:,}, so that what follows cannot be found; "
            "it is damaged or no TFRecord file; copy it again"
        )
    length = int(HEADER.unpack(header)[0])
    if offset + HEADER.size + length + FOOTER.size > size:
        raise DataError(f"{file}: the record at byte {offset:,} is cut off; copy it again")
    return length


def _masked(data: bytes) -> int:
    """Return the checksum that TFRecord stores for some bytes: their masked CRC32C.

    TFRecord rotates the CRC by 15 bits and adds a constant, because a plain CRC is a weak checksum
    for data that already contain CRCs.
    """
    crc = crc32c(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _example_class() -> Any:
    """Return the class of Example messages, which TensorFlow's example.proto defines."""
    file = descriptor_pb2.FileDescriptorProto(
        name="joinery/example.proto", package="joinery", syntax="proto3"
    )
    lists = (
        ("BytesList", FIELD.TYPE_BYTES),
        ("FloatList", FIELD.TYPE_FLOAT),
        ("Int64List", FIELD.TYPE_INT64),
    )
    for name, kind in lists:
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=FIELD.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        message_name = "".join(word.capitalize() for word in name.split("_"))
        _add_field(feature, name, number, message_name, FIELD.LABEL_OPTIONAL).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
    _add_field(entry, "value", 2, "Feature", FIELD.LABEL_OPTIONAL)
    _add_field(features, "feature", 1, "Features.FeatureEntry", FIELD.LABEL_REPEATED)
    example = file.message_type.add(name="Example")
    _add_field(example, "features", 1, "Features", FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("joinery.Example"))


def _add_field(parent: Any, name: str, number: int, message_name: str, label: int) -> Any:
    """Add a field whose type is a message of the protobuf package "joinery"."""
    return parent.field.add(
        name=name,
        number=number,
        type=FIELD.TYPE_MESSAGE,
        type_name=f".joinery.{message_name}",
        label=label,
    )
