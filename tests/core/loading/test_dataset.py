"""Names of episodes and tasks: the store's own, or unique among several datasets."""

from dataclasses import replace

from core.store.store import EpisodeStore
from tests.mixtures import make_member


def test_a_dataset_alone_keeps_the_names_of_its_store(store: EpisodeStore) -> None:
    dataset = make_member(store, 2, 2).dataset
    assert dataset.episode_id(3) == store.episode_id(3)
    assert dataset.task_name(3) == store.task_name(3)


def test_a_label_tells_the_names_of_several_datasets_apart(store: EpisodeStore) -> None:
    dataset = replace(make_member(store, 2, 2).dataset, label="lab")
    assert dataset.episode_id(3) == f"lab/{store.episode_id(3)}"
    assert dataset.task_name(3) == f"lab/{store.task_name(3)}"
