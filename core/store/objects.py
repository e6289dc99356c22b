"""Objects of an object store or a web server, read whole or in ranges through a local cache.

The library obstore makes the requests. It takes credentials and endpoints from the environment
variables that each service's own tools know, and repeats requests after temporary failures: a
dropped connection, a 5xx answer, a silent server.
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

# maximum number of simultaneous requests to one store
IN_FLIGHT = 64
# number of bytes in a block of the cache; ranges that overlap use the same blocks
BLOCK = 2**18
# maximum number of consecutive blocks that one request fetches
RUN = 4
CLIENT = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),  # maximum time without receiving a byte
    "timeout": timedelta(minutes=10),  # maximum time of a whole request
    "allow_http": True,  # needed if the URL or the endpoint begins with http://
}
RETRIES = {
    # a pause is at most twice as long as the previous one; all pauses together take at most 23 s
    "max_retries": 8,
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

# holds the id of the process in which obstore's threads run; empty until they have been started
_process: list[int] = []


class Objects:
    """All objects whose URLs begin with a given URL; the rest of an object's URL is its key.

    Thread-safe; a pickled copy makes its own connections. Reading raises FileNotFoundError for a
    missing object, and DataError, which names the object, for any other problem. The constructor
    raises ConfigError if obstore is not installed.
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
        """Whether the service can list its objects; a web server cannot."""
        return not self.url.startswith("http")

    def read(self, key: str) -> bytes:
        """Return a whole object, bypassing the cache."""
        return self._ask(key, lambda: bytes(self._obstore.get(self._store, key).bytes()))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1 of an object, bypassing the cache."""
        data = self._ask(
            key, lambda: bytes(self._obstore.get_range(self._store, key, start=start, end=stop))
        )
        if len(data) < stop - start:
            raise DataError(
                f"{self.url}/{key}: cut off after {start + len(data)} bytes; restore the object"
            )
        return data

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """Yield a whole object in pieces of at least `size` bytes; the last may be smaller."""
        pieces = iter(self._ask(key, lambda: self._obstore.get(self._store, key).stream(size)))
        while (piece := self._ask(key, lambda: next(pieces, None))) is not None:
            yield bytes(piece)

    def exists(self, key: str) -> bool:
        """Whether an object exists."""
        try:
            self._ask(key, lambda: self._obstore.head(self._store, key))
        except FileNotFoundError:
            return False
        return True

    def keys(self, folder: str) -> list[str]:
        """Return the keys in a folder, in order; call it only if `can_list` is true."""
        return sorted(entry["path"] for page in self._list(folder) for entry in page)

    def copy(self, key: str) -> Path:
        """Return the cache's copy of a whole object; fetch the object first if there is no copy."""
        name = f"{self.url}/{key}"
        return self.cache.find(name) or self.cache.write(name, self.read(key))

    def drop_copy(self, key: str) -> bool:
        """Remove the cache's copy of a whole object; return False if there is no copy."""
        return self.cache.drop(f"{self.url}/{key}")

    def submit(self, read: Callable[..., R], *arguments: Any) -> Future[R]:
        """Call `read` in a thread; the call starts when fewer than `in_flight` others are running.

        `read` must not wait for the result of another `submit`: there might never be a free thread
        for that one.
        """
        _raise_if_forked(self.url)
        return self._pool.submit(read, *arguments)

    def map(self, read: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
        """Return the result of `read` for every argument; many calls run at the same time."""
        futures = [self.submit(read, argument) for argument in arguments]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()  # if one call has failed, the others need not start

    def _list(self, folder: str, tries: int = 3) -> Any:
        try:
            return self._ask(folder, lambda: [*self._obstore.list(self._store, folder)])
        except DataError as error:
            # obstore does not repeat the request if the connection breaks in the middle of a
            # listing
            if tries == 1 or "response body" not in str(error):
                raise
            return self._list(folder, tries - 1)

    def _ask(self, key: str, call: Callable[[], R]) -> R:
        _raise_if_forked(self.url)
        try:
            return call()
        except (OSError, ValueError, self._obstore.exceptions.BaseError) as error:
            raise _translate(f"{self.url}/{key}", error) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.cache, self.in_flight)


