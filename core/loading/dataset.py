"""A dataset: one store as the policy sees it, and the normalisers fitted to the store."""

from dataclasses import dataclass

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.loading.view import StoreView


@dataclass(frozen=True)
class Dataset:
    """One store, viewed as the policy sees it, and the normalisers fitted to it.

    label: the dataset's name if a policy is trained on several datasets; the ids of the dataset's
        episodes and the names of its tasks begin with this label. Empty for a single dataset.
    """

    view: StoreView
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer
    label: str = ""

    def episode_id(self, episode: int) -> str:
        """Return an episode's id, unique among all datasets."""
        return self._unique(self.view.store.episode_id(episode))

    def task_name(self, episode: int) -> str:
        """Return the name of an episode's task, unique among all datasets."""
        return self._unique(self.view.store.task_name(episode))

    def _unique(self, name: str) -> str:
        return f"{self.label}/{name}" if self.label else name
