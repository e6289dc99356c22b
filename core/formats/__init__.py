"""Tools for plugins that read or write other formats: contracts, images, columns, damaged files."""

from core.formats.arrays import read_npy as read_npy, read_npz as read_npz
from core.formats.columns import (
    ArrayKind as ArrayKind,
    array_kind as array_kind,
    check_mapping as check_mapping,
    dimension_names as dimension_names,
    distinct_names as distinct_names,
    flat_width as flat_width,
    join_columns as join_columns,
)
from core.formats.contracts import EpisodeSink as EpisodeSink, EpisodeSource as EpisodeSource
from core.formats.damage import (
    check_claimed_size as check_claimed_size,
    file_size as file_size,
    first_readable as first_readable,
)
from core.formats.images import (
    as_images as as_images,
    decode_images as decode_images,
    is_unit_range as is_unit_range,
)
from core.formats.info import (
    ConventionOverride as ConventionOverride,
    dump_info as dump_info,
    load_info as load_info,
    override_convention as override_convention,
    source_info as source_info,
)
