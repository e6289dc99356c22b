"""Objects of an object store or a web server: read whole or in ranges, many at once, through a
cache on this machine.

The library obstore does the talking: credentials and endpoints come from the environment variables
that each service's own tools know, and what may pass (a dropped connection, a 5xx answer, a silent
server) is tried again.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from core.errors import DataError
from core.store.cache import Cache
from core.system.optional_imports import import_optional

IN_FLIGHT = 64  # requests at once, for one store
BLOCK = (
    2**18
)  # bytes: what ranges are rounded to, so that overlapping ones share what the cache holds
RUN = 4  # neighbouring blocks that one request may ask for
CLIENT = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),  # without a byte
    "timeout": timedelta(minutes=10),  # of a whole request
    "allow_http": True,  # where the address, or that of the endpoint, says so
}
RETRIES = {
    "max_retries": 8,  # with pauses that double, about half a minute
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
    "retry_timeout": timedelta(minutes=2),
}
STORES = {"s3": "S3Store", "gs": "GCSStore", "http": "HTTPStore", "https": "HTTPStore"}
T = TypeVar("T")
R = TypeVar("R")

_process: list[int] = []  # the one in which obstore's threads run


class Objects:
    """The objects below one URL, by their keys.

    Thread-safe; a pickled copy makes its own connections. Reading raises FileNotFoundError for an
    object that is not there, and DataError, naming the object, for whatever else is wrong. Raises
    ConfigError where obstore is missing.
    """

    def __init__(self, url: str, cache: Cache, in_flight: int = IN_FLIGHT) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        self.in_flight = in_flight
        self._obstore = import_optional("obstore", extra="cloud")
        self._store = _connect(url)
        self._pool = ThreadPoolExecutor(in_flight, "objects")

    @property
    def can_list(self) -> bool:
        """Whether the service says which objects it has; a web server does not."""
        return not self.url.startswith("http")

    def read(self, key: str) -> bytes:
        """A whole object as it is now."""
        return self._ask(key, lambda: bytes(self._obstore.get(self._store, key).bytes()))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes start..stop-1 of an object as they are now."""
        data = self._ask(
            key, lambda: bytes(self._obstore.get_range(self._store, key, start=start, end=stop))
        )
        if len(data) < stop - start:
            raise DataError(
                f"{self.url}/{key}: cut off after {start + len(data)} bytes; restore the object"
            )
        return data

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """A whole object as it is now, in pieces of at least `size` bytes but for the last."""
        pieces = iter(self._ask(key, lambda: self._obstore.get(self._store, key).stream(size)))
        while (piece := self._ask(key, lambda: next(pieces, None))) is not None:
            yield bytes(piece)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self._ask(key, lambda: self._obstore.head(self._store, key))
        except FileNotFoundError:
            return False
        return True

    def keys(self, folder: str) -> list[str]:
        """The keys in a folder, in order; only where `can_list`."""
        return sorted(entry["path"] for page in self._list(folder) for entry in page)

    def copy(self, key: str) -> Path:
        """A file of the cache that holds the whole object, fetched unless it is there."""
        name = f"{self.url}/{key}"
        return self.cache.find(name) or self.cache.write(name, self.read(key))

    def drop_copy(self, key: str) -> bool:
        """Forget the cache's copy of a whole object; False if there is none."""
        return self.cache.drop(f"{self.url}/{key}")

    def submit(self, read: Callable[..., R], *arguments: Any) -> Future[R]:
        """Call a function that reads and waits for no other, as soon as fewer than `in_flight` of
        them run.
        """
        _raise_if_forked(self.url)
        return self._pool.submit(read, *arguments)

    def each(self, read: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
        """Call a function that reads on each argument, many at once."""
        futures = [self.submit(read, argument) for argument in arguments]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()  # where one has failed, the others need not start

    def _list(self, folder: str, tries: int = 3) -> Any:
        try:
            return self._ask(folder, lambda: [*self._obstore.list(self._store, folder)])
        except DataError as error:  # obstore itself does not try again where a listing is cut off
            if tries == 1 or "response body" not in str(error):
                raise
            return self._list(folder, tries - 1)

    def _ask(self, key: str, call: Callable[[], R]) -> R:
        _raise_if_forked(self.url)
        try:
            return call()
        except (OSError, ValueError, self._obstore.exceptions.BaseError) as error:
            raise _explained(f"{self.url}/{key}", error) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.cache, self.in_flight)


