"""A source's episodes into a store: read in parallel, kept in the source's order, whatever
interrupts it.
"""

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import DataError
from core.formats.contracts import EpisodeSource
from core.store.codecs import Codec
from core.store.segment import EncodedEpisode
from core.store.store import EpisodeStore
from core.store.writer import SEGMENT_BYTES, StoreWriter, check_episode
from core.system.processes import set_up_worker_process
from core.system.strict import one_line

Outcome = EncodedEpisode | DataError


@dataclass(frozen=True)
class Summary:
    """What a store holds after an import.

    added, episodes, frames: episodes imported just now; episodes and frames in all.
    bytes: size of all files.
    codecs: {camera: its codec, and what the others would have taken where it was chosen just now}.
    skipped: {episode: what is wrong with it}.
    """

    added: int
    episodes: int
    frames: int
    bytes: int
    codecs: Mapping[str, str]
    skipped: Mapping[str, str]


def import_episodes(
    source: EpisodeSource,
    out: Path,
    progress: Callable[[int, int], None],
    *,
    jobs: int = 1,
    skip_bad: bool = False,
    segment_bytes: int = SEGMENT_BYTES,
) -> Summary:
    """Append a source's episodes to a store, without those that it has already.

    jobs: processes that read, each from a copy of the source. progress: called with (done, total)
    after each episode.
    skip_bad: go on past damaged episodes; the next call tries them again. segment_bytes: as in
    StoreWriter. Raises DataError if an episode is damaged or the store's conventions are not the
    source's. However it ends, the episodes before are committed, and the same call goes on from
    there.
    """
    if not (ids := source.ids()):
        raise DataError("the source holds no episodes; name another file or folder")
    with StoreWriter(out, source.info, segment_bytes) as writer:
        missing = [episode for episode in ids if episode not in writer.committed]
        before, skipped = len(ids) - len(missing), {}
        outcomes = _encoded(source, writer, missing, jobs)
        try:
            for done, (episode, outcome) in enumerate(outcomes, before + 1):
                if isinstance(outcome, EncodedEpisode):
                    writer.append_encoded(outcome)
                elif skip_bad:
                    skipped[episode] = str(outcome)
                else:
                    raise _with_name(episode, outcome)
                progress(done, len(ids))
        except BaseException:
            writer.commit()  # before waiting for processes to end
            raise
        finally:
            outcomes.close()
        writer.commit()
        codecs = (
            {camera: _explain(writer, camera) for camera in source.info.cameras}
            if writer.codecs
            else {}
        )
    return _summary(out, len(missing) - len(skipped), codecs, skipped)


def _with_name(episode: str, error: DataError) -> DataError:
    """The error, in which the episode is named also where its source names only the file."""
    return error if episode in str(error) else DataError(f"episode {episode!r}: {error}")


def _summary(
    out: Path, added: int, codecs: Mapping[str, str], skipped: Mapping[str, str]
) -> Summary:
    if not codecs:
        raise DataError(
            f"none of the {len(skipped)} episodes can be read; the first: {next(iter(skipped.values()))}"
        )
    store = EpisodeStore(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, len(store), store.frame_count, size, codecs, skipped)


def _explain(writer: StoreWriter, camera: str) -> str:
    """Say which codec a camera has, and why where this writer chose it."""
    assert writer.codecs is not None
    chosen, tried = writer.codecs[camera], writer.tried.get(camera, {})
    if chosen not in tried:
        return str(chosen)
    others = [f"{codec} takes {cost}" for codec, cost in tried.items() if codec != chosen]
    return f"{chosen}, {tried[chosen]} ({', '.join(others)})"


def _encoded(
    source: EpisodeSource, writer: StoreWriter, episodes: Sequence[str], jobs: int
) -> Generator[tuple[str, Outcome], None, None]:
    """Yield each episode with what became of it, in order; the first good one is encoded here and
    chooses codecs.
    """
    remaining = deque(episodes)
    while remaining and (jobs == 1 or writer.codecs is None):
        episode = remaining.popleft()
        try:
            read = source.read(episode)
            check_episode(read, writer.info)
        except DataError as error:
            yield episode, error
        else:
            yield episode, writer.encode(read)
    if remaining:
        assert writer.codecs is not None
        with TemporaryDirectory(prefix="joinery-") as folder:
            yield from _in_parallel(
                (_pickled(source, Path(folder)), writer.codecs), remaining, jobs
            )


# -------------------------------------------------------------------------------- several processes

_Context = tuple[Path, Mapping[str, Codec]]


def _pickled(source: EpisodeSource, folder: Path) -> Path:
    """A file that holds the source: processes that got it through a pipe would start one after
    another.
    """
    file = folder / "source.pickle"
    try:
        content = pickle.dumps(source)
    except Exception as error:  # noqa: BLE001 - a stranger's environment may fail in any way
        said = f"{type(source).__name__} cannot be sent to other processes ({one_line(error)})"
        raise DataError(f"{said}; import with --jobs 1") from None
    file.write_bytes(content)
    return file


def _in_parallel(
    context: _Context, remaining: deque[str], jobs: int
) -> Iterator[tuple[str, Outcome]]:
    running: deque[tuple[str, Future[Outcome]]] = deque()
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _Worker.start, context)
    try:
        while remaining or running:
            while remaining and len(running) < 2 * jobs:
                running.append((remaining[0], pool.submit(_Worker.encode, remaining[0])))
                remaining.popleft()
            yield running[0][0], running[0][1].result()
            running.popleft()
    except BrokenProcessPool:
        unread = [
            episode
            for episode, future in running
            if not (future.done() and future.exception() is None)
        ]
        raise DataError(
            f"a process that reads episodes has died, at one of {', '.join(unread)}: out of memory? What was read "
            "before is kept; import again, with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """One reading process: its copy of the source, and the codecs that it encodes by."""

    source: EpisodeSource
    codecs: Mapping[str, Codec]

    @classmethod
    def start(cls, pickled: Path, codecs: Mapping[str, Codec]) -> None:
        set_up_worker_process()
        cls.source, cls.codecs = pickle.loads(pickled.read_bytes()), codecs

    @classmethod
    def encode(cls, episode: str) -> Outcome:
        try:
            read = cls.source.read(episode)
            check_episode(read, cls.source.info)
            return EncodedEpisode.of(read, cls.codecs)
        except DataError as error:
            return error
