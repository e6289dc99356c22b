"""The settings that every format has: which columns of a dataset become what, and which episodes.

`MappedSource` (core/formats/mapped.py) carries them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt

from core.episodes.correction import ConventionOverride
from core.episodes.episode import FeatureMeaning

Selection = str | tuple[str, ...]
"""Columns that are joined, each by name, or as `name[0:7]` or `name[3]` for some of its numbers."""


@dataclass(frozen=True)
class FeatureColumn:
    """A column that an episode store keeps unchanged, as a named feature.

    column: its name.
    meaning: "rgb", "depth", "points", "force", "reward", "text" or "other".
    unit: unit of its values, for example "mm" or "N".
    """

    column: str
    meaning: FeatureMeaning
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class SourceMapping:
    """Which columns of a dataset become images, actions and words, and which episodes are read."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """{name: column}; default: every column of colour images."""
    action: Selection | None = None
    """columns that are joined in this order to form the action; `name[0:7]` takes the first seven
    numbers of a column, and `name[3]` the fourth; default: the format's usual column.
    """
    proprio: Selection | None = None
    """columns that are joined to form the proprioception, as for `action`; an empty list for none;
    default: the format's usual columns, if any.
    """
    features: Mapping[str, FeatureColumn] = field(default_factory=dict)
    """further columns to keep as they are: {name of the feature: its column, meaning and unit}."""
    action_names: Mapping[str, str] = field(default_factory=dict)
    """dimensions of the action to rename: {new name: name in the plan}."""
    proprio_names: Mapping[str, str] = field(default_factory=dict)
    """proprioceptive numbers to rename: {new name: name in the plan}."""
    proprio_units: Mapping[str, str] = field(default_factory=dict)
    """units of proprioceptive numbers: {name: unit}, {x = "m"} for example."""
    instruction: str | None = None
    """the words that the robot is told in every episode; default: those of the dataset."""
    instruction_column: str | None = None
    """the column that holds the words: text, the numbers of characters, or the number of a text
    that the dataset lists; those of an episode's first frame count; default: the format's usual
    column.
    """
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """tasks, and the instructions that belong to each: {task: instructions}; default: the dataset's
    own task, or else each instruction is a task.
    """
    episodes: tuple[str | int, ...] = ()
    """which episodes to read: numbers from 0, ranges such as "0:50", and ids; default: all."""
    mask: str | None = None
    """a split or filter key of the dataset, whose episodes are read."""
    where: tuple[str, ...] = ()
    """conditions that an episode must meet, on what the dataset says about it, such as
    "success == true" or "quality >= 0.5".
    """
    fps: Annotated[float, Gt(0)] | None = None
    """frames per second; default: as the dataset says."""
    white: Annotated[float, Gt(0)] | None = None
    """the value that stands for white in images that are not uint8: 1, 255 or 65535; default: the
    least of these that no value of the first episode exceeds.
    """
    meaning: ConventionOverride | None = None
    """meaning of the actions; default: as the dataset records it, or else the format's guess."""
