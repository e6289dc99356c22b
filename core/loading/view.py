"""A store as a policy sees it: under the policy's names, in its conventions, at its rate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from PIL import Image

from core.episodes.conventions import Conversion, incompatibilities, merge_conventions
from core.episodes.episode import Camera, Feature, StoreInfo
from core.episodes.statistics import Statistics
from core.errors import DataError, did_you_mean
from core.store.store import EpisodeStore

ROWS = 2**16  # of actions, whose statistics are taken at once


@dataclass(frozen=True)
class StoreView:
    """An opened store, read in the terms of `info`.

    info: what the policy sees: cameras, features, proprioception, convention of actions, frames per
    second.
    cameras: {the policy's name: the store's}, without those that the store lacks.
    conversion: of actions; its period is how many of the store's frames one of the policy's takes.
    """

    store: EpisodeStore
    info: StoreInfo
    cameras: Mapping[str, str]
    conversion: Conversion

    @classmethod
    def plain(
        cls, store: EpisodeStore, cameras: Sequence[str] = (), features: Sequence[str] = ()
    ) -> Self:
        """See a store as it is; cameras: which of them, all if there are none; features: which of
        those.
        """
        info = common_info([store.info], cameras, features)
        return cls(
            store, info, {name: name for name in info.cameras}, Conversion(info.action, info.action)
        )

    @property
    def period(self) -> int:
        """The store's frames for each of the policy's."""
        return self.conversion.frame_stride

    @cached_property
    def recorded(self) -> Mapping[str, str]:
        """Cameras and features that the store has, {the policy's name: the store's}."""
        theirs = self.store.info.features
        return {**self.cameras, **{name: name for name in self.info.features if name in theirs}}

    @cached_property
    def proprio_columns(self) -> list[int]:
        """Where the store's proprioceptive numbers stand among the policy's."""
        return [self.info.proprio.index(name) for name in self.store.info.proprio]

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of "action" and "proprio" in the policy's terms; reads all actions where they
        are converted.
        """
        known = self.store.statistics
        proprio = known["proprio"].scatter(self.proprio_columns, len(self.info.proprio))
        if (columns := self.conversion.columns) is not None:
            return {
                "action": known["action"].scatter(columns, self.info.action.dim),
                "proprio": proprio,
            }
        measured = list(self._measured())
        if not measured:
            raise DataError(
                f"{self.store.path}: no episode has {self.period} frames, which make one of the policy's"
            )
        return {"action": Statistics.merge(measured), "proprio": proprio}

    def _measured(self) -> Iterator[Statistics]:
        """Statistics of the converted actions, some ten thousand at a time."""
        converted: list[np.ndarray] = []
        for episode, length in enumerate(self.store.length.tolist()):
            if length < self.period:
                continue
            actions = self.store.actions(episode, 0, length)
            spans = np.lib.stride_tricks.sliding_window_view(actions, self.period, axis=0).swapaxes(
                1, 2
            )
            try:
                converted.append(self.conversion(spans))
            except ValueError as error:  # a quaternion of length zero
                where = f"{self.store.path}: episode '{self.store.episode_id(episode)}'"
                raise DataError(
                    f"{where}: its actions hold no rotation: {error}; import it again"
                ) from None
            if sum(map(len, converted)) >= ROWS:
                yield Statistics.of(np.concatenate(converted))
                converted = []
        if converted:
            yield Statistics.of(np.concatenate(converted))

    def actions(self, episodes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Actions from frames (n K) of episodes (n) on, each over one period -> (n K A) float32."""
        if self.conversion.is_identity:
            return self.store.gather("action", episodes, frames)
        last = self.store.length[episodes][:, None, None] - 1
        spans = np.minimum(frames[..., None] + np.arange(self.period), last)  # (n K period)
        read = self.store.gather("action", episodes, spans.reshape(len(frames), -1))
        return self.conversion(read.reshape(-1, self.period, read.shape[-1])).reshape(
            *frames.shape, -1
        )

    def proprio(self, episodes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Proprioception at frames (n K) of episodes (n) -> (n K P) float32; 0 where the store has
        no such number.
        """
        read = self.store.gather("proprio", episodes, frames)
        if self.store.info.proprio == self.info.proprio:
            return read
        placed = np.zeros((*frames.shape, len(self.info.proprio)), np.float32)
        placed[..., self.proprio_columns] = read
        return placed

    def prepare(self, places: Iterable[tuple[int, int]], count: int) -> None:
        """Begin to fetch `count` frames of all that is read, from each (episode, start) on; nothing
        if local.
        """
        self.store.prepare(list(self.recorded.values()), places, (count - 1) * self.period + 1)

    def read_frames(self, name: str, episode: int, start: int, out: np.ndarray) -> None:
        """Decode frames start, start + period ... of a camera or a feature that the store has.

        name: the policy's. out: (n Y X C) uint8, resized where the policy's are smaller; of a
        feature (n *shape).
        """
        own = self.recorded[name]
        if name in self._unchanged:
            self.store.read_frames(own, episode, start, start + len(out), out)
            return
        if name in self._of_one_size:
            self._decode(own, episode, start, out)
            return
        recorded = self.store.info.cameras[own]
        frames = np.empty((len(out), recorded.height, recorded.width, 3), np.uint8)
        self._decode(own, episode, start, frames)
        for resized, frame in zip(out, frames, strict=True):
            resized[...] = resize(frame, self.info.cameras[name])

    @cached_property
    def _unchanged(self) -> frozenset[str]:
        """Cameras and features whose frames are the store's own, by size and rate."""
        return self._of_one_size if self.period == 1 else frozenset()

    @cached_property
    def _of_one_size(self) -> frozenset[str]:
        """Cameras and features whose frames are as large as the policy's."""
        cameras, theirs = self.store.info.cameras, self.info.cameras
        resized = {name for name, own in self.cameras.items() if cameras[own] != theirs[name]}
        return frozenset(self.recorded.keys() - resized)

    def _decode(self, name: str, episode: int, start: int, out: np.ndarray) -> None:
        """Decode frames start, start + period ... of a camera or a feature of the store."""
        if self.period == 1:
            self.store.read_frames(name, episode, start, start + len(out), out)
            return
        if self.store.codecs[name].block_size > 1:  # a group is decoded as a whole in any case
            frames = np.empty(((len(out) - 1) * self.period + 1, *out.shape[1:]), out.dtype)
            self.store.read_frames(name, episode, start, start + len(frames), frames)
            out[:] = frames[:: self.period]
            return
        for i in range(len(out)):
            frame = start + i * self.period
            self.store.read_frames(name, episode, frame, frame + 1, out[i : i + 1])


def resize(frame: np.ndarray, camera: Camera) -> np.ndarray:
    """(Y X C) uint8 -> a frame of the camera's size, bilinear and without aliases."""
    size = (camera.width, camera.height)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def rename(info: StoreInfo, cameras: Mapping[str, str], actions: Mapping[str, str]) -> StoreInfo:
    """A store's description under other names, {new: old}; raises DataError for old names that it
    does not have.
    """
    known = {"camera": list(info.cameras), "action": list(info.action.names)}
    for kind, names in (("camera", cameras), ("action", actions)):
        for name in names.values():
            if name not in known[kind]:
                raise DataError(f"{kind}s: no {kind} '{name}'{did_you_mean(name, known[kind])}")
        kept = [name for name in known[kind] if name not in names.values()]
        if len({*names, *kept}) < len(known[kind]) or len({*names.values()}) < len(names):
            raise DataError(
                f"{kind}s: two of {', '.join(known[kind])} would have one name, or one of them two"
            )
    new_camera = {old: new for new, old in cameras.items()}
    new_action = {old: new for new, old in actions.items()}
    try:
        action = replace(
            info.action, names=tuple(new_action.get(name, name) for name in info.action.names)
        )
    except ValueError as error:
        raise DataError(f"actions: {error}") from None
    try:
        return replace(
            info,
            cameras={new_camera.get(name, name): camera for name, camera in info.cameras.items()},
            action=action,
        )
    except ValueError as error:  # a feature has that name
        raise DataError(f"cameras: {error}") from None


def common_info(
    infos: Sequence[StoreInfo], cameras: Sequence[str], features: Sequence[str] = ()
) -> StoreInfo:
    """What a policy sees that is trained on all: the first one's conventions and rate, and what any
    of them has.

    cameras: those to use, all if there are none. features: those to use. A camera's size, and what
    a feature is, are those of the first store that has it. Raises DataError where one name is both.
    """
    every: dict[str, Camera] = {}
    features_of_any: dict[str, Feature] = {}
    for info in infos:
        every = {**info.cameras, **every}
        features_of_any = {**info.features, **features_of_any}
    wanted = tuple(cameras) or tuple(sorted(every))
    proprio = tuple(dict.fromkeys(name for info in infos for name in info.proprio))
    action = merge_conventions([info.action for info in infos])
    chosen = {name: every[name] for name in wanted if name in every}
    read = {name: features_of_any[name] for name in features if name in features_of_any}
    try:
        return replace(
            infos[0], cameras=chosen or every, action=action, proprio=proprio, features=read
        )
    except ValueError as error:
        raise DataError(f"features: {error}") from None


def view_of(
    store: EpisodeStore,
    renamed: StoreInfo,
    names: Mapping[str, str],
    info: StoreInfo,
    turning: tuple[str, ...],
) -> StoreView:
    """See a store as `info`; raises DataError, a line per reason, where that cannot be exact.

    renamed: its description under the policy's names. names: its cameras, {new: old}, as far as
    they differ. turning: the policy's action dimensions that turn.
    """
    ratio = renamed.fps / info.fps
    reasons = list(incompatibilities(renamed.action, info.action, ratio, turning))
    reasons += [
        f"feature '{name}': is {renamed.features[name]}, the policy's is {feature}; leave out the feature or the store"
        for name, feature in info.features.items()
        if renamed.features.get(name, feature) != feature
    ]
    if reasons:
        raise DataError("\n".join(reasons))
    seen = {name: names.get(name, name) for name in renamed.cameras if name in info.cameras}
    if not seen:
        raise DataError(f"cameras: has none of {', '.join(info.cameras)}; name them in `cameras`")
    return StoreView(
        store, info, seen, Conversion(renamed.action, info.action, round(ratio), turning)
    )
