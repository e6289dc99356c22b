"""CALVIN (https://github.com/mees/calvin, MIT licence): its splits of play with language
annotations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core import DataError
from core.episodes import Camera, Episode
from core.formats import first_readable, join_columns, read_npy, read_npz
from plugins.environments.calvin.annotations import read_annotations
from plugins.environments.calvin.environment import CAMERAS, info_of

ANNOTATIONS = Path("lang_annotations", "auto_lang_ann.npy")
PLAY = Path("ep_start_end_ids.npy")
NUMBERS = ("rel_actions", "robot_obs")
LONGEST = 1_000  # frames of play in one episode: recordings between resets go on for hours
MOST = 10**7  # frames: their files' names have seven digits
KEYS = {name: f"rgb_{theirs}" for name, theirs in CAMERAS.items()}


@dataclass(frozen=True)
class CalvinDataConfig:
    """Which stretches of the recording are episodes."""

    episodes: Literal["language", "play"] = "language"
    """"language", the annotated stretches of about 64 frames, or "play", all recordings, 1,000
    frames at a time.
    """
    instruction: str = "play"
    """told to the robot in play, which has no words."""


@dataclass(frozen=True)
class _Stretch:
    """An episode: its first and its last frame, as files are numbered."""

    first: int
    last: int
    task: str
    instruction: str


class CalvinData:
    """Reads a split's training or validation folder, one file a frame, with the conventions of
    CALVIN's simulator.

    Raises DataError, naming the file, for what is missing or damaged, and for annotations that
    would run code.
    """

    def __init__(self, config: CalvinDataConfig, *, source: Path) -> None:
        self.folder = source
        self.stretches = (
            _annotated(source)
            if config.episodes == "language"
            else _played(source, config.instruction)
        )
        if not self.stretches:
            raise DataError(f"{source}: lists no episodes")
        first = first_readable(
            dict.fromkeys(x.first for x in self.stretches.values()), self._read_frame
        )
        self.info = info_of({name: Camera(*first[key].shape[:2]) for name, key in KEYS.items()})

    def ids(self) -> Sequence[str]:
        """Name the stretches by their order and their frames: the same stretch may be annotated
        twice.
        """
        return [*self.stretches]

    def read(self, episode: str) -> Episode:
        """Read one stretch, both ends included; raises DataError that names the frame's file."""
        stretch = self.stretches[episode]
        length = stretch.last + 1 - stretch.first
        if not 0 < length <= LONGEST:
            raise DataError(
                f"{self.folder}: episode {episode} has {length:,} frames, expected 1 to {LONGEST:,}"
            )
        frames = [self._read_frame(number) for number in range(stretch.first, stretch.last + 1)]
        try:
            columns = {
                key: np.stack([frame[key] for frame in frames])
                for key in (*KEYS.values(), *NUMBERS)
            }
        except ValueError:
            raise DataError(
                f"{self.folder}: the frames of episode {episode} have different sizes"
            ) from None
        actions, proprio = (
            join_columns([columns[key]], length, f"{self.folder}, episode {episode}, {key}")
            for key in NUMBERS
        )
        images = {name: columns[key] for name, key in KEYS.items()}
        return Episode(episode, stretch.task, stretch.instruction, images, actions, proprio)

    def _read_frame(self, number: int) -> Mapping[str, np.ndarray]:
        """Read what a policy needs of a frame: pictures uint8, rel_actions (7), robot_obs (15)."""
        file = self.folder / f"episode_{number:07d}.npz"
        frame = read_npz(file, (*KEYS.values(), *NUMBERS))
        shapes = {key: x.shape for key, x in frame.items()}
        pictures = all(frame[key].ndim == 3 for key in KEYS.values())
        if not pictures or [shapes[key] for key in NUMBERS] != [(7,), (15,)]:
            raise DataError(
                f"{file}: holds {shapes}, expected pictures, rel_actions (7) and robot_obs (15)"
            )
        return frame


def _annotated(folder: Path) -> dict[str, _Stretch]:
    """The annotated stretches by their order and their frames; raises DataError for annotations of
    another layout.
    """
    path = folder / ANNOTATIONS
    annotations = read_annotations(path)
    try:
        spans = [(int(first), int(last)) for first, last in annotations["info"]["indx"]]
        tasks, texts = annotations["language"]["task"], annotations["language"]["ann"]
        lines = [
            (
                first,
                last,
                str.__str__(task),
                str.__str__(text).strip(),
            )  # no other objects: theirs can be endless
            for (first, last), task, text in zip(spans, tasks, texts, strict=True)
        ]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"{path}: lacks language and info as CALVIN writes them ({error}); copy it again"
        ) from None
    return {f"{n:05d}_{line[0]:07d}_{line[1]:07d}": _Stretch(*line) for n, line in enumerate(lines)}


def _played(folder: Path, instruction: str) -> dict[str, _Stretch]:
    """All recordings in pieces; raises DataError for a list of them that cannot be."""
    path = folder / PLAY
    spans = read_npy(path)
    if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {spans.dtype} {spans.shape}, expected the first and the last frame of each recording"
        )
    bounds = [(int(first), int(last)) for first, last in spans]
    if (
        any(not 0 <= first <= last for first, last in bounds)
        or sum(last - first for first, last in bounds) > MOST
    ):
        raise DataError(
            f"{path}: lists frames {bounds[0][0]} to {bounds[-1][1]}, which cannot be; copy it again"
        )
    pieces = [
        (a, min(a + LONGEST - 1, last))
        for first, last in bounds
        for a in range(first, last + 1, LONGEST)
    ]
    return {f"play_{a:07d}_{b:07d}": _Stretch(a, b, "play", instruction) for a, b in pieces}
