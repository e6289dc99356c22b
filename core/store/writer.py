"""Writing an episode store: append episodes, publish them in immutable parts, never in place."""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np

from core.episodes.episode import NAME, SPARSE, Episode, Feature, StoreInfo
from core.episodes.text import decode_text
from core.errors import DataError
from core.store.attributes import differences, read_attributes, to_attributes
from core.store.codecs import Codec, Cost, choose_codec, try_codecs
from core.store.features import feature_codec
from core.store.layout import publish, read_commits, stream_paths
from core.store.segment import EncodedEpisode, PendingSegment
from core.system.files import sync

SEGMENT_BYTES = 64 * 2**20  # of encoded frames, at which a part is committed


class StoreWriter:
    """Appends episodes to a store, new or existing; several writers may work on one store at once.

    The store appears with its first episode, on which each camera's codec is chosen. Episodes
    become visible, all or none, when a part is committed: at `segment_bytes`, at `commit()`, and at
    the end of the `with` block. An exception in the block drops what is not committed. Raises
    DataError if the store exists and its info disagrees.
    """

    def __init__(self, path: Path, info: StoreInfo, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path = path
        self.info = replace(info, cameras=dict(info.cameras), features=dict(info.features))
        self.committed: set[str] = set()
        self._part_bytes = segment_bytes
        self._commits = 0
        self.codecs: Mapping[str, Codec] | None = (
            None  # of each camera and feature, once there is an episode
        )
        self.tried: Mapping[str, Mapping[Codec, Cost]] = {}  # of each camera, if this writer chose
        self._pending: PendingSegment | None = None
        _check_names(self.info)
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{path}: a link to '{path.readlink()}', which is not there; remove the link or mend it"
            )
        if path.exists() and not _is_empty_folder(path):
            self._join()

    def append(self, episode: Episode) -> None:
        """Add one episode; raises DataError, naming episode and frame, if it is not what the info
        promises.
        """
        self.append_encoded(self.encode(episode))

    def encode(self, episode: Episode) -> EncodedEpisode:
        """Check an episode and encode it, by codecs that the first one chooses; nothing is added
        yet.
        """
        check_episode(episode, self.info)
        if self.codecs is None:
            self.tried = {name: try_codecs(episode.images[name]) for name in self.info.cameras}
            chosen = {name: choose_codec(costs) for name, costs in self.tried.items()}
            features = {
                name: feature_codec(feature) for name, feature in self.info.features.items()
            }
            self._create(chosen | features)
        assert self.codecs is not None
        return EncodedEpisode.of(episode, self.codecs)

    def append_encoded(self, episode: EncodedEpisode) -> None:
        """Add one episode that was checked and encoded elsewhere, by this writer's codecs."""
        if episode.id in self.committed or episode.id in self._pending_ids():
            raise DataError(
                f"{self.path}: episode '{episode.id}' is there already; give each episode an id of its own"
            )
        self._pending = self._pending or PendingSegment(stream_paths(self.info))
        self._pending.append(episode)
        if self._pending.size >= self._part_bytes:
            self.commit()

    def commit(self) -> None:
        """Publish the episodes appended so far; raises DataError if the disk refuses, then nothing
        of them remains.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        folder = self.path / "parts" / uuid4().hex
        try:
            self._publish(pending, folder)
        except BaseException as error:
            if not self._is_committed(folder):  # Ctrl-C may have come right after the commit
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._refused(error) from error
            raise
        self.committed.update(episode.id for episode in pending.episodes)

    def _publish(self, pending: PendingSegment, folder: Path) -> None:
        commit = pending.write(folder)
        while True:
            self._catch_up()
            if twice := self.committed.intersection(commit.episodes):
                raise DataError(
                    f"{self.path}: another writer has just added episode '{min(twice)}'; import again"
                )
            if publish(self.path, self._commits, commit):
                self._commits += 1
                return

    def _is_committed(self, folder: Path) -> bool:
        return any(commit.part == folder.name for commit in read_commits(self.path, self._commits))

    def _pending_ids(self) -> set[str]:
        return {episode.id for episode in self._pending.episodes} if self._pending else set()

    def _catch_up(self) -> None:
        """Learn what other writers have committed."""
        for commit in read_commits(self.path, self._commits):
            self.committed.update(commit.episodes)
            self._commits += 1

    def _join(self) -> None:
        """Go on with an existing store."""
        theirs, self.codecs = read_attributes(self.path)
        if different := differences(self.info, theirs):
            raise DataError(
                f"{self.path}: cannot append, the store disagrees: {'; '.join(different)}"
            )
        self._catch_up()

    def _create(self, codecs: Mapping[str, Codec]) -> None:
        """Make the store appear whole: build it aside, then rename; if another writer was first,
        join theirs.
        """
        import zarr  # 0.3 s, and only a new store needs it

        target = self.path.resolve()  # a rename would not follow a link to an empty folder
        aside = target.parent / f".{target.name}.{uuid4().hex}"
        try:
            zarr.create_group(aside, zarr_format=3, attributes=to_attributes(self.info, codecs))
            (aside / "parts").mkdir()
            (aside / "commits").mkdir()
            sync(aside / "zarr.json", aside)
            with suppress(FileExistsError, NotADirectoryError):
                _rename(aside, target)
            sync(target.parent)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._join()

    def _refused(self, error: OSError) -> DataError:
        return DataError(
            f"{error.filename or self.path}: cannot write ({error.strerror}); make room or choose another path, then "
            f"import again: what was committed is kept"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if not target.exists():
            raise
        raise FileExistsError(str(target)) from error  # ENOTEMPTY: the other writer's store


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_names(info: StoreInfo) -> None:
    for name in info.cameras:
        if not re.fullmatch(NAME, name):
            raise DataError(
                f"camera '{name}': a camera's name is made of letters, digits, '_', '-' and '.'; rename it"
            )


def check_episode(episode: Episode, info: StoreInfo) -> None:
    """Raise DataError, naming episode, frame and dimension, if an episode is not what the info
    promises.
    """
    where = f"episode {episode.id!r}"
    for what in ("id", "task", "instruction"):
        _check_text(getattr(episode, what), f"{where}, {what}")
    if len(episode) == 0:
        raise DataError(f"{where}: has no frames; leave it out")
    if set(episode.images) != set(info.cameras):
        raise DataError(
            f"{where}: cameras {sorted(episode.images)}, expected {sorted(info.cameras)}"
        )
    for name, camera in info.cameras.items():
        _check_array(
            episode.images[name],
            (len(episode), camera.height, camera.width, 3),
            "uint8",
            f"{where}, '{name}'",
        )
    for what, array, names in (
        ("actions", episode.actions, info.action.names),
        ("proprio", episode.proprio, info.proprio),
    ):
        _check_array(array, (len(episode), len(names)), "float32", f"{where}, {what}")
        if not np.isfinite(array).all():
            frame, dimension = np.argwhere(~np.isfinite(array))[0]
            value = array[frame, dimension]
            raise DataError(
                f"{where}, frame {frame}: {what} '{names[dimension]}' is {value}; mend or leave it out"
            )
    if set(episode.features) != set(info.features):
        raise DataError(
            f"{where}: features {sorted(episode.features)}, expected {sorted(info.features)}"
        )
    for name, feature in info.features.items():
        _check_feature(episode.features[name], feature, len(episode), where, name)


def _check_feature(array: np.ndarray, feature: Feature, length: int, where: str, name: str) -> None:
    """Raise DataError for another shape or type, and for numbers that are not finite where none may
    lack.
    """
    _check_array(array, (length, *feature.shape), feature.dtype, f"{where}, feature '{name}'")
    if array.dtype.kind == "f" and feature.meaning not in SPARSE and not np.isfinite(array).all():
        frame, *place = np.argwhere(~np.isfinite(array))[0].tolist()
        value = array[(frame, *place)]
        raise DataError(
            f"{where}, frame {frame}: feature '{name}' {place} is {value}; mend or leave it out"
        )
    if feature.meaning == "text":
        try:
            decode_text(array)
        except DataError as error:
            raise DataError(f"{where}, feature '{name}', {error}") from None


def _check_text(text: str, where: str) -> None:
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise DataError(f"{where}: {text!r} is empty; write one or leave the episode out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {text[:60]!r} is no valid Unicode ({error.reason}); write it again"
        ) from error


def _check_array(array: np.ndarray, shape: tuple[int, ...], dtype: str, where: str) -> None:
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(f"{where}: {array.dtype} {array.shape}, expected {dtype} {shape}")
