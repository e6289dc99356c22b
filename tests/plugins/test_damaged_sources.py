"""Every format with every kind of damage, imported by the command.

Damage is named, skipped with --skip-bad, and imported later when the file is whole again.
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


def write_hdf5(folder: Path) -> Path:
    hdf5 = pytest.importorskip("tests.plugins.test_hdf5")
    return Path(hdf5.write(folder))


def write_lerobot(folder: Path) -> Path:
    lerobot = pytest.importorskip("tests.plugins.test_lerobot")
    return Path(shutil.copytree(lerobot.DATASETS / "v2.1", folder))


def write_rlds(folder: Path) -> Path:
    return rlds.write(folder, (0, 1), (2,), (1, 0))


@dataclass(frozen=True)
class Format:
    """A format's test data.

    write: writes them into a new folder. settings: of the import. files: one that the first episode
    needs, and one that later episodes need.
    """

    name: str
    write: Callable[[Path], Path]
    settings: tuple[str, ...]
    files: tuple[str, str]


FORMATS = [
    Format("npz", write_npz, ("fps=5",), ("take0.npz", "take1.npz")),
    Format("metaworld_npz", write_metaworld, (), ("a.npz", "b.npz")),
    Format("robomimic", write_robomimic, ("instruction=lift",), ("a.hdf5", "b.hdf5")),
    Format(
        "hdf5",
        write_hdf5,
        ("fps=50", "instruction=open it"),
        ("episode_2.hdf5", "episode_10.hdf5"),
    ),
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
BY_NAME = {format_.name: format_ for format_ in FORMATS}
# kinds of damage to a file that the first episode needs, and to one that later episodes need
DAMAGES_OF_FIRST, DAMAGES_OF_LATER = (truncate, empty), (corrupt, make_unreadable, forbid)
CASES = [
    pytest.param(format_, file, damage, id=f"{format_.name}-{damage.__name__}")
    for format_ in FORMATS
    for file, damages in zip(format_.files, (DAMAGES_OF_FIRST, DAMAGES_OF_LATER), strict=True)
    for damage in damages
]


@cache
def whole_store(format_: Format) -> dict[str, bytes]:
    """The contents of a store that was imported from a format's whole test data."""
    with TemporaryDirectory() as folder:
        source, out = format_.write(Path(folder) / "source.zarr"), Path(folder) / "out.zarr"
        assert run_import(format_, source, out) == 0
        return contents(out)


def run_import(format_: Format, source: Path, out: Path, *options: str) -> int:
    return main([format_.name, str(source), str(out), *format_.settings, "--jobs", "1", *options])


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(("format_", "file", "damage"), CASES)
def test_damage_is_named_skipped_when_asked_and_made_good(
    format_: Format,
    file: str,
    damage: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = format_.write(tmp_path / "source.zarr"), tmp_path / "out.zarr"
    whole = whole_store(format_)
    shutil.copytree(source, tmp_path / "copy")
    damage(source / file)
    capsys.readouterr()

    assert run_import(format_, source, out) == 1
    (error,) = errors(capsys.readouterr().err)
    assert Path(file).name in error
    before = contents(out) if out.exists() else {}
    assert [*before.items()] == [*whole.items()][: len(before)]

    assert run_import(format_, source, out, "--skip-bad") == 0
    skipped = capsys.readouterr().out.partition("\nskipped ")[2]
    count, *reasons = skipped.splitlines()
    assert len(reasons) == int(count.rstrip(":")) > 0
    assert all(Path(file).name in reason for reason in reasons)
    actual = contents(out)
    assert before.keys() <= actual.keys()
    assert 0 < len(actual) < len(whole)
    assert all(whole[episode] == content for episode, content in actual.items())

    shutil.rmtree(source)
    shutil.copytree(tmp_path / "copy", source)
    assert run_import(format_, source, out, "--skip-bad") == 0
    assert "\nskipped " not in capsys.readouterr().out
    assert contents(out) == whole


@pytest.mark.parametrize("format_", FORMATS, ids=lambda format_: format_.name)
def test_damaged_altogether(
    format_: Format, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = format_.write(tmp_path / "source.zarr"), tmp_path / "out.zarr"
    for file in (path for path in source.rglob("*") if path.is_file()):
        empty(file)
    assert run_import(format_, source, out, "--skip-bad") == 1
    assert len(errors(capsys.readouterr().err)) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("npz", "action=front", "take0.npz: array 'front' holds pictures, not numbers"),
        (
            "npz",
            'cameras={top="angle"}',
            "array 'angle' holds numbers, not pictures; known: bright",
        ),
        (
            "npz",
            'proprio=["instruction"]',
            "array 'instruction' holds text, not numbers",
        ),
        (
            "robomimic",
            'proprio=["agentview_image"]',
            "dataset 'agentview_image' holds pictures, not numbers",
        ),
        (
            "robomimic",
            'cameras={top="robot0_eef_pos"}',
            "a.hdf5, demo_0: dataset 'robot0_eef_pos' holds numbers",
        ),
        (
            "rlds",
            'action=["observation/image"]',
            "features.json: feature 'observation/image' holds pictures",
        ),
        (
            "rlds",
            "instruction_column=observation/state",
            "feature 'observation/state' holds numbers, not text",
        ),
        (
            "lerobot",
            "action=observation.images.top",
            "info.json: feature 'observation.images.top' holds pictures",
        ),
        (
            "lerobot",
            'cameras={top="action"}',
            "holds numbers, not pictures; known: observation.images.t",
        ),
        (
            "diffusion_policy",
            "action=img",
            "source.zarr: array 'img' holds pictures, not numbers; known: action",
        ),
        (
            "diffusion_policy",
            'cameras={top="actio"}',
            "there is no array 'actio'; did you mean 'action'?",
        ),
    ],
)
def test_settings_of_the_wrong_kind_are_named(
    name: str, setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    format_, out = BY_NAME[name], tmp_path / "out.zarr"
    source = format_.write(tmp_path / "source.zarr")
    settings = [
        pair for pair in format_.settings if pair.partition("=")[0] != setting.partition("=")[0]
    ]
    assert main([format_.name, str(source), str(out), *settings, setting, "--skip-bad"]) == 2
    (error,) = errors(capsys.readouterr().err)
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize(
    "content", [{"action": np.zeros((3, 3))}, {"front": npz.episode(0)["front"]}]
)
def test_a_first_file_that_lacks_something_is_no_mistake_in_the_settings(
    content: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    format_, out = BY_NAME["npz"], tmp_path / "out.zarr"
    source = format_.write(tmp_path / "source.zarr")
    np.savez(source / "take0.npz", **content)
    assert run_import(format_, source, out) == 1
    assert "take0.npz: has no array" in capsys.readouterr().err
    assert run_import(format_, source, out, "--skip-bad") == 0
    assert "skipped 1:\n  take0: " in capsys.readouterr().out
    assert contents(out) == {name: x for name, x in whole_store(format_).items() if name != "take0"}


def test_a_damaged_file_among_many_in_several_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    format_ = BY_NAME["robomimic"]
    source, out = format_.write(tmp_path / "source.zarr"), tmp_path / "out.zarr"
    truncate(source / "b.hdf5")
    options = [format_.name, str(source), str(out), *format_.settings, "--jobs", "2"]
    assert main(options) == 1
    assert "b.hdf5: cannot be read" in capsys.readouterr().err
    assert len(EpisodeStore(out)) == 3
    assert main([*options, "--skip-bad"]) == 0
    assert "skipped 1:\n  b.hdf5: " in capsys.readouterr().out
    assert len(EpisodeStore(out)) == 6
