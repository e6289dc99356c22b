"""CALVIN (https://github.com/mees/calvin, MIT licence): its splits of play with language annotations."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from core import Camera, DataError, Episode, one_line
from plugins.environments.calvin.environment import CAMERAS, info_of

ANNOTATIONS = Path("lang_annotations", "auto_lang_ann.npy")
PLAY = Path("ep_start_end_ids.npy")
NUMBERS = ("rel_actions", "robot_obs")
LONGEST = 1_000  # frames of play in one episode: recordings between resets go on for hours
KEYS = {name: f"rgb_{theirs}" for name, theirs in CAMERAS.items()}


@dataclass(frozen=True)
class CalvinDataConfig:
    """Which stretches of the recording are episodes.

    episodes: "language", the annotated stretches of about 64 frames, or "play", all recordings, 1,000 frames at a time.
    instruction: told to the robot in play, which has no words.
    """

    episodes: Literal["language", "play"] = "language"
    instruction: str = "play"


@dataclass(frozen=True)
class _Stretch:
    """An episode: its first and its last frame, as files are numbered."""

    first: int
    last: int
    task: str
    instruction: str


class CalvinData:
    """Reads a split's training or validation folder, one file a frame, with the conventions of CALVIN's simulator.

    Raises DataError, naming the file, for what is missing or damaged, and for annotations that would run code.
    """

    def __init__(self, config: CalvinDataConfig, *, source: Path) -> None:
        self.folder = source
        self.stretches = _annotated(source) if config.episodes == "language" else _played(source, config.instruction)
        if not self.stretches:
            raise DataError(f"{source}: lists no episodes")
        first = _read_frame(source, next(iter(self.stretches.values())).first)
        self.info = info_of({name: Camera(*first[key].shape[:2]) for name, key in KEYS.items()})

    def ids(self) -> Sequence[str]:
        """Name the stretches by their order and their frames: the same stretch may be annotated twice."""
        return [*self.stretches]

    def read(self, episode: str) -> Episode:
        """Read one stretch, both ends included; raises DataError that names the frame's file."""
        stretch = self.stretches[episode]
        frames = [_read_frame(self.folder, number) for number in range(stretch.first, stretch.last + 1)]
        try:
            columns = {key: np.stack([frame[key] for frame in frames]) for key in (*KEYS.values(), *NUMBERS)}
        except ValueError:
            raise DataError(
                f"{self.folder}: the frames of episode {episode} have different sizes, or it has none"
            ) from None
        actions, proprio = (columns[key].astype(np.float32) for key in NUMBERS)
        images = {name: columns[key] for name, key in KEYS.items()}
        return Episode(episode, stretch.task, stretch.instruction, images, actions, proprio)


def _read_frame(folder: Path, number: int) -> Mapping[str, np.ndarray]:
    """Read what a policy needs of a frame: pictures uint8, rel_actions (7), robot_obs (15)."""
    file = folder / f"episode_{number:07d}.npz"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            frame = {key: archive[key] for key in (*KEYS.values(), *NUMBERS)}
    except FileNotFoundError:
        raise DataError(f"{file}: not there, and the episodes listed need it; copy the dataset again") from None
    except Exception as error:  # noqa: BLE001 - damaged bytes make zipfile and numpy raise almost anything
        raise DataError(f"{file}: damaged ({one_line(error)}); copy it again") from None
    shapes = {key: x.shape for key, x in frame.items()}
    if shapes["rel_actions"] != (7,) or shapes["robot_obs"] != (15,) or any(len(shapes[k]) != 3 for k in KEYS.values()):
        raise DataError(f"{file}: holds {shapes}, expected pictures, rel_actions (7) and robot_obs (15)")
    return frame


def _annotated(folder: Path) -> dict[str, _Stretch]:
    path = folder / ANNOTATIONS
    annotations = _read_annotations(path)
    try:
        spans = [(int(first), int(last)) for first, last in annotations["info"]["indx"]]
        tasks, texts = annotations["language"]["task"], annotations["language"]["ann"]
        lines = list(zip(spans, map(str, tasks), map(str, texts), strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: lacks language and info as CALVIN writes them ({error}); copy it again") from None
    return {
        f"{number:05d}_{first:07d}_{last:07d}": _Stretch(first, last, task, text.strip())
        for number, ((first, last), task, text) in enumerate(lines)
    }


def _played(folder: Path, instruction: str) -> dict[str, _Stretch]:
    path = folder / PLAY
    try:
        spans = np.load(path, allow_pickle=False)
        pieces = [
            (a, min(a + LONGEST - 1, int(b))) for first, b in spans for a in range(int(first), int(b) + 1, LONGEST)
        ]
        return {f"play_{a:07d}_{b:07d}": _Stretch(a, b, "play", instruction) for a, b in pieces}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy it again") from None


def _read_annotations(path: Path) -> Any:
    """Read a dictionary that numpy pickled, as far as it is plain data and arrays."""
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            read_header(stream)
            return _PlainData(stream, path).load().item()
    except FileNotFoundError:
        raise DataError(f"{path}: not there; name a split's training or validation folder") from None
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise DataError(f"{path}: damaged ({one_line(error)}); copy it again") from None


class _PlainData(pickle.Unpickler):
    """Knows numpy's arrays and numbers, and nothing that could run code."""

    known = frozenset(
        (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Refuse what is no plain data."""
        if (module, name) not in self.known:
            asked = f"{module}.{name}"
            raise DataError(f"{self.path}: asks for {asked}, which is no data and might run code; not loaded")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
