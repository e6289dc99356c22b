"""Contract tests of datasets, which read episodes in another format."""

import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.episodes.episode import Episode, StoreInfo
from core.errors import ConfigError, DataError
from core.formats.contracts import EpisodeSource
from core.registry.hookspecs import Build
from core.store.writer import check_episode
from core.testing.common import Check, attempt, expect, first_then

MakeSource = Callable[[Path], EpisodeSource]

# number of episodes that are read, and of files that are damaged, one after the other
EPISODES = 4
FILES = 8
DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "overwritten": lambda content: bytes(255 - byte for byte in content),
}
ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")  # of an object in memory


def checks(build: Build, config: Any, source: Path) -> list[Check]:
    """Return the checks of a dataset; `source` is a file or a folder that it reads."""

    def make(path: Path) -> EpisodeSource:
        dataset: EpisodeSource = build(config, source=path)
        return dataset

    tests = (
        ids_are_stable_and_unique,
        episodes_fit_info,
        reading_depends_on_the_id_alone,
        a_pickled_copy_reads_the_same,
        damaged_files_are_named,
        a_missing_source_is_named,
    )
    return first_then(
        Check("builds_and_reads", partial(builds_and_reads, make, source)),
        [Check(test.__name__, partial(test, make, source)) for test in tests],
    )


def builds_and_reads(make: MakeSource, source: Path) -> None:
    """`build(config, source=...)` returns a dataset with `info` and ids; the first can be read."""
    dataset = attempt("build", "a dataset", partial(make, source))
    info = getattr(dataset, "info", None)
    expect(isinstance(info, StoreInfo), "info", "a StoreInfo", repr(info)[:80])
    ids = attempt("ids()", "names of episodes", lambda: list(dataset.ids()))
    expect(bool(ids), "ids()", f"the episodes of {source}", "none")
    first = attempt(f"read({ids[0]!r})", "an Episode", partial(dataset.read, ids[0]))
    received = f"a {type(first).__name__}"
    expect(isinstance(first, Episode), f"read({ids[0]!r})", "an Episode", received)


def ids_are_stable_and_unique(make: MakeSource, source: Path) -> None:
    """`ids` gives different texts, the same ones every time, and before and after reading.

    A resumed import skips the episodes whose ids its store has.
    """
    dataset = make(source)
    ids = list(dataset.ids())
    valid = all(isinstance(name, str) and name.strip() for name in ids)
    expect(valid, "ids()", "texts that are not empty", repr(ids)[:200])
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    expect(not repeated, "ids()", "each id once", f"{repeated} more than once")
    dataset.read(ids[-1])
    for again in (dataset, make(source)):
        same = list(again.ids()) == ids
        expect(same, "ids() called again", repr(ids)[:200], repr(list(again.ids()))[:200])


def episodes_fit_info(make: MakeSource, source: Path) -> None:
    """Episodes have the id that was asked for, and the cameras, shapes and types of `info`."""
    dataset = make(source)
    for name, episode in _episodes(dataset):
        expect(episode.id == name, f"read({name!r}).id", repr(name), repr(episode.id))
        check = partial(check_episode, episode, dataset.info)
        attempt(f"read({name!r})", "an episode as `info` says", check)


def reading_depends_on_the_id_alone(make: MakeSource, source: Path) -> None:
    """An episode is the same every time, in any order; reading others does not change it."""
    dataset = make(source)
    in_order = dict(_episodes(dataset))
    kept = {name: _contents(episode) for name, episode in in_order.items()}
    other = make(source)
    for name in reversed(in_order):
        _expect_same(other.read(name), kept[name], f"read({name!r}), in another order")
        _expect_same(dataset.read(name), kept[name], f"read({name!r}), called again")
    for name, episode in in_order.items():
        _expect_same(episode, kept[name], f"the episode {name!r} after others were read")


