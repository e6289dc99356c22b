"""Writes an episode store: episodes are appended in immutable segments and never changed."""

from collections.abc import Mapping
from dataclasses import replace
from errno import EEXIST, ENOTDIR, ENOTEMPTY
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np

from core.episodes.episode import SPARSE, Episode, Feature, StoreInfo
from core.episodes.frames import Images
from core.episodes.text import decode_text
from core.errors import DataError
from core.store.attributes import differences, read_attributes, to_attributes
from core.store.codecs import Codec, Cost, choose_codec, feature_codec, try_codecs
from core.store.edits import edited_info
from core.store.layout import Commit, publish, read_commits, segment_folder, stream_paths
from core.store.segment import EncodedEpisode, PendingSegment
from core.system.files import remove, sync, written_aside
from core.system.links import refuse_links_out

# a segment is committed when its encoded frames reach this number of bytes
SEGMENT_BYTES = 64 * 2**20


class StoreWriter:
    """Appends episodes to a new or existing store; several writers may share a store.

    The store is created when it gets its first episode. That episode decides the codec of each
    camera. All episodes of a segment become visible together, when the segment is committed. A
    segment is committed when it reaches `segment_bytes`, when `commit()` is called, and at the end
    of the `with` block. If the `with` block raises an exception, episodes that are not committed
    yet are dropped.

    info: what all episodes have in common, for example the cameras and the frame rate.
    committed: the ids of the committed episodes, including those of other writers.
    codecs: {camera or feature: codec}; None until the store has an episode.
    codec_costs: {camera: {codec: cost}} if this writer chose the codecs; otherwise empty.

    Raises DataError if the store exists and its info differs from `info`, if a link in the store
    leads out of it, or if `path` is a broken link.
    """

    def __init__(self, path: Path, info: StoreInfo, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path = path
        self.info = replace(info, cameras=dict(info.cameras), features=dict(info.features))
        self.committed: set[str] = set()
        self.codecs: Mapping[str, Codec] | None = None
        self.codec_costs: Mapping[str, Mapping[Codec, Cost]] = {}
        self._segment_bytes = segment_bytes
        self._commits = 0  # number of commits that this writer has read or published
        self._pending: PendingSegment | None = None
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{path}: a link to '{path.readlink()}', which does not exist; remove the link or "
                "correct it"
            )
        is_empty_folder = path.is_dir() and not any(path.iterdir())
        if path.exists() and not is_empty_folder:
            self._join()

    def append(self, episode: Episode) -> None:
        """Add one episode.

        Raises DataError, which names the episode and the frame, if the episode does not match the
        info.
        """
        self.append_encoded(self.encode(episode))

    def encode(self, episode: Episode) -> EncodedEpisode:
        """Check and encode an episode without adding it.

        The first episode of a store decides the codecs.
        """
        check_episode(episode, self.info)
        if self.codecs is None:
            self.codec_costs = {
                name: try_codecs(episode.images[name]) for name in self.info.cameras
            }
            cameras = {name: choose_codec(costs) for name, costs in self.codec_costs.items()}
            features = {
                name: feature_codec(feature) for name, feature in self.info.features.items()
            }
            self._create(cameras | features)
        assert self.codecs is not None
        return EncodedEpisode.of(episode, self.codecs)

    def append_encoded(self, episode: EncodedEpisode) -> None:
        """Add one encoded episode.

        It must have been checked and encoded by `encode`, with the codecs of this writer.
        """
        pending = self._pending or PendingSegment(stream_paths(self.info))
        if episode.id in self.committed or episode.id in {other.id for other in pending.episodes}:
            raise DataError(
                f"{self.path}: episode '{episode.id}' is there already; give each episode an id of "
                "its own"
            )
        self._pending = pending
        pending.append(episode)
        if pending.size >= self._segment_bytes:
            self.commit()

    def commit(self) -> None:
        """Publish the episodes appended so far.

        Raises DataError if writing fails; in that case, the store holds none of these episodes.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        folder = segment_folder(self.path, uuid4().hex)
        try:
            self._publish(pending.write(folder))
        except BaseException as error:
            # if Ctrl-C came right after the commit was published, the segment must stay
            new_commits = read_commits(self.path, self._commits)
            if not any(commit.segment == folder.name for commit in new_commits):
                remove(folder)
            if isinstance(error, OSError):
                raise self._write_error(error) from error
            raise
        self.committed.update(episode.id for episode in pending.episodes)

    def _publish(self, commit: Commit) -> None:
        """Publish a commit under the next free index.

        Raises DataError if another writer has added one of the commit's episodes.
        """
        while True:
            self._read_new_commits()
            if duplicates := self.committed.intersection(commit.episodes):
                raise DataError(
                    f"{self.path}: another writer has just added episode '{min(duplicates)}'; "
                    "import again"
                )
            if publish(self.path, self._commits, commit):
                self._commits += 1
                return

    def _read_new_commits(self) -> None:
        """Read the commits that other writers have published since this writer last looked."""
        for commit in read_commits(self.path, self._commits):
            self.committed.update(commit.episodes)
            self._commits += 1

    def _join(self) -> None:
        """Read the codecs and commits of an existing store, to append to that store."""
        refuse_links_out(self.path, descend=())
        _, self.codecs, _ = read_attributes(self.path)
        if disagreements := differences(self.info, edited_info(self.path)):
            raise DataError(
                f"{self.path}: cannot append, the store disagrees: {'; '.join(disagreements)}; "
                "correct it with joinery edit, or what you add, or import into a new store"
            )
        self._read_new_commits()

    def _create(self, codecs: Mapping[str, Codec]) -> None:
        """Create the store, or join it if another writer has created it in the meantime."""
        # imported here because the import takes 0.3 s, and only creating a store needs zarr
        import zarr

        # resolved because a rename does not follow a symbolic link to an empty folder
        target = self.path.resolve()
        try:
            with written_aside(target, durable=True) as folder:
                zarr.create_group(
                    folder, zarr_format=3, attributes=to_attributes(self.info, codecs)
                )
                (folder / "parts").mkdir()
                (folder / "commits").mkdir()
        except OSError as error:
            # if the folder is not empty, it can only be a store that another writer has created
            # meanwhile
            if error.errno not in (ENOTEMPTY, EEXIST, ENOTDIR) or not target.exists():
                raise self._write_error(error) from error
            sync(target.parent)
        self._join()

    def _write_error(self, error: OSError) -> DataError:
        return DataError(
            f"{error.filename or self.path}: cannot write ({error.strerror}); make room or choose "
            "another path, then import again: what was committed is kept"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()


def check_episode(episode: Episode, info: StoreInfo) -> None:
    """Raise DataError if an episode does not match the info.

    The error names the episode, the frame and the dimension.
    """
    where, length = f"episode {episode.id!r}", len(episode)
    for name in ("id", "task", "instruction"):
        _check_text(getattr(episode, name), f"{where}, {name}")
    if length == 0:
        raise DataError(f"{where}: has no frames; leave it out")
    if set(episode.images) != set(info.cameras):
        raise DataError(
            f"{where}: cameras {sorted(episode.images)}, expected {sorted(info.cameras)}"
        )
    for name, camera in info.cameras.items():
        shape = (length, camera.height, camera.width, 3)
        _check_array(episode.images[name], shape, "uint8", f"{where}, '{name}'")
    for name, array, dimensions in (
        ("actions", episode.actions, info.action.names),
        ("proprio", episode.proprio, info.proprio),
    ):
        _check_array(array, (length, len(dimensions)), "float32", f"{where}, {name}")
        if not np.isfinite(array).all():
            frame, d = np.argwhere(~np.isfinite(array))[0]
            raise DataError(
                f"{where}, frame {frame}: {name} '{dimensions[d]}' is {array[frame, d]}; correct "
                "or leave it out"
            )
    if set(episode.features) != set(info.features):
        raise DataError(
            f"{where}: features {sorted(episode.features)}, expected {sorted(info.features)}"
        )
    for name, feature in info.features.items():
        _check_feature(name, episode.features[name], feature, length, where)


def _check_feature(name: str, array: np.ndarray, feature: Feature, length: int, where: str) -> None:
    """Raise DataError for a wrong shape or type, numbers that are not finite, or invalid text.

    Features whose meaning is in SPARSE may hold numbers that are not finite.
    """
    _check_array(array, (length, *feature.shape), feature.dtype, f"{where}, feature '{name}'")
    if array.dtype.kind == "f" and feature.meaning not in SPARSE and not np.isfinite(array).all():
        frame, *index = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(
            f"{where}, frame {frame}: feature '{name}' {index} is {array[(frame, *index)]}; "
            "correct or leave it out"
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


def _check_array(array: Images, shape: tuple[int, ...], dtype: str, where: str) -> None:
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(f"{where}: {array.dtype} {array.shape}, expected {dtype} {shape}")
