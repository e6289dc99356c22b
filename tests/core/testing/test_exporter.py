"""Contract tests of exporters: sound ones pass, each broken one fails its checks."""

import numpy as np
import pytest

from core.episodes import Episode, Feature
from core.formats import dump_info, load_info
from core.testing import Setup
from tests.core.testing.failing import assert_fails, failures

SETUP = Setup(features={"force": Feature((2,), "float32", "force", "N")})


class Arrays:
    """Writes a folder with an .npz file for each episode, and the number of episodes."""

    holds_features = True

    def __init__(self, config, *, info, out):
        self.out, self.count = out, 0
        out.mkdir()
        np.save(out / "info.npy", np.array([dump_info(info)], object))

    def append(self, episode):
        arrays = {f"image {name}": np.asarray(x[:]) for name, x in episode.images.items()}
        arrays |= {f"feature {name}": x for name, x in episode.features.items()}
        words = np.array([episode.id, episode.task, episode.instruction])
        np.savez(
            self.out / f"{self.count}.npz",
            actions=episode.actions,
            proprio=episode.proprio,
            words=words,
            **arrays,
        )
        self.count += 1

    def finish(self):
        (self.out / "count").write_text(str(self.count))

    def close(self):
        pass


class ReadArrays:
    """Reads what `Arrays` wrote."""

    def __init__(self, folder):
        self.folder = folder
        self.info = load_info(np.load(folder / "info.npy", allow_pickle=True)[0], str(folder))

    def ids(self):
        return [str(number) for number in range(int((self.folder / "count").read_text()))]

    def read(self, episode):
        arrays = np.load(self.folder / f"{episode}.npz")
        images = {name: arrays[f"image {name}"] for name in self.info.cameras}
        _, task, instruction = map(str, arrays["words"])
        return Episode(episode, task, instruction, images, arrays["actions"], arrays["proprio"])


class ArraysWithoutFeatures(Arrays):
    holds_features = False

    def append(self, episode):
        assert not episode.features
        super().append(episode)


class ArraysBesideOut(Arrays):
    def finish(self):
        super().finish()
        self.out.with_name("log.txt").write_text("done")


class ArraysLeaveTraces(Arrays):
    def append(self, episode):
        super().append(episode)
        self.out.with_name("cache").touch()

    def finish(self):
        super().finish()
        self.out.with_name("cache").unlink()


class ArraysAreWrittenAtTheEnd(Arrays):
    def finish(self):
        pass

    def close(self):
        super().finish()


class ArraysCannotClose(Arrays):
    """It closes what `finish` alone opens."""

    def finish(self):
        super().finish()
        self.file = (self.out / "count").open()

    def close(self):
        self.file.close()


class ArraysLoseTheFirstFrame(Arrays):
    def append(self, episode):
        super().append(Episode(**{**vars(episode), "actions": episode.actions[1:]}))


class ArraysForgetUmlauts(Arrays):
    def append(self, episode):
        plain = episode.instruction.encode("ascii", "replace").decode()
        super().append(Episode(**{**vars(episode), "instruction": plain}))


class ArraysSwapColours(Arrays):
    def append(self, episode):
        images = {name: x[..., ::-1] for name, x in episode.images.items()}
        super().append(Episode(**{**vars(episode), "images": images}))


class ArraysOfNothing(Arrays):
    def append(self, episode):
        raise KeyError(episode.task)


BROKEN = [
    (ArraysAreWrittenAtTheEnd, {"finish_completes_the_files"}),
    (ArraysLeaveTraces, {"an_interrupted_export_leaves_nothing"}),
    (ArraysCannotClose, {"close_works_without_finish", "an_interrupted_export_leaves_nothing"}),
    (ArraysLoseTheFirstFrame, {"what_was_written_is_read_back"}),
    (ArraysForgetUmlauts, {"what_was_written_is_read_back"}),
    (ArraysSwapColours, {"what_was_written_is_read_back"}),
]


@pytest.mark.parametrize("build", [Arrays, ArraysWithoutFeatures])
def test_a_sound_exporter_passes_every_check(build):
    assert not failures("exporter", build, setup=SETUP, read=ReadArrays)


@pytest.mark.parametrize(("build", "expected"), BROKEN)
def test_a_broken_exporter_fails_the_checks_of_its_rule(build, expected):
    assert_fails("exporter", build, expected, setup=SETUP, read=ReadArrays, others_too=False)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (ArraysOfNothing, "append('task_0/0'): expected no error, received KeyError: 'task_0'"),
        (ArraysBesideOut, "what is written: expected "),
    ],
)
def test_an_exporter_that_cannot_write_fails_one_check_that_says_why(build, message):
    errors = failures("exporter", build, setup=SETUP)
    assert list(errors) == ["builds_and_writes"]
    assert str(errors["builds_and_writes"]).startswith(message)


def test_without_a_reader_nothing_is_compared():
    assert not failures("exporter", ArraysSwapColours)