class CachedReader:
    """Reads ranges of one object of `size` bytes; the cache keeps the object in blocks.

    A block that is being fetched is not requested a second time.
    """

    def __init__(self, objects: Objects, key: str, size: int) -> None:
        self._objects = objects
        self._key = key
        self.size = size
        # {block: future}; a request fetches a run of blocks, so several blocks may share a future
        self._pending: dict[int, Future[dict[int, bytes]]] = {}
        self._lock = Lock()

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes start..stop-1; blocks that are not in the cache are fetched in parallel."""
        spans = {
            n: slice(max(start - n * BLOCK, 0), min(stop - n * BLOCK, BLOCK))
            for n in _blocks(start, stop)
        }
        cached: dict[int, bytes | None] = {}
        for n, span in spans.items():
            length = min((n + 1) * BLOCK, self.size) - n * BLOCK
            cached[n] = self._objects.cache.read(self._cache_key(n), length, span)
        pending = self._request([n for n, data in cached.items() if data is None])
        return b"".join(
            pending[n].result()[n][spans[n]] if data is None else data for n, data in cached.items()
        )

    def prepare(self, start: int, stop: int) -> None:
        """Begin to fetch blocks of bytes start..stop-1 that are not in the cache; do not wait."""
        cache = self._objects.cache
        blocks = _blocks(start, stop)
        self._request([n for n in blocks if not cache.path_for(self._cache_key(n)).exists()])

    def drop(self, start: int, stop: int) -> None:
        """Remove the cache's copies of the blocks that hold bytes start..stop-1."""
        for number in _blocks(start, stop):
            self._objects.cache.drop(self._cache_key(number))

    def _request(self, missing: Sequence[int]) -> dict[int, Future[dict[int, bytes]]]:
        """Return {missing block: future}.

        A block that is being fetched already is not requested again.
        """
        with self._lock:
            for run in _runs([number for number in missing if number not in self._pending]):
                self._pending |= dict.fromkeys(run, self._objects.submit(self._fetch, run))
            return {number: self._pending[number] for number in missing}

    def _fetch(self, run: range) -> dict[int, bytes]:
        """Fetch neighbouring blocks with one request, and write them into the cache."""
        try:
            stop = min(run.stop * BLOCK, self.size)
            data = self._objects.read_range(self._key, run.start * BLOCK, stop)
            blocks = {n: data[(n - run.start) * BLOCK : (n + 1 - run.start) * BLOCK] for n in run}
            for number, block in blocks.items():
                self._objects.cache.write(self._cache_key(number), block)
            return blocks
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename}: {error.strerror}; restore it or import again"
            ) from None
        finally:
            with self._lock:
                for number in run:
                    del self._pending[number]

    def _cache_key(self, number: int) -> str:
        return f"{self._objects.url}/{self._key} {number} x {BLOCK}"


def _blocks(start: int, stop: int) -> range:
    """Return the indices of the blocks that hold bytes start..stop-1."""
    return range(start // BLOCK, -(-stop // BLOCK)) if start < stop else range(0)


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Group ascending block indices into runs of at most RUN consecutive indices."""
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1 or i - first == RUN:
            yield range(numbers[first], numbers[i - 1] + 1)
            first = i


# ------------------------------------------------------------------------------------------ obstore


def _connect(url: str) -> Any:
    """Return obstore's client for a URL, set up from the environment; makes no request."""
    scheme, _, rest = url.partition("://")
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise DataError(f"{url}: cannot read '{scheme}://'; known: {known}")
    if not rest.strip("/"):
        raise DataError(f"{url}: names no bucket or server; check the address")
    _raise_if_forked(url)
    store = import_optional("obstore.store", extra="cloud")
    exceptions = import_optional("obstore.exceptions", extra="cloud")
    try:
        return getattr(store, STORES[scheme]).from_url(
            url.rstrip("/"), client_options=CLIENT, retry_config=RETRIES
        )
    except (ValueError, OSError, exceptions.BaseError) as error:
        line = str(error).partition("\n")[0]
        raise DataError(f"{url}: {line}; check the address and the environment") from None


def _raise_if_forked(url: str) -> None:
    """Refuse a forked process: it lacks obstore's threads, so requests would wait for ever."""
    if not _process:
        _process.append(os.getpid())
    if os.getpid() not in _process:
        raise DataError(
            f"{url}: cannot be read in a forked process; "
            "start processes with 'spawn' or 'forkserver'"
        )


def _translate(where: str, error: Exception) -> Exception:
    """Return a FileNotFoundError or DataError for an error of obstore.

    The message of a DataError is one line and says what the user can do.
    """
    text, kind = str(error), type(error).__name__
    if "NoSuchBucket" in text:
        reason = "there is no such bucket; check the address"
    elif isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    elif kind == "NotSupportedError":
        reason = "the server does not answer range requests; use one that does, nginx for example"
    elif kind in ("PermissionDeniedError", "UnauthenticatedError"):
        reason = (
            "no permission; check the credentials in the environment, AWS_ACCESS_KEY_ID for example"
        )
    elif "/latest/api/token" in text or "/computeMetadata/" in text:
        # if the environment holds no credentials, obstore asks a server that gives credentials to
        # machines in the cloud; the error comes from this request
        reason = (
            "no credentials; put them into the environment, or AWS_SKIP_SIGNATURE=true where none "
            "are needed"
        )
    else:
        reason = f"cannot be read ({text.splitlines()[0]}); check the address and the network"
    return DataError(f"{where}: {reason}")
