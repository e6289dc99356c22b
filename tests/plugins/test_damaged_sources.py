"""Every format with every damage, by the command: what is wrong is named, skipped when asked, and
made good later.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from core.commands.import_ import main
from core.store.store import EpisodeStore
from tests.damage import corrupt, empty, forbid, make_unreadable, truncate
from tests.factories import contents
from tests.plugins import (
    test_calvin_data as calvin,
    test_diffusion_policy as diffusion_policy,
    test_metaworld_npz as metaworld_npz,
    test_npz as npz,
    test_rlds as rlds,
)

RLDS_SETTINGS = ("fps=3", 'action=["action/world_vector", "action/gripper"]')


def write_npz(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        np.savez_compressed(folder / f"take{number}.npz", **npz.episode(number))
    return folder


def write_metaworld(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "b", "c"):
        np.savez_compressed(folder / f"{name}.npz", **metaworld_npz.recording())
    return folder


def write_robomimic(folder: Path) -> Path:
    robomimic = pytest.importorskip("tests.plugins.test_robomimic")
    folder.mkdir()
    for name in ("a", "b", "c"):
        robomimic.write(folder / f"{name}.hdf5")
    return folder


def write_lerobot(folder: Path) -> Path:
    lerobot = pytest.importorskip("tests.plugins.test_lerobot")
    return Path(shutil.copytree(lerobot.WRITTEN / "v2.1", folder))


def write_rlds(folder: Path) -> Path:
    return rlds.write(folder, (0, 1), (2,), (1, 0))


@dataclass(frozen=True)
class Format:
    """A format's test data.

    write: into a folder that is not there yet. settings: of the import. files: one that the first
    episode needs, and one that later ones need.
    """

    name: str
    write: Callable[[Path], Path]
    settings: tuple[str, ...]
    files: tuple[str, str]


FORMATS = [
    Format("npz", write_npz, ("fps=5",), ("take0.npz", "take1.npz")),
    Format("metaworld_npz", write_metaworld, (), ("a.npz", "b.npz")),
    Format("robomimic", write_robomimic, ("instruction=lift",), ("a.hdf5", "b.hdf5")),
    Format("calvin", calvin.write, (), ("episode_0000100.npz", "episode_0000110.npz")),
    Format(
        "rlds",
        write_rlds,
        RLDS_SETTINGS,
        ("toy-train.tfrecord-00000-of-00003", "toy-train.tfrecord-00001-of-00003"),
    ),
    Format(
        "lerobot",
        write_lerobot,
        (),
        (
            "data/chunk-000/episode_000000.parquet",
            "videos/chunk-000/observation.images.top/episode_000002.mp4",
        ),
    ),
    Format(
        "diffusion_policy",
        lambda folder: diffusion_policy.write(folder),
        ("instruction=push",),
        ("data/img/0.0.0.0", "data/img/2.0.0.0"),
    ),
]
BY_NAME = {form.name: form for form in FORMATS}
FIRST, LATER = (
    (truncate, empty),
    (corrupt, make_unreadable, forbid),
)  # which file each damage befalls
CASES = [
    pytest.param(form, file, damage, id=f"{form.name}-{damage.__name__}")
    for form in FORMATS
    for file, damages in zip(form.files, (FIRST, LATER), strict=True)
    for damage in damages
]


@cache
def healthy(form: Format) -> dict[str, bytes]:
    """What a store holds of a format's test data."""
    with TemporaryDirectory() as folder:
        source, out = form.write(Path(folder) / "source.zarr"), Path(folder) / "out.zarr"
        assert imported(form, source, out) == 0
        return contents(out)


