"""Import the episodes of a source into a store, in the order of the source.

Several processes may read and encode episodes, but only the process that runs the import writes the
store. An import that was interrupted continues where it stopped.
"""

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from core.episodes.episode import ActionConvention
from core.errors import DataError
from core.formats.contracts import EpisodeSource
from core.formats.identity import choose_prefix
from core.store.codecs import Codec
from core.store.segment import EncodedEpisode
from core.store.store import EpisodeStore
from core.store.writer import SEGMENT_BYTES, StoreWriter, check_episode
from core.system.processes import core_count, set_up_worker_process, usable_memory
from core.system.strict import one_line

Outcome = EncodedEpisode | DataError
# Usable memory for each process that reads. A process takes at most about half of it: the
# encoded frames of a long episode, and one stretch of its images.
JOB_BYTES = 2**31


@dataclass(frozen=True)
class ImportSummary:
    """What an import did, and what the store holds after it.

    added: number of episodes that this import added.
    prefix: what was put in front of the ids of the source's episodes; usually nothing.
    episodes: number of all episodes in the store.
    frames: number of all frames in the store.
    bytes: size of all files of the store.
    codecs: {camera: text that names the camera's codec}. If this import chose the codec, the text
        also compares the cost of this codec with the costs of the other codecs.
    skipped: {name of a skipped episode: what is wrong with the episode}.
    """

    added: int
    prefix: str
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
    name: str = "more",
    jobs: int = 1,
    skip_bad: bool = False,
    segment_bytes: int = SEGMENT_BYTES,
) -> ImportSummary:
    """Append to a store the episodes of a source that the store does not hold yet.

    name: name of the source; it is put in front of the ids if the store holds episodes of another
        source under them (`choose_prefix`).
    progress: called after each episode with (number of episodes done, number of all episodes).
    jobs: number of processes that read, each from its own copy of the source.
    skip_bad: skip damaged episodes instead of stopping; the next import tries these episodes again.
    segment_bytes: as in StoreWriter.

    Raises DataError if an episode is damaged and `skip_bad` is False, if the store would stay
    empty, or if the source has other conventions than the store. The episodes appended before an
    error are committed, and the same call continues after them.
    """
    if not (ids := source.ids()):
        raise DataError("the source holds no episodes; name another file or folder")
    with StoreWriter(out, source.info, segment_bytes) as writer:
        prefix = _match_with_store(source, ids, out, name) if writer.committed else ""
        missing = [episode for episode in ids if prefix + episode not in writer.committed]
        skipped: dict[str, str] = {}
        outcomes = _encode_episodes(source, writer, missing, jobs)
        try:
            for done, (episode, outcome) in enumerate(outcomes, len(ids) - len(missing) + 1):
                if isinstance(outcome, EncodedEpisode):
                    writer.append_encoded(replace(outcome, id=prefix + episode))
                elif skip_bad:
                    skipped[episode] = str(outcome)
                else:
                    raise _named(outcome, episode, has_others=done > 1)
                progress(done, len(ids))
        except BaseException:
            writer.commit()  # before outcomes.close(), which waits for processes to end
            raise
        finally:
            outcomes.close()
        writer.commit()
        cameras = source.info.cameras if writer.codecs is not None else ()
        codecs = {camera: _explain_codec(writer, camera) for camera in cameras}
    if not codecs:
        first = next(iter(skipped.values()))
        raise DataError(f"none of the {len(skipped)} episodes can be read; the first: {first}")
    store = EpisodeStore(out)
    return ImportSummary(
        added=len(missing) - len(skipped),
        prefix=prefix,
        episodes=len(store),
        frames=store.frame_count,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        codecs=codecs,
        skipped=skipped,
    )


def _match_with_store(source: EpisodeSource, ids: Sequence[str], out: Path, name: str) -> str:
    """Return what to put in front of the ids of a source so that a store can hold both.

    Raises DataError if the store's images, or its episodes, contradict the source's.
    """
    store = EpisodeStore(out)
    _check_assumed(out, store.info.assumed, source.info.assumed)
    return choose_prefix(source, ids, store, name)


def _check_assumed(out: Path, recorded: Mapping[str, str], coming: Mapping[str, str]) -> None:
    """Raise DataError if one of the two assumes what images mean, and the other knows it.

    The numbers of images do not tell, so a store might mix two meanings unnoticed. What is assumed
    about actions is compared by its values.
    """
    conventions = {"fps", *(field.name for field in fields(ActionConvention))}
    for what in (recorded.keys() ^ coming.keys()) - conventions:
        here, there = ("assumed", "known") if what in recorded else ("known", "assumed")
        why = recorded.get(what) or coming[what]
        raise DataError(
            f"{out}: {what} are {here} in this store and {there} of these episodes ({why}); import "
            "into another store, or as before"
        )


