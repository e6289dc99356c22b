"""Tells whether a store holds a source's episodes already, or others of the same names.

Many formats number their episodes, so two datasets have the same names for different episodes. An
episode is the same if its actions and its proprioception are the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from core.episodes.episode import Episode
from core.episodes.spread import spread_evenly
from core.errors import DataError
from core.formats.contracts import EpisodeSource
from core.store.store import EpisodeStore

# At most this many episodes are compared; they are spread evenly over those that have a name in
# common with the store.
COMPARED = 4


def choose_prefix(source: EpisodeSource, ids: Sequence[str], store: EpisodeStore, name: str) -> str:
    """Return what to put in front of a source's ids, so that they name its episodes alone.

    It is empty if the store holds none of the ids, or holds the source's own episodes under them.
    Otherwise the store has episodes of another source under these ids, and the prefix is "name/".

    Raises DataError if the source's episodes have other ids than when they were imported, or if the
    store holds other episodes under the prefixed ids, too.
    """
    index_of = {store.episode_id(episode): episode for episode in range(len(store))}
    others = _differing(source, ids, store, {e: index_of.get(e) for e in ids})
    if not others:
        return ""
    prefix = f"{name}/"
    prefixed = {e: index_of.get(prefix + e) for e in ids}
    was_imported = any(index is not None for index in prefixed.values())
    if was_imported and not _differing(source, ids, store, prefixed):
        return prefix
    for episode in others:
        if (index := _find(episode, store)) is not None:
            raise DataError(
                f"{store.path}: holds this source's episode '{episode.id}' as "
                f"'{store.episode_id(index)}', so the source was renumbered after it was "
                "imported; import it into a new store"
            )
    if was_imported:
        raise DataError(
            f"{store.path}: holds other episodes called {prefix}...; rename the source's folder, "
            "or import it into a new store"
        )
    return prefix


def _differing(
    source: EpisodeSource,
    ids: Sequence[str],
    store: EpisodeStore,
    index_of: Mapping[str, int | None],
) -> list[Episode]:
    """Return some of the source's episodes that are others than those of their names in the store.

    index_of: {id of the source: index in the store of the episode with that name, if any}.
    """
    common = [name for name in ids if index_of[name] is not None]
    differing, compared, first_error = [], 0, None
    some = [common[index] for index in spread_evenly(len(common), COMPARED)]
    for name in [*some, *common]:
        if compared == min(COMPARED, len(common)):
            break
        try:
            episode = source.read(name)
        except DataError as error:
            first_error = first_error or error
            continue
        compared += 1
        index = index_of[name]
        if index is not None and not _is_at(episode, store, index):
            differing.append(episode)
    if first_error and not compared:
        raise DataError(
            f"{store.path}: holds episodes of the same names, and whether they are this source's "
            f"cannot be told: none of them can be read here ({first_error}); repair the source, "
            "or import it into a new store"
        )
    return differing


def _find(episode: Episode, store: EpisodeStore) -> int | None:
    """Return the index at which a store holds an episode; None if it does not hold it.

    Episodes in which nothing moves may be alike by chance, and are not searched for.
    """
    if np.ptp(episode.actions, axis=0).max(initial=0) == 0:
        return None
    candidates = np.flatnonzero(store.length == len(episode)).tolist()
    return next((index for index in candidates if _is_at(episode, store, index)), None)


def _is_at(episode: Episode, store: EpisodeStore, index: int) -> bool:
    """Return whether the store's episode with this index has the same numbers."""
    length = int(store.length[index])
    return (
        len(episode) == length
        and np.array_equal(episode.actions, store.actions(index, 0, length))
        and np.array_equal(episode.proprio, store.proprio(index, 0, length))
    )
