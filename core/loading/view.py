"""A store as a policy sees it: with the policy's names, conventions and frame rate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from PIL import Image

from core.episodes.conventions import Conversion, incompatibilities, merge_conventions
from core.episodes.episode import Camera, Feature, StoreInfo
from core.episodes.statistics import Statistics
from core.episodes.units import different_units, units_by_name, units_in_order
from core.errors import DataError
from core.store.store import EpisodeStore

# the statistics of about this many actions are computed at once
ROWS = 2**16


@dataclass(frozen=True)
class StoreView:
    """An open store; its data are converted, when they are read, to what `info` describes.

    info: what the policy sees: cameras, features, proprioception, convention of actions, frames per
        second.
    cameras: {name for the policy: name in the store} of the cameras that the store has.
    conversion: converts the store's actions to the policy's actions.
    """

    store: EpisodeStore
    info: StoreInfo
    cameras: Mapping[str, str]
    conversion: Conversion

    @classmethod
    def plain(
        cls, store: EpisodeStore, cameras: Sequence[str] = (), features: Sequence[str] = ()
    ) -> Self:
        """View a store as it is, with the named cameras (default: all) and features."""
        info = common_info([store.info], cameras, features)
        return cls(
            store, info, {name: name for name in info.cameras}, Conversion(info.action, info.action)
        )

    @property
    def period(self) -> int:
        """Number of the store's frames per frame of the policy."""
        return self.conversion.frame_stride

    @cached_property
    def recorded(self) -> Mapping[str, str]:
        """{name for the policy: name in the store} of the cameras and features in the store."""
        store_features = self.store.info.features
        features = {name: name for name in self.info.features if name in store_features}
        return {**self.cameras, **features}

    @cached_property
    def proprio_columns(self) -> list[int]:
        """For each proprioceptive number of the store, its index in the policy's proprioception."""
        return [self.info.proprio.index(name) for name in self.store.info.proprio]

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Statistics of "action" and "proprio", after their conversion to the policy's form.

        Reads all actions of the store if the conversion changes their numbers. Raises DataError if
        an action cannot be converted, or if every episode is too short for one converted action.
        """
        recorded = self.store.statistics
        proprio = recorded["proprio"].scatter(self.proprio_columns, len(self.info.proprio))
        columns = self.conversion.columns
        if columns is not None:
            action = recorded["action"].scatter(columns, self.info.action.dim)
            return {"action": action, "proprio": proprio}
        blocks = list(self._statistics_of_converted_actions())
        if not blocks:
            raise DataError(
                f"{self.store.path}: no episode has {self.period} frames, "
                "which make one of the policy's; leave the store out, or name it first"
            )
        return {"action": Statistics.merge(blocks), "proprio": proprio}

    def _statistics_of_converted_actions(self) -> Iterator[Statistics]:
        """Convert all actions; yield the statistics of about ROWS actions at a time."""
        actions_so_far: list[np.ndarray] = []
        for episode, length in enumerate(self.store.length.tolist()):
            if length < self.period:
                continue
            actions = self.store.actions(episode, 0, length)
            spans = np.lib.stride_tricks.sliding_window_view(actions, self.period, axis=0)
            spans = spans.swapaxes(1, 2)  # (n period A)
            try:
                actions_so_far.append(self.conversion(spans))
            except ValueError as error:  # raised for a quaternion of length zero
                where = f"{self.store.path}: episode '{self.store.episode_id(episode)}'"
                raise DataError(
                    f"{where}: its actions hold no rotation: {error}; import it again"
                ) from None
            if sum(map(len, actions_so_far)) >= ROWS:
                yield Statistics.of(np.concatenate(actions_so_far))
                actions_so_far = []
        if actions_so_far:
            yield Statistics.of(np.concatenate(actions_so_far))

    def actions(self, episodes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Read the policy's actions at frames (n K) of episodes (n) -> (n K A) float32.

        Each action covers `period` frames of the store; the first of these is the action's frame.
        """
        if self.conversion.is_identity:
            return self.store.gather("action", episodes, frames)
        last = self.store.length[episodes][:, None, None] - 1
        spans = np.minimum(frames[..., None] + np.arange(self.period), last)  # (n K period)
        numbers = self.store.gather("action", episodes, spans.reshape(len(frames), -1))
        actions = self.conversion(numbers.reshape(-1, self.period, numbers.shape[-1]))
        return actions.reshape(*frames.shape, -1)

    def proprio(self, episodes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Read proprioception at frames (n K) of episodes (n) -> (n K P) float32.

        Numbers that the store lacks are 0.
        """
        recorded = self.store.gather("proprio", episodes, frames)
        if self.store.info.proprio == self.info.proprio:
            return recorded
        proprio = np.zeros((*frames.shape, len(self.info.proprio)), np.float32)
        proprio[..., self.proprio_columns] = recorded
        return proprio

    def prepare(self, places: Iterable[tuple[int, int]], count: int) -> None:
        """Begin to fetch `count` frames from each (episode, start); no-op for a local store."""
        self.store.prepare(list(self.recorded.values()), places, (count - 1) * self.period + 1)

    def read_frames(self, name: str, episode: int, start: int, out: np.ndarray) -> None:
        """Decode frames start, start + period ... of a camera or a feature that the store has.

        name: the name of the camera or the feature for the policy.
        out: (n Y X C) uint8 for a camera, whose images are resized if the sizes differ; (n *shape)
            for a feature.
        """
        store_name = self.recorded[name]
        if name not in self._cameras_to_resize:
            self._decode(store_name, episode, start, out)
            return
        camera = self.store.info.cameras[store_name]
        frames = np.empty((len(out), camera.height, camera.width, 3), np.uint8)
        self._decode(store_name, episode, start, frames)
        for resized, frame in zip(out, frames, strict=True):
            resized[...] = resize(frame, self.info.cameras[name])

    @cached_property
    def _cameras_to_resize(self) -> frozenset[str]:
        """The policy's names of the cameras whose images have another size in the store."""
        return frozenset(
            name
            for name, store_name in self.cameras.items()
            if self.store.info.cameras[store_name] != self.info.cameras[name]
        )

    def _decode(self, name: str, episode: int, start: int, out: np.ndarray) -> None:
        """Decode frames start, start + period ... of a camera or feature.

        name: the name of the camera or feature in the store.
        """
        if self.period == 1:
            self.store.read_frames(name, episode, start, start + len(out), out)
            return
        # A block of several frames can only be decoded whole, which includes the skipped frames.
        if self.store.codecs[name].block_size > 1:
            frames = np.empty(((len(out) - 1) * self.period + 1, *out.shape[1:]), out.dtype)
            self.store.read_frames(name, episode, start, start + len(frames), frames)
            out[:] = frames[:: self.period]
            return
        for i in range(len(out)):
            frame = start + i * self.period
            self.store.read_frames(name, episode, frame, frame + 1, out[i : i + 1])


def resize(frame: np.ndarray, camera: Camera) -> np.ndarray:
    """Resize an image (Y X C) uint8 to the camera's size: bilinear, antialiased."""
    size = (camera.width, camera.height)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def common_info(
    infos: Sequence[StoreInfo], cameras: Sequence[str], features: Sequence[str] = ()
) -> StoreInfo:
    """Return what a policy that is trained on several stores sees.

    The policy has the first store's conventions and frame rate. It has the chosen cameras and
    features, and every action dimension and proprioceptive number that at least one store has. The
    size of a camera is taken from the first store that has the camera; the description of a feature
    is taken from the first store that has the feature.

    cameras: names of the cameras to use; default: all.
    features: names of the features to use.

    Raises DataError if a camera and a feature have the same name.
    """
    all_cameras: dict[str, Camera] = {}
    all_features: dict[str, Feature] = {}
    for info in infos:
        all_cameras = {**info.cameras, **all_cameras}
        all_features = {**info.features, **all_features}
    camera_names = tuple(cameras) or tuple(sorted(all_cameras))
    proprio = tuple(dict.fromkeys(name for info in infos for name in info.proprio))
    units: dict[str, str] = {}
    for info in reversed(infos):
        units |= units_by_name(info.proprio, info.proprio_units)
    action = merge_conventions([info.action for info in infos])
    chosen_cameras = {name: all_cameras[name] for name in camera_names if name in all_cameras}
    chosen_features = {name: all_features[name] for name in features if name in all_features}
    try:
        return replace(
            infos[0],
            cameras=chosen_cameras or all_cameras,
            action=action,
            proprio=proprio,
            proprio_units=units_in_order(proprio, units),
            features=chosen_features,
        )
    except ValueError as error:
        raise DataError(f"features: {error}") from None


def view_of(
    store: EpisodeStore,
    source: StoreInfo,
    camera_names: Mapping[str, str],
    info: StoreInfo,
    rotation_dimensions: tuple[str, ...],
) -> StoreView:
    """View a store with the policy's names of cameras and features.

    Actions, proprioception and frames are converted to the policy's conventions and rate.

    source: the store's description, in which cameras and actions have their names for the policy.
    camera_names: {name for the policy: name in the store} of the cameras that were renamed.
    info: what the policy sees.
    rotation_dimensions: names of the policy's action dimensions that are a rotation.

    Raises DataError, with a line for each reason, if the conversion cannot be exact, or if the
    store has none of the policy's cameras.
    """
    ratio = source.fps / info.fps
    reasons = list(incompatibilities(source.action, info.action, ratio, rotation_dimensions))
    for name, feature in info.features.items():
        recorded = source.features.get(name, feature)
        if recorded != feature:
            reasons.append(
                f"feature '{name}': is {recorded}, the policy's is {feature}; "
                "leave out the feature or the store"
            )
    own = units_by_name(source.proprio, source.proprio_units)
    expected = units_by_name(info.proprio, info.proprio_units)
    reasons += [
        f"proprio: '{name}' is in {own[name]}, the policy's is in {expected[name]}; correct its "
        "unit with joinery edit, or record it in that unit"
        for name in different_units(own, expected)
    ]
    if reasons:
        raise DataError("\n".join(reasons))
    cameras = {
        name: camera_names.get(name, name) for name in source.cameras if name in info.cameras
    }
    if not cameras:
        raise DataError(f"cameras: has none of {', '.join(info.cameras)}; name them in `cameras`")
    conversion = Conversion(source.action, info.action, round(ratio), rotation_dimensions)
    return StoreView(store, info, cameras, conversion)