def _named(error: DataError, episode: str, *, has_others: bool) -> DataError:
    """Return an error that names the episode, since some name only the file, and a way past it.

    has_others: whether another episode could be read. If not, all may have the same fault.
    """
    where = "" if episode in str(error) else f"episode {episode!r}: "
    way = "; --skip-bad imports the others" if has_others else ""
    return DataError(f"{where}{error}{way}")


def usual_jobs() -> int:
    """Return how many processes read if the user does not say: as cores and memory allow."""
    return max(1, min(core_count(), usable_memory() // JOB_BYTES))


def _explain_codec(writer: StoreWriter, camera: str) -> str:
    """Name a camera's codec; if this import chose the codec, compare the costs of all codecs."""
    assert writer.codecs is not None
    codec, costs = writer.codecs[camera], writer.codec_costs.get(camera, {})
    if codec not in costs:
        return str(codec)
    others = [f"{other} takes {cost}" for other, cost in costs.items() if other != codec]
    return f"{codec}, {costs[codec]} ({', '.join(others)})"


def _encode_episodes(
    source: EpisodeSource, writer: StoreWriter, episodes: Sequence[str], jobs: int
) -> Generator[tuple[str, Outcome], None, None]:
    """Yield, in order, each episode's name with the encoded episode or with its error.

    If `jobs` is 1, this process encodes all episodes. If `jobs` is larger, `jobs` other processes
    encode the episodes. But if the store is new, this process encodes the first readable episode,
    so that the writer can choose the codecs.
    """
    remaining = deque(episodes)
    while remaining and (jobs == 1 or writer.codecs is None):
        name = remaining.popleft()
        try:
            # long images are read while they are encoded, so encoding can find damage, too
            encoded = writer.encode(source.read(name))
        except DataError as error:
            yield name, error
        else:
            yield name, encoded
    if remaining:
        assert writer.codecs is not None
        with TemporaryDirectory(prefix="joinery-") as folder:
            pickled = _pickle_source(source, Path(folder))
            yield from _encode_in_parallel(pickled, writer.codecs, remaining, jobs)


# -------------------------------------------------------------------------------- several processes


def _pickle_source(source: EpisodeSource, folder: Path) -> Path:
    """Write the source to a file, from which each process reads its copy of the source.

    If the source were sent through a pipe to each process, the processes would start one after
    another.
    """
    file = folder / "source.pickle"
    try:
        content = pickle.dumps(source)
    except Exception as error:  # noqa: BLE001 - the source of a plugin can raise anything
        raise DataError(
            f"{type(source).__name__} cannot be sent to other processes ({one_line(error)}); "
            "import with --jobs 1"
        ) from None
    file.write_bytes(content)
    return file


def _encode_in_parallel(
    pickled: Path, codecs: Mapping[str, Codec], remaining: deque[str], jobs: int
) -> Iterator[tuple[str, Outcome]]:
    """Yield what `_encode_episodes` yields; at most two episodes per process are in progress."""
    running: deque[tuple[str, Future[Outcome]]] = deque()
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _Worker.start, (pickled, codecs))
    try:
        while remaining or running:
            while remaining and len(running) < 2 * jobs:
                name = remaining.popleft()
                running.append((name, pool.submit(_Worker.encode, name)))
            name, future = running[0]
            yield name, future.result()
            running.popleft()
    except BrokenProcessPool:
        unread = [
            name for name, future in running if not (future.done() and future.exception() is None)
        ]
        raise DataError(
            f"a process that reads episodes has died, at one of {', '.join(unread)}: "
            "out of memory? What was read before is kept; import again, with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """The state of a process that reads: its copy of the source, and the codecs for encoding."""

    source: EpisodeSource
    codecs: Mapping[str, Codec]

    @classmethod
    def start(cls, pickled: Path, codecs: Mapping[str, Codec]) -> None:
        set_up_worker_process()
        cls.source, cls.codecs = pickle.loads(pickled.read_bytes()), codecs

    @classmethod
    def encode(cls, name: str) -> Outcome:
        try:
            episode = cls.source.read(name)
            check_episode(episode, cls.source.info)
            return EncodedEpisode.of(episode, cls.codecs)
        except DataError as error:
            return error
