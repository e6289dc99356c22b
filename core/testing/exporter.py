"""Contract tests of exporters, which write episodes in another format."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.episodes.episode import (
    ActionConvention,
    Camera,
    Episode,
    Feature,
    Gripper,
    StoreInfo,
)
from core.episodes.text import encode_text
from core.errors import DataError
from core.formats.contracts import EpisodeSink, EpisodeSource
from core.formats.exporting import export_episodes
from core.registry.hookspecs import Build
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from core.testing.common import Check, Setup, attempt, expect, first_then

ReadBack = Callable[[Path], EpisodeSource]

LENGTHS = (6, 9, 7)
NUMBERS = 1e-5  # largest difference of numbers that are read back, for text of six decimals
GREY_LEVELS = 8.0  # mean difference of images that are read back, for lossy codecs


@dataclass(frozen=True)
class Writing:
    """The exporter under test, and what it is given to write.

    read: opens what was written, as a dataset; None if nothing can.
    """

    build: Build
    config: Any
    info: StoreInfo
    read: ReadBack | None

    @property
    def holds_features(self) -> bool:
        """Whether the format can hold named features."""
        return bool(getattr(self.build, "holds_features", False))

    @property
    def given_info(self) -> StoreInfo:
        """What the exporter is told about the episodes."""
        return self.info if self.holds_features else replace(self.info, features={})

    @property
    def episodes(self) -> list[Episode]:
        """The episodes to write."""
        return [_episode(number, self.given_info) for number in range(len(LENGTHS))]

    def make(self, out: Path) -> EpisodeSink:
        """Build the exporter."""
        sink: EpisodeSink = self.build(self.config, info=self.given_info, out=out)
        return sink


def checks(build: Build, config: Any, setup: Setup, read: ReadBack | None) -> list[Check]:
    """Return the checks of an exporter."""
    writing = Writing(build, config, _info(setup), read)

    def run(test: Callable[[Writing, Path], None]) -> None:
        with TemporaryDirectory() as folder:
            test(writing, Path(folder))

    tests = (
        finish_completes_the_files,
        close_works_without_finish,
        an_interrupted_export_leaves_nothing,
        what_was_written_is_read_back,
    )
    return first_then(
        Check("builds_and_writes", partial(run, builds_and_writes)),
        [Check(test.__name__, partial(run, test)) for test in tests],
    )


def builds_and_writes(writing: Writing, folder: Path) -> None:
    """Episodes can be appended; after `finish` they are at `out`, and nothing is beside it."""
    out = folder / "written"
    sink = attempt("build", "an exporter", partial(writing.make, out))
    for episode in writing.episodes:
        attempt(f"append({episode.id!r})", "no error", partial(sink.append, episode))
    attempt("finish()", "no error", sink.finish)
    attempt("close() after finish()", "no error", sink.close)
    names = sorted(path.name for path in folder.iterdir())
    expect(names == ["written"], "what is written", f"{out}", f"{names} in {folder}")


def finish_completes_the_files(writing: Writing, folder: Path) -> None:
    """After `finish` all files are whole: `close` adds nothing to them."""
    out = folder / "written"
    with closing(writing.make(out)) as sink:
        for episode in writing.episodes:
            sink.append(episode)
        sink.finish()
        finished = _files(out)
    changed = sorted(name for name, content in _files(out).items() if content != finished.get(name))
    expect(not changed, "files that `close` changes after `finish`", "none", ", ".join(changed))


def close_works_without_finish(writing: Writing, folder: Path) -> None:
    """`close` is called after an error, too: at the beginning, and between two episodes."""
    for count in (0, 1):
        sink = writing.make(folder / f"written_{count}")
        for episode in writing.episodes[:count]:
            sink.append(episode)
        attempt(f"close() after {count} episodes, without finish()", "no error", sink.close)


def an_interrupted_export_leaves_nothing(writing: Writing, folder: Path) -> None:
    """If an export ends with an error, nothing of it remains, neither at `out` nor beside it."""
    with StoreWriter(folder / "store.zarr", writing.info) as writer:
        for number in range(len(LENGTHS)):
            writer.append(_episode(number, writing.info))

    def stop_at_the_second(done: int, _: int) -> None:
        if done == 2:
            raise DataError("stopped by the test")

    def export() -> None:
        with suppress(DataError):
            export_episodes(
                EpisodeStore(folder / "store.zarr"),
                partial(writing.build, writing.config),
                folder / "place" / "written",
                stop_at_the_second,
                holds_features=writing.holds_features,
            )

    attempt("close() after an error", "no error", export)
    left = sorted(path.name for path in (folder / "place").rglob("*"))
    expect(not left, "what remains of an interrupted export", "nothing", ", ".join(left))


def what_was_written_is_read_back(writing: Writing, folder: Path) -> None:
    """The dataset `read` gives the episodes back, in their order.

    Numbers may differ by rounding, and images by what a lossy codec changes.
    """
    if writing.read is None:
        return
    with _written(writing, folder / "written") as out:
        dataset = attempt("read(out)", "a dataset", partial(writing.read, out))
        ids = list(dataset.ids())
        expect(len(ids) == len(LENGTHS), "episodes read back", f"{len(LENGTHS)}", f"{len(ids)}")
        for name, expected in zip(ids, writing.episodes, strict=True):
            received = attempt(f"read({name!r})", "an Episode", partial(dataset.read, name))
            _expect_alike(received, expected, f"episode {expected.id!r} read back as {name!r}")


# --------------------------------------------------------------------------------------------------


@contextmanager
def _written(writing: Writing, out: Path) -> Iterator[Path]:
    """Write all episodes to `out`."""
    with closing(writing.make(out)) as sink:
        for episode in writing.episodes:
            sink.append(episode)
        sink.finish()
    yield out


def _files(out: Path) -> dict[str, bytes]:
    """Return the contents of a file, or of all files in a folder."""
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {str(file.relative_to(out.parent)): file.read_bytes() for file in files}


def _expect_alike(received: Episode, expected: Episode, what: str) -> None:
    same = received.instruction == expected.instruction
    expect(same, f"instruction of {what}", repr(expected.instruction), repr(received.instruction))
    for name in ("actions", "proprio"):
        numbers, wanted = getattr(received, name), getattr(expected, name)
        fits = numbers.shape == wanted.shape and bool(np.allclose(numbers, wanted, atol=NUMBERS))
        expect(fits, f"{name} of {what}", f"the same {wanted.shape}", f"others {numbers.shape}")
    cameras = sorted(expected.images)
    expect(sorted(received.images) == cameras, f"cameras of {what}", f"{cameras}", "others")
    for name, images in expected.images.items():
        again = np.asarray(received.images[name][:])
        expect(
            again.shape == images.shape, f"'{name}' of {what}", f"{images.shape}", f"{again.shape}"
        )
        difference = float(np.abs(again.astype(float) - np.asarray(images[:])).mean())
        limit = f"at most {GREY_LEVELS:g} grey levels"
        expect(
            difference <= GREY_LEVELS, f"difference of '{name}' of {what}", limit, f"{difference}"
        )


def _info(setup: Setup) -> StoreInfo:
    """Return a store's description with the cameras, dimensions and features of a setup."""
    dim = setup.action.dim
    return StoreInfo(
        fps=10.0,
        cameras={name: Camera(rows, columns) for name, (_, rows, columns) in setup.cameras.items()},
        action=ActionConvention(
            tuple(f"a{d}" for d in range(dim)),
            mode="delta",
            frame="base",
            rotation="none",
            scale=(1.0,) * dim,
            rate=10.0,
            grippers=tuple(Gripper(d, "binary", -1.0, 1.0) for d in setup.action.binary),
        ),
        proprio=tuple(f"p{d}" for d in range(setup.proprio_dim)),
        origin="made for contract tests",
        features=setup.features,
    )


