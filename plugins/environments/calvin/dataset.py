"""Episodes of CALVIN's recordings of play; parts of the recordings have language annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core import DataError
from core.episodes import Camera, Episode
from core.formats import first_readable, join_columns, read_npy, read_npz
from plugins.environments.calvin.annotations import read_annotations
from plugins.environments.calvin.conventions import CAMERAS, make_info

ANNOTATIONS = Path("lang_annotations", "auto_lang_ann.npy")
PLAY = Path("ep_start_end_ids.npy")
IMAGES = {name: f"rgb_{calvin_name}" for name, calvin_name in CAMERAS.items()}  # {camera: array}
NUMBERS = ("rel_actions", "robot_obs")  # the arrays that hold actions and proprioception
# maximum number of frames in an episode; a recording of play may last for hours, so it is cut into
# stretches of this length
MAX_LENGTH = 1_000
# maximum number of frames in a split: a file's name holds the index of its frame in seven digits
MAX_FRAMES = 10**7


@dataclass(frozen=True)
class CalvinDataConfig:
    """Which parts ("stretches") of the recordings are episodes."""

    episodes: Literal["language", "play"] = "language"
    """"language": the annotated stretches of about 64 frames; "play": all recordings, cut into
    episodes of at most 1,000 frames.
    """
    instruction: str = "play"
    """the instruction of every episode if `episodes` is "play"; play has no annotations."""


@dataclass(frozen=True)
class _Stretch:
    """An episode; first, last: indices of its first and last frame, as in the files' names."""

    first: int
    last: int
    task: str
    instruction: str


class CalvinData:
    """Reads a split's training or validation folder, which has one file for each frame.

    The conventions are the same as in CALVIN's simulator. Raises DataError, naming the file, for
    missing or damaged data, and for annotations that would run code.
    """

    def __init__(self, config: CalvinDataConfig, *, source: Path) -> None:
        self.folder = source
        self.stretches = (
            _annotated_stretches(source)
            if config.episodes == "language"
            else _play_stretches(source, config.instruction)
        )
        if not self.stretches:
            raise DataError(
                f"{source}: lists no episodes; name a split's training or validation folder, or "
                "choose the other `episodes`"
            )
        first_frames = dict.fromkeys(stretch.first for stretch in self.stretches.values())
        frame = first_readable(first_frames, self._read_frame)
        self.info = make_info({name: Camera(*frame[key].shape[:2]) for name, key in IMAGES.items()})

    def ids(self) -> Sequence[str]:
        """Return the stretches' names; they are unique even if a stretch is annotated twice."""
        return [*self.stretches]

    def read(self, episode: str) -> Episode:
        """Read a stretch, including its last frame; raises DataError if a frame is damaged."""
        stretch = self.stretches[episode]
        length = stretch.last + 1 - stretch.first
        if not 0 < length <= MAX_LENGTH:
            raise DataError(
                f"{self.folder}: episode {episode} has {length:,} frames, "
                f"expected 1 to {MAX_LENGTH:,}; correct the annotations"
            )
        frames = [self._read_frame(number) for number in range(stretch.first, stretch.last + 1)]
        try:
            columns = {
                key: np.stack([frame[key] for frame in frames])
                for key in (*IMAGES.values(), *NUMBERS)
            }
        except ValueError:
            raise DataError(
                f"{self.folder}: the frames of episode {episode} have different sizes; copy them "
                "again"
            ) from None
        actions, proprio = (
            join_columns([columns[key]], length, f"{self.folder}, episode {episode}, {key}")
            for key in NUMBERS
        )
        images = {name: columns[key] for name, key in IMAGES.items()}
        return Episode(episode, stretch.task, stretch.instruction, images, actions, proprio)

    def _read_frame(self, number: int) -> Mapping[str, np.ndarray]:
        """Read the arrays that a policy needs from a frame, and check their shapes."""
        file = self.folder / f"episode_{number:07d}.npz"
        frame = read_npz(file, (*IMAGES.values(), *NUMBERS))
        shapes = {key: array.shape for key, array in frame.items()}
        are_images = all(frame[key].ndim == 3 for key in IMAGES.values())
        if not are_images or [shapes[key] for key in NUMBERS] != [(7,), (15,)]:
            raise DataError(
                f"{file}: holds {shapes}, expected pictures, rel_actions (7) and robot_obs (15)"
            )
        return frame


def _annotated_stretches(folder: Path) -> dict[str, _Stretch]:
    """Return {name: annotated stretch}; a name holds three indices.

    They are the index of the annotation and those of its first and last frame. Raises DataError if
    the annotations do not have CALVIN's layout.
    """
    path = folder / ANNOTATIONS
    annotations = read_annotations(path)
    stretches = {}
    try:
        spans = [(int(first), int(last)) for first, last in annotations["info"]["indx"]]
        tasks, instructions = annotations["language"]["task"], annotations["language"]["ann"]
        lines = zip(spans, tasks, instructions, strict=True)
        for number, ((first, last), task, instruction) in enumerate(lines):
            # `str.__str__` raises TypeError for anything but a string; `str` would accept an array,
            # whose text could be huge
            stretch = _Stretch(first, last, str.__str__(task), str.__str__(instruction).strip())
            stretches[f"{number:05d}_{first:07d}_{last:07d}"] = stretch
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"{path}: lacks language and info as CALVIN writes them ({error}); copy it again"
        ) from None
    return stretches


def _play_stretches(folder: Path, instruction: str) -> dict[str, _Stretch]:
    """Return {name: stretch} of all recordings, cut into stretches of at most MAX_LENGTH frames.

    Raises DataError if the list of recordings is damaged.
    """
    path = folder / PLAY
    array = read_npy(path)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {array.dtype} {array.shape}, expected the first and the last frame "
            "of each recording; copy it again"
        )
    recordings = [(int(first), int(last)) for first, last in array]
    are_ordered = all(0 <= first <= last for first, last in recordings)
    if not are_ordered or sum(last + 1 - first for first, last in recordings) > MAX_FRAMES:
        raise DataError(
            f"{path}: lists frames {recordings[0][0]} to {recordings[-1][1]}, "
            "which cannot be; copy it again"
        )
    stretches = {}
    for begin, end in recordings:
        for first in range(begin, end + 1, MAX_LENGTH):
            last = min(first + MAX_LENGTH - 1, end)
            name = f"play_{first:07d}_{last:07d}"
            stretches[name] = _Stretch(first, last, "play", instruction)
    return stretches
