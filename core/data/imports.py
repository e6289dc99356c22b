"""A source's episodes into a store: read in parallel, kept in the source's order, whatever interrupts it."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from core.data.codecs import Codec
from core.data.contracts import EpisodeSource, StoreInfo
from core.data.part import EncodedEpisode
from core.data.store import EpisodeStore
from core.data.writer import PART_BYTES, StoreWriter, check_episode
from core.errors import DataError, JoineryError
from core.processes import serve_the_parent

MakeSource = Callable[[], EpisodeSource]
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
    make: MakeSource,
    out: Path,
    progress: Callable[[int, int], None],
    *,
    jobs: int = 1,
    skip_bad: bool = False,
    part_bytes: int = PART_BYTES,
) -> Summary:
    """Append a source's episodes to a store, without those that it has already.

    make: builds the source, here and in each of `jobs` processes. progress: called with (done, total) after each
    episode. skip_bad: go on past damaged episodes. part_bytes: as in StoreWriter. Raises DataError if an episode is
    damaged or the store's conventions are not the source's. However it ends, the episodes before are committed, and the
    same call goes on from there.
    """
    source = make()
    if not (ids := source.ids()):
        raise DataError("the source holds no episodes; name another file or folder")
    with StoreWriter(out, source.info, part_bytes) as writer:
        missing = [episode for episode in ids if episode not in writer.committed]
        before, skipped = len(ids) - len(missing), {}
        outcomes = _encoded(make, source, writer, missing, jobs)
        try:
            for done, (episode, outcome) in enumerate(outcomes, before + 1):
                if isinstance(outcome, EncodedEpisode):
                    writer.append_encoded(outcome)
                elif skip_bad:
                    skipped[episode] = str(outcome)
                else:
                    raise outcome
                progress(done, len(ids))
        except BaseException:
            writer.commit()  # before waiting for processes to end
            raise
        finally:
            outcomes.close()
        writer.commit()
        codecs = {camera: _explain(writer, camera) for camera in source.info.cameras} if writer.codecs else {}
    return _summary(out, len(missing) - len(skipped), codecs, skipped)


def _summary(out: Path, added: int, codecs: Mapping[str, str], skipped: Mapping[str, str]) -> Summary:
    if not codecs:
        raise DataError(f"none of the {len(skipped)} episodes can be read; the first: {next(iter(skipped.values()))}")
    store = EpisodeStore(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, len(store), store.frame_count, size, codecs, skipped)


def _explain(writer: StoreWriter, camera: str) -> str:
    """Say which codec a camera has, and why where this writer chose it."""
    assert writer.codecs is not None
    chosen, tried = writer.codecs[camera], writer.tried.get(camera, {})
    others = [f"{codec.name} takes {size / 1e3:.1f}" for codec, size in tried.items() if codec != chosen]
    return f"{chosen.name}, {tried[chosen] / 1e3:.1f} KB a frame ({', '.join(others)})" if others else chosen.name


def _encoded(
    make: MakeSource, source: EpisodeSource, writer: StoreWriter, episodes: Sequence[str], jobs: int
) -> Generator[tuple[str, Outcome], None, None]:
    """Yield each episode with what became of it, in order; the first good one is encoded here and chooses codecs."""
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
        yield from _in_parallel((make, source.info, writer.codecs), remaining, jobs)


# ---------------------------------------------------------------------------------------------- several processes

_Context = tuple[MakeSource, StoreInfo, Mapping[str, Codec]]


def _in_parallel(context: _Context, remaining: deque[str], jobs: int) -> Iterator[tuple[str, Outcome]]:
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
        unread = [episode for episode, future in running if not (future.done() and future.exception() is None)]
        raise DataError(
            f"a process that reads episodes has died, at one of {', '.join(unread)}: out of memory? What was read "
            "before is kept; import again, with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """One reading process: its source or why there is none, and what it checks and encodes by."""

    source: EpisodeSource | JoineryError
    info: StoreInfo
    codecs: Mapping[str, Codec]

    @classmethod
    def start(cls, make: MakeSource, info: StoreInfo, codecs: Mapping[str, Codec]) -> None:
        serve_the_parent()
        cls.info, cls.codecs = info, codecs
        try:
            cls.source = make()
        except JoineryError as error:
            cls.source = error

    @classmethod
    def encode(cls, episode: str) -> Outcome:
        if isinstance(cls.source, JoineryError):
            return DataError(str(cls.source))
        try:
            read = cls.source.read(episode)
            check_episode(read, cls.info)
            return EncodedEpisode.of(read, cls.codecs)
        except DataError as error:
            return error