def _episode(number: int, info: StoreInfo) -> Episode:
    """Return an episode; its contents depend on the number alone."""
    generator, length = np.random.default_rng(number), LENGTHS[number]
    actions = generator.uniform(-1, 1, (length, info.action.dim)).astype(np.float32)
    for gripper in info.action.grippers:
        actions[:, gripper.dimension] = np.where(actions[:, gripper.dimension] > 0, 1, -1)
    return Episode(
        id=f"task_{number % 2}/{number}",
        task=f"task_{number % 2}",
        instruction=f"do task {number % 2}, näherungsweise",
        images={name: _images(length, camera, number) for name, camera in info.cameras.items()},
        actions=actions,
        proprio=generator.normal(size=(length, len(info.proprio))).astype(np.float32),
        features={name: _feature(length, feature) for name, feature in info.features.items()},
    )


def _images(length: int, camera: Camera, number: int) -> np.ndarray:
    """Return images (n Y X 3) of smooth colours that move, which lossy codecs keep well."""
    frames = np.arange(length)[:, None, None]
    rows, columns = np.arange(camera.height)[:, None], np.arange(camera.width)
    red = rows * 2 + 10 * frames + 0 * columns
    green = columns * 2 + 10 * frames + 0 * rows
    blue = 0 * (rows + columns) + 40 * number + 5 * frames
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def _feature(length: int, feature: Feature) -> np.ndarray:
    """Return values (n, *shape) of a feature."""
    if feature.meaning == "text":
        return encode_text([f"frame {t}" for t in range(length)], feature.shape[0])
    steps = np.arange(length).reshape(-1, *[1] * len(feature.shape))
    return np.broadcast_to(steps % 2, (length, *feature.shape)).astype(feature.dtype)
