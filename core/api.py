"""The Python API, for notebooks and other people's programs."""

from pathlib import Path

from core.store.location import address
from core.store.store import EpisodeStore


def open_store(path: str | Path) -> EpisodeStore:
    """Open an episode store: a folder `name.zarr`, or its URL (s3://, gs://, https://).

    Raises DataError for what is no store, or a damaged one.
    """
    return EpisodeStore(address(path) if isinstance(path, str) else path)