class BlockReader:
    """One object of `size` bytes, read in blocks that the cache keeps; those on their way are not
    asked for twice.
    """

    def __init__(self, objects: Objects, key: str, size: int) -> None:
        self._objects = objects
        self._key = key
        self._size = size
        self._coming: dict[
            int, Future[dict[int, bytes]]
        ] = {}  # by block; a request brings a run of them
        self._lock = Lock()

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start..stop-1; what the cache lacks is fetched, all at once."""
        parts = {
            n: slice(max(start - n * BLOCK, 0), min(stop - n * BLOCK, BLOCK))
            for n in _blocks(start, stop)
        }
        cached = {
            n: self._objects.cache.read(self._name(n), self._length(n), part)
            for n, part in parts.items()
        }
        coming = self._request([n for n, data in cached.items() if data is None])
        return b"".join(
            coming[n].result()[n][parts[n]] if data is None else data for n, data in cached.items()
        )

    def prepare(self, start: int, stop: int) -> None:
        """Begin to fetch what the cache lacks of bytes start..stop-1, and wait for nothing."""
        cache = self._objects.cache
        self._request(
            [
                number
                for number in _blocks(start, stop)
                if not cache.place(self._name(number)).exists()
            ]
        )

    def drop(self, start: int, stop: int) -> None:
        """Forget the cache's copies of bytes start..stop-1."""
        for number in _blocks(start, stop):
            self._objects.cache.drop(self._name(number))

    def _request(self, missing: Sequence[int]) -> dict[int, Future[dict[int, bytes]]]:
        with self._lock:
            for run in _runs([number for number in missing if number not in self._coming]):
                self._coming |= dict.fromkeys(run, self._objects.submit(self._fetch, run))
            return {number: self._coming[number] for number in missing}

    def _fetch(self, run: range) -> dict[int, bytes]:
        """Fetch neighbouring blocks with one request, into the cache."""
        try:
            data = self._objects.read_range(
                self._key, run.start * BLOCK, min(run.stop * BLOCK, self._size)
            )
            blocks = {n: data[(n - run.start) * BLOCK : (n + 1 - run.start) * BLOCK] for n in run}
            for number, block in blocks.items():
                self._objects.cache.write(self._name(number), block)
            return blocks
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename}: {error.strerror}; restore it or import again"
            ) from None
        finally:
            with self._lock:
                for number in run:
                    del self._coming[number]

    def _name(self, number: int) -> str:
        return f"{self._objects.url}/{self._key} {number} x {BLOCK}"

    def _length(self, number: int) -> int:
        return min((number + 1) * BLOCK, self._size) - number * BLOCK


def _blocks(start: int, stop: int) -> range:
    """The blocks that hold bytes start..stop-1."""
    return range(start // BLOCK, -(-stop // BLOCK)) if start < stop else range(0)


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Rising numbers as runs of neighbours, at most RUN long."""
    first = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - first == RUN:
            yield range(numbers[first], numbers[at - 1] + 1)
            first = at


# ------------------------------------------------------------------------------------------ obstore


def _connect(url: str) -> Any:
    """Return obstore's client for a URL, set up from the environment; nothing is asked of the
    service yet.
    """
    scheme, _, place = url.partition("://")
    if scheme not in STORES:
        raise DataError(
            f"{url}: cannot read '{scheme}://'; known: {', '.join(f'{name}://' for name in STORES)}"
        )
    if not place.strip("/"):
        raise DataError(f"{url}: names no bucket or server; check the address")
    _raise_if_forked(url)
    store, exceptions = (
        import_optional(f"obstore.{name}", extra="cloud") for name in ("store", "exceptions")
    )
    try:
        return getattr(store, STORES[scheme]).from_url(
            url.rstrip("/"), client_options=CLIENT, retry_config=RETRIES
        )
    except (ValueError, OSError, exceptions.BaseError) as error:
        line = str(error).partition("\n")[0]
        raise DataError(f"{url}: {line}; check the address and the environment") from None


def _raise_if_forked(url: str) -> None:
    """The threads of obstore stay behind in a fork, and its requests would wait for them for ever."""
    if not _process:
        _process.append(os.getpid())
    if os.getpid() not in _process:
        raise DataError(
            f"{url}: cannot be read in a forked process; start processes by 'spawn' or 'forkserver'"
        )


def _explained(where: str, error: Exception) -> Exception:
    """What obstore says, in one line."""
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    return DataError(f"{where}: {_reason(type(error).__name__, str(error))}")


def _reason(kind: str, text: str) -> str:
    """What is wrong, and what to do."""
    if "NoSuchBucket" in text:
        return "there is no such bucket; check the address"
    if kind == "NotSupportedError":
        return "the server does not answer range requests; use one that does, nginx for example"
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return (
            "no permission; check the credentials in the environment, AWS_ACCESS_KEY_ID for example"
        )
    if (
        "/latest/api/token" in text or "/computeMetadata/" in text
    ):  # asked last: this machine, were it in the cloud
        return "no credentials; put them into the environment, or AWS_SKIP_SIGNATURE=true where none are needed"
    return f"cannot be read ({text.splitlines()[0]}); check the address and the network"
