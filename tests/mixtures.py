"""Stores as mixtures have them; apart from tests/factories.py, since these wait for torch."""

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.loading.mixture import Member
from core.loading.view import StoreView
from core.loading.windows import Windows
from core.store.store import EpisodeStore


def make_member(store: EpisodeStore, window: int, horizon: int) -> Member:
    """All of a store, as it is, as the only member of a mixture."""
    action = Normalizer.fit(store.statistics["action"], store.info.action, "quantile")
    proprio = ProprioNormalizer.fit(store.statistics["proprio"])
    return Member(
        StoreView.plain(store), Windows(store, range(len(store)), window, horizon), action, proprio
    )
