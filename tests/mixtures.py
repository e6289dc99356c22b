"""Datasets and members of mixtures; apart from tests/factories.py, which does not import torch."""

from collections.abc import Sequence
from dataclasses import replace

from core.episodes.episode import Gripper, StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.renaming import NewNames
from core.loading.dataset import Dataset
from core.loading.mixture import Member
from core.loading.view import StoreView, common_info, view_of
from core.loading.windows import Windows
from core.store.store import EpisodeStore
from tests.factories import STILL, make_info

# the second of two stores under the names of the first: {the policy's name: the store's name}
CAMERAS, ACTIONS = {STILL: "side"}, {"gripper": "grip"}
FLIPPED = Gripper(3, "binary", closed=1.0, open=-1.0)


def make_member(store: EpisodeStore, window: int, horizon: int) -> Member:
    """Make the only member of a mixture: all of a store, as it is."""
    action = Normalizer.fit(store.statistics["action"], store.info.action, "quantile")
    proprio = ProprioNormalizer.fit(store.statistics["proprio"])
    windows = Windows(store, range(len(store)), window, horizon)
    return Member(Dataset(StoreView.plain(store), action, proprio), windows)


def other_info() -> StoreInfo:
    """A larger, renamed camera, a reversed gripper, one more dimension, less proprioception."""
    info = make_info(cameras=("side",), size=40, proprio=2)
    action = replace(
        info.action,
        names=("x", "y", "z", "grip", "w"),
        scale=(0.02, 0.02, 0.04, 1.0, 1.0),
        grippers=(FLIPPED,),
    )
    return replace(info, action=action)


def views_of(stores: Sequence[EpisodeStore]) -> list[StoreView]:
    """View a store and one with `other_info` as a policy sees them that is trained on both."""
    infos = [stores[0].info, NewNames(CAMERAS, ACTIONS).rename(stores[1].info)]
    common = common_info(infos, ())
    return [
        view_of(store, info, names, common, ())
        for store, info, names in zip(stores, infos, ({}, CAMERAS), strict=True)
    ]
