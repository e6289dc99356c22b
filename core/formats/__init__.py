"""Tools for plugins that read or write other formats: contracts, images, columns, damaged files."""

from core.episodes.correction import (
    ConventionOverride as ConventionOverride,
    override_convention as override_convention,
)
from core.formats.arrays import (
    npz_names as npz_names,
    read_npy as read_npy,
    read_npz as read_npz,
)
from core.formats.columns import (
    ArrayKind as ArrayKind,
    Column as Column,
    array_column as array_column,
    array_kind as array_kind,
    dimension_names as dimension_names,
    distinct_names as distinct_names,
    join_columns as join_columns,
)
from core.formats.contracts import (
    Description as Description,
    EpisodeSink as EpisodeSink,
    EpisodeSource as EpisodeSource,
    Guess as Guess,
    Reader as Reader,
    Recording as Recording,
)
from core.formats.damage import (
    check_claimed_size as check_claimed_size,
    file_size as file_size,
    first_readable as first_readable,
)
from core.formats.images import (
    as_images as as_images,
    decode_depth as decode_depth,
    decode_images as decode_images,
    encoded_size as encoded_size,
    guess_white as guess_white,
)
from core.formats.info import (
    dump_info as dump_info,
    load_info as load_info,
    source_info as source_info,
)
from core.formats.mapped import MappedSource as MappedSource
from core.formats.mapping import FeatureColumn as FeatureColumn, SourceMapping as SourceMapping
from core.system.links import path_below as path_below
from core.system.strict import parse_json as parse_json
