"""Contract tests of datasets: a sound one passes, each broken one fails its checks."""

import json
from pathlib import Path

import numpy as np
import pytest

from core import DataError
from core.episodes import ActionConvention, Camera, Episode, StoreInfo
from core.testing import checks_for
from tests.core.testing.failing import assert_fails, failures

INFO = StoreInfo(
    fps=10.0,
    cameras={"top": Camera(4, 4)},
    action=ActionConvention(
        ("x", "y"), mode="delta", frame="world", rotation="none", scale=(1.0, 1.0), rate=10.0
    ),
    proprio=("x",),
    origin="made for tests",
)


class Files:
    """One episode in each .json file."""

    def __init__(self, config, *, source):
        self.folder, self.info = source, INFO
        if not source.is_dir():
            raise DataError(f"{source}: no such folder")

    def ids(self):
        return sorted(file.stem for file in self.folder.glob("*.json"))

    def read(self, episode):
        file = self.folder / f"{episode}.json"
        try:
            return self.parse(episode, json.loads(file.read_text()))
        except (ValueError, KeyError) as error:
            raise DataError(f"{file}: damaged ({type(error).__name__})") from None

    def parse(self, episode, content):
        actions = np.array(content["actions"], np.float32)
        images = np.full((len(actions), 4, 4, 3), content["grey"], np.uint8)
        return Episode(episode, "t", "do it", {"top": images}, actions, actions[:, :1].copy())


class FilesAreNumbered(Files):
    """The names follow from the order of reading."""

    def __init__(self, config, *, source):
        super().__init__(config, source=source)
        self.count = 0

    def ids(self):
        self.count += 1
        return [f"{name}{'_' * (self.count > 1)}" for name in super().ids()]

    def read(self, episode):
        return super().read(episode.rstrip("_"))


class FilesTwice(Files):
    def ids(self):
        return [*super().ids(), *super().ids()]


class FilesOfAnotherName(Files):
    def parse(self, episode, content):
        return super().parse(f"file {episode}", content)


class FilesInDoubles(Files):
    def parse(self, episode, content):
        whole = super().parse(episode, content)
        return Episode(**{**vars(whole), "actions": whole.actions.astype(np.float64)})


class FilesInTurn(Files):
    """Reads what comes next, whatever was asked for."""

    def __init__(self, config, *, source):
        super().__init__(config, source=source)
        self.next = 0

    def parse(self, episode, content):
        self.next += 1
        return super().parse(episode, {**content, "grey": self.next})


class FilesInOneBuffer(Files):
    def __init__(self, config, *, source):
        super().__init__(config, source=source)
        self.buffer = np.zeros((5, 2), np.float32)

    def parse(self, episode, content):
        whole = super().parse(episode, content)
        self.buffer[:] = whole.actions
        return Episode(**{**vars(whole), "actions": self.buffer})


class FilesStayOpen(Files):
    def __init__(self, config, *, source):
        super().__init__(config, source=source)
        self.files = (file.open() for file in source.iterdir())


class FilesDoNotSayWhichIsDamaged(Files):
    def read(self, episode):
        file = self.folder / f"{episode}.json"
        try:
            return self.parse(episode, json.loads(file.read_text()))
        except (ValueError, KeyError):
            raise DataError("not an episode") from None


class FilesRaiseAnything(Files):
    def read(self, episode):
        return self.parse(episode, json.loads((self.folder / f"{episode}.json").read_bytes()))


class FilesShowAnAddress(Files):
    def read(self, episode):
        file = self.folder / f"{episode}.json"
        try:
            return super().read(episode)
        except DataError:
            raise DataError(f"{file}: cannot read <_io.BytesIO object at 0x7faf37fe8e00>") from None


class FilesOfNowhere(Files):
    def __init__(self, config, *, source):
        self.folder, self.info = source, INFO


class NoFiles(Files):
    def ids(self):
        return []


class FilesWithoutInfo(Files):
    def __init__(self, config, *, source):
        super().__init__(config, source=source)
        del self.info


BROKEN = [
    (FilesAreNumbered, {"ids_are_stable_and_unique"}),
    (FilesTwice, {"ids_are_stable_and_unique"}),
    (FilesOfAnotherName, {"episodes_fit_info"}),
    (FilesInDoubles, {"episodes_fit_info"}),
    (FilesInTurn, {"reading_depends_on_the_id_alone"}),
    (FilesInOneBuffer, {"reading_depends_on_the_id_alone"}),
    (FilesStayOpen, {"a_pickled_copy_reads_the_same"}),
    (FilesDoNotSayWhichIsDamaged, {"damaged_files_are_named"}),
    (FilesRaiseAnything, {"damaged_files_are_named"}),
    (FilesShowAnAddress, {"damaged_files_are_named"}),
    (FilesOfNowhere, {"a_missing_source_is_named"}),
]
# What these do is so wrong that other checks fail as well.
FAIL_OTHERS_TOO = {FilesAreNumbered, FilesInDoubles, FilesInTurn}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    for number in range(3):
        actions = np.random.default_rng(number).random((5, 2)).tolist()
        content = json.dumps({"actions": actions, "grey": 40 * number})
        (tmp_path / "files" / f"e{number}.json").write_text(content)
    return tmp_path / "files"


def test_a_sound_dataset_passes_every_check(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert not failures("dataset", Files, source=folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_dataset_fails_the_checks_of_its_rule(build, expected, folder):
    others_too = build in FAIL_OTHERS_TOO
    assert_fails("dataset", build, expected, others_too=others_too, source=folder)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (NoFiles, "ids(): expected the episodes of "),
        (FilesWithoutInfo, "info: expected a StoreInfo, received None"),
    ],
)
def test_a_dataset_that_reads_nothing_fails_one_check_that_says_why(build, message, folder):
    errors = failures("dataset", build, source=folder)
    assert list(errors) == ["builds_and_reads"]
    assert str(errors["builds_and_reads"]).startswith(message)


def test_the_damage_and_the_error_are_named(folder):
    errors = failures("dataset", FilesRaiseAnything, source=folder)
    assert str(errors["damaged_files_are_named"]).startswith(
        "'e0.json', cut in half: expected a DataError of one line that names one of "
        "['e0', 'e0.json'], received JSONDecodeError: "
    )


def test_a_source_is_asked_for():
    with pytest.raises(ValueError, match="need `source`, a file or folder that it reads"):
        checks_for("dataset", Files, None)