def a_pickled_copy_reads_the_same(make: MakeSource, source: Path) -> None:
    """A copy in another process reads the same, also if the original has read before.

    Open files cannot be pickled, so a dataset opens its files in `read`.
    """
    dataset = make(source)
    kept = {name: _contents(episode) for name, episode in _episodes(dataset)}
    content = attempt("pickle.dumps(dataset)", "no error", partial(pickle.dumps, dataset))
    copy: EpisodeSource = pickle.loads(content)
    expect(list(copy.ids()) == list(dataset.ids()), "ids() of a copy", "the same", "others")
    expect(copy.info == dataset.info, "info of a copy", "the same", "another")
    for name, contents in kept.items():
        _expect_same(copy.read(name), contents, f"read({name!r}) of a copy")


def damaged_files_are_named(make: MakeSource, source: Path) -> None:
    """Whatever a file holds: an episode is read, or a DataError names the file or the episode.

    So an import stops with one line, or skips the episode (`--skip-bad`).
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
        for file in _files(copy):
            content = file.read_bytes()
            for damage, change in DAMAGES.items():
                file.write_bytes(change(content))
                _expect_readable_or_named(make, copy, file, f"'{file.name}', {damage}")
            file.write_bytes(content)


def a_missing_source_is_named(make: MakeSource, source: Path) -> None:
    """A source that does not exist is a DataError or a ConfigError that names it."""
    missing = source.with_name(f"no_{source.name}")
    try:
        dataset = make(missing)
        list(_episodes(dataset))
    except Exception as error:  # noqa: BLE001 (a plugin can raise anything)
        _expect_one_line(error, f"'{missing}', which does not exist", {missing.name})
    else:
        received = "a dataset without an error"
        expect(False, f"'{missing}', which does not exist", "a DataError", received)


# --------------------------------------------------------------------------------------------------


def _episodes(dataset: EpisodeSource) -> Iterator[tuple[str, Episode]]:
    """Yield the first episodes with their ids."""
    for name in islice(dataset.ids(), EPISODES):
        yield name, dataset.read(name)


def _contents(episode: Episode) -> dict[str, Any]:
    """Return all fields of an episode; arrays are copied."""
    images = {f"image '{name}'": np.array(x[:]) for name, x in episode.images.items()}
    features = {f"feature '{name}'": np.array(x) for name, x in episode.features.items()}
    numbers = {"actions": np.array(episode.actions), "proprio": np.array(episode.proprio)}
    texts = {"id": episode.id, "task": episode.task, "instruction": episode.instruction}
    return texts | numbers | images | features


def _expect_same(episode: Episode, contents: Mapping[str, Any], what: str) -> None:
    received = _contents(episode)
    others = [
        name
        for name in {**contents, **received}
        if name not in contents
        or name not in received
        or not np.array_equal(received[name], contents[name], equal_nan=_is_float(contents[name]))
    ]
    expect(not others, what, "the same episode", f"another in {', '.join(others)}")


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _files(folder: Path) -> list[Path]:
    """Return some files of a folder, one of each suffix first; or the file itself."""
    if folder.is_file():
        return [folder]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    one_of_each = {file.suffix: file for file in reversed(files)}
    first = sorted(one_of_each.values())
    return [*first, *(file for file in files if file not in first)][:FILES]


def _expect_readable_or_named(make: MakeSource, source: Path, file: Path, damage: str) -> None:
    """Check that each episode of a damaged source is whole, or gives an error of one line."""
    names = {file.name, *(part.name for part in file.relative_to(source.parent).parents)}
    try:
        dataset = make(source)
        ids = list(dataset.ids())
    except Exception as error:  # noqa: BLE001 (a plugin can raise anything)
        _expect_one_line(error, damage, names)
        return
    for name in islice(ids, EPISODES):
        try:
            check_episode(dataset.read(name), dataset.info)
        except Exception as error:  # noqa: BLE001 (a plugin can raise anything)
            _expect_one_line(error, damage, {file.name, name})


def _expect_one_line(error: Exception, where: str, names: set[str]) -> None:
    """Check that an error is a DataError or a ConfigError of one line with one of these names."""
    received = f"{type(error).__name__}: {error}"
    try:
        is_named = any(name in str(error) for name in names if name)
        is_plain = isinstance(error, DataError | ConfigError) and not ADDRESS.search(str(error))
        expected = f"a DataError of one line that names one of {sorted(filter(None, names))}"
        expect(is_named and is_plain and "\n" not in str(error), where, expected, received)
    except AssertionError as failure:
        raise failure from error