def imported(form: Format, source: Path, out: Path, *options: str) -> int:
    return main([form.name, str(source), str(out), *form.settings, "--jobs", "1", *options])


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(("form", "file", "damage"), CASES)
def test_damage_is_named_skipped_when_asked_and_made_good(
    form: Format,
    file: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out, whole = form.write(tmp_path / "source.zarr"), tmp_path / "out.zarr", healthy(form)
    shutil.copytree(source, tmp_path / "copy")
    damage(source / file)
    capsys.readouterr()

    assert imported(form, source, out) == 1
    (error,) = errors(capsys.readouterr().err)
    assert Path(file).name in error
    before = contents(out) if out.exists() else {}
    assert [*before.items()] == [*whole.items()][: len(before)]

    assert imported(form, source, out, "--skip-bad") == 0
    skipped = capsys.readouterr().out.partition("\nskipped ")[2]
    count, *reasons = skipped.splitlines()
    assert len(reasons) == int(count.rstrip(":")) > 0
    assert all(Path(file).name in reason for reason in reasons)
    found = contents(out)
    assert before.keys() <= found.keys()
    assert 0 < len(found) < len(whole)
    assert all(whole[episode] == content for episode, content in found.items())

    shutil.rmtree(source)
    shutil.copytree(tmp_path / "copy", source)
    assert imported(form, source, out, "--skip-bad") == 0
    assert "\nskipped " not in capsys.readouterr().out
    assert contents(out) == whole


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_damaged_altogether(
    form: Format, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = form.write(tmp_path / "source.zarr"), tmp_path / "out.zarr"
    for file in (path for path in source.rglob("*") if path.is_file()):
        empty(file)
    assert imported(form, source, out, "--skip-bad") == 1
    assert len(errors(capsys.readouterr().err)) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("npz", "action=front", "take0.npz: array 'front' holds pictures, and numbers are needed"),
        (
            "npz",
            'cameras={top="angle"}',
            "array 'angle' holds numbers, and pictures are needed; known: bright",
        ),
        (
            "npz",
            'proprio=["instruction"]',
            "array 'instruction' holds text, and numbers are needed",
        ),
        (
            "robomimic",
            'proprio=["agentview_image"]',
            "observation 'agentview_image' holds pictures, and numbers",
        ),
        (
            "robomimic",
            'cameras={top="robot0_eef_pos"}',
            "a.hdf5, demo_0: observation 'robot0_eef_pos' holds numbers",
        ),
        (
            "rlds",
            'action=["observation/image"]',
            "features.json: feature 'observation/image' holds pictures",
        ),
        (
            "rlds",
            "instruction=observation/state",
            "feature 'observation/state' holds numbers, and text",
        ),
        (
            "lerobot",
            "action=observation.images.top",
            "info.json: feature 'observation.images.top' holds pictures",
        ),
        (
            "lerobot",
            'cameras={top="action"}',
            "holds numbers, and pictures are needed; known: observation.images.t",
        ),
        (
            "diffusion_policy",
            "action=img",
            "source.zarr: array 'img' holds pictures, and numbers are needed; known: action",
        ),
        (
            "diffusion_policy",
            'cameras={top="actio"}',
            "there is no array 'actio'; did you mean 'action'?",
        ),
    ],
)
def test_wrongly_mapped(
    name: str, setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, out = BY_NAME[name], tmp_path / "out.zarr"
    source = form.write(tmp_path / "source.zarr")
    kept = [pair for pair in form.settings if pair.partition("=")[0] != setting.partition("=")[0]]
    assert main([form.name, str(source), str(out), *kept, setting, "--skip-bad"]) == 2
    (error,) = errors(capsys.readouterr().err)
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize(
    "content", [{"action": np.zeros((3, 3))}, {"front": npz.episode(0)["front"]}]
)
def test_a_first_file_that_lacks_something_is_no_mistake_in_the_settings(
    content: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, out = BY_NAME["npz"], tmp_path / "out.zarr"
    source = form.write(tmp_path / "source.zarr")
    np.savez(source / "take0.npz", **content)
    assert imported(form, source, out) == 1
    assert "take0.npz: has no array" in capsys.readouterr().err
    assert imported(form, source, out, "--skip-bad") == 0
    assert "skipped 1:\n  take0: " in capsys.readouterr().out
    assert contents(out) == {name: x for name, x in healthy(form).items() if name != "take0"}


def test_a_damaged_file_among_many_in_several_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = BY_NAME["robomimic"]
    source, out = form.write(tmp_path / "source.zarr"), tmp_path / "out.zarr"
    truncate(source / "b.hdf5")
    options = [form.name, str(source), str(out), *form.settings, "--jobs", "2"]
    assert main(options) == 1
    assert "b.hdf5: cannot be read" in capsys.readouterr().err
    assert len(EpisodeStore(out)) == 3
    assert main([*options, "--skip-bad"]) == 0
    assert "skipped 1:\n  b.hdf5: " in capsys.readouterr().out
    assert len(EpisodeStore(out)) == 6
