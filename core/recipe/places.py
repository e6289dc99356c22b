"""Where the files and folders of a run's recipe are now, after any of them has moved.

A run keeps copies of the small files that its parts are built from, such as a tokenizer's and a
model's config.json: RUN/files/. Its other places are recorded in its recipe.toml. RUN/files.json
says which key has which copy, and in which folder the run was when the places were recorded.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from core.errors import CheckpointError, ConfigError
from core.recipe.contents import Part, Recipe
from core.recipe.paths import SOURCES, change_part, change_places
from core.system.files import written_aside
from core.system.links import inside
from core.system.strict import from_plain, one_line, parse_json
from core.weights.pretrained import cached_on_hub

INDEX, FOLDER = "files.json", "files"
# a larger file is not copied: it is no setting of a part, but its weights or data
LARGEST = 2**26
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")


@dataclass(frozen=True)
class RunFiles:
    """What a run has recorded about files.

    folder: the run's folder when the places in its recipe were recorded.
    places: {key: place in the recipe}, of the keys that have a copy.
    copies: {key: name of the copy in RUN/files}.
    """

    folder: str
    places: Mapping[str, str]
    copies: Mapping[str, str]

    @classmethod
    def read(cls, run: Path) -> "RunFiles":
        """Read a run's record; a run of an earlier version has none, and so no copies.

        Raises CheckpointError if it is damaged, and DataError if a copy lies elsewhere.
        """
        try:
            files = from_plain(cls, parse_json((run / INDEX).read_text(encoding="utf-8")))
            for copy in files.copies.values():
                inside(run / FOLDER, copy)
            return files
        except FileNotFoundError:
            return cls(str(run.absolute()), {}, {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{run / INDEX}: cannot read it ({one_line(error)}); remove it"
            ) from None


def parse_moved(pairs: list[str]) -> dict[str, str]:
    """Read `OLD=NEW` pairs of places; raises ConfigError for anything else."""
    moved = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"moved: expected OLD=NEW, two places, got '{pair}'")
        moved[old] = new
    return moved


def find_places(recipe: Recipe, run: Path, moved: Mapping[str, str]) -> Recipe:
    """Return a run's recipe with the places where its files and folders are now.

    moved: {former place of a file or folder: its place now}; what lay in a folder has moved along.
        What `moved` does not name, and is not where it was, may lie as it did relative to the run.

    Raises ConfigError if a new place does not exist.
    """
    if missing := [new for new in moved.values() if not Path(new).exists()]:
        raise ConfigError(f"moved: there is no file or folder '{missing[0]}'")
    former_run = RunFiles.read(run).folder

    def find(key: str, value: Path | str) -> Path | str:  # noqa: ARG001 (every key alike)
        for old, new in moved.items():
            text, beginning = str(value), old.rstrip("/")
            if text == beginning or text.startswith(f"{beginning}/"):
                return str(Path(new).absolute()) + text[len(beginning) :]
        if not Path(value).is_absolute() or Path(value).exists():
            return value
        beside = os.path.normpath(run.absolute() / os.path.relpath(value, former_run))
        return beside if Path(beside).exists() else value

    return change_places(recipe, find)


def use_copies(recipe: Recipe, run: Path) -> Recipe:
    """Return a run's recipe whose parts are built from the run's copies of their files.

    A key keeps its value if it names another place than the run recorded, with other contents.
    """
    files = RunFiles.read(run)

    def copied(key: str, value: Path | str) -> Path | str:
        if key not in files.copies:
            return value
        copy = run.absolute() / FOLDER / files.copies[key]
        is_same = files.places[key] == str(value) or not _differs(Path(value), copy)
        return copy if is_same and copy.exists() else value

    def of_part(part: Part, section: str) -> Part:
        changed = change_part(part, section, copied)
        if part.settings.pretrained is True and (source := _located(part)) != _located(changed):
            settings = replace(part.settings, pretrained=source)  # the copy holds no weights
            changed = replace(changed, settings=settings)
        return changed

    return replace(
        recipe,
        parts={kind: of_part(part, kind) for kind, part in recipe.parts.items()},
        auxiliary={
            label: of_part(part, f"auxiliary.{label}") for label, part in recipe.auxiliary.items()
        },
    )


def keep_files(recipe: Recipe, built_from: Recipe, run: Path) -> None:
    """Copy the small files that the parts are built from into a run's folder, and record places.

    recipe: the recipe as the run's recipe.toml has it.
    built_from: the same, with the places from which the parts were built.

    Raises CheckpointError if writing fails.
    """
    places, copies = _config_places(recipe), {}
    try:
        for key, source in _config_places(built_from).items():
            if name := _copy(source, run / FOLDER):
                copies[key] = name
        content = {
            "folder": str(run.absolute()),
            "places": {key: places[key] for key in copies},
            "copies": copies,
        }
        with written_aside(run / INDEX) as aside:
            aside.write_text(json.dumps(content, indent=2), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{run / FOLDER}: cannot copy the files of the parts: {error}; make room"
        ) from None


def _config_places(recipe: Recipe) -> dict[str, str]:
    """Return {key: place} of the paths in the configurations of the parts."""
    places: dict[str, str] = {}

    def note(key: str, value: Path | str) -> Path | str:
        if key.rpartition(".")[2] not in SOURCES:
            places[key] = str(value)
        return value

    for kind, part in recipe.parts.items():
        change_part(part, kind, note)
    for label, part in recipe.auxiliary.items():
        change_part(part, f"auxiliary.{label}", note)
    return places


def _located(part: Part) -> str | None:
    """Return the folder, or name on the hub, of the model of which a part is."""
    names = [f.name for f in fields(part.config) if f.metadata.get("located")]
    return str(getattr(part.config, names[0])) if names else None


def _copy(source: str, folder: Path) -> str | None:
    """Copy a file, or the small files of a model's folder; return the copy's name in `folder`.

    Parts of one source share a copy. None if there is nothing to copy.
    """
    path = Path(source) if Path(source).is_absolute() else cached_on_hub(source)
    if path is None or not path.exists():
        return None
    if path.parent == folder.absolute():
        return path.name
    files = [path] if path.is_file() else sorted(path.iterdir())
    small = [
        file
        for file in files
        if file.is_file() and file.stat().st_size <= LARGEST and file.suffix not in WEIGHTS
    ]
    if not small:
        return None
    name = source.rstrip("/").rpartition("/")[2]
    copies = (folder / f"{number}-{name}" for number in range(1000))
    copy = next(c for c in copies if not c.exists() or not _differs(path, c))
    if copy.exists():
        return copy.name
    folder.mkdir(exist_ok=True)
    with written_aside(copy) as aside:
        if path.is_file():
            shutil.copyfile(path, aside)
        else:
            aside.mkdir()
            for file in small:
                shutil.copyfile(file, aside / file.name)
    return copy.name


def _differs(path: Path, copy: Path) -> bool:
    """Whether a file or folder exists and does not hold what its copy holds."""
    if not path.exists() or not copy.exists():
        return False
    if copy.is_file():
        return not path.is_file() or not filecmp.cmp(path, copy, shallow=False)
    names = [file.name for file in copy.iterdir()]
    _, different, failed = filecmp.cmpfiles(path, copy, names, shallow=False)
    return bool(different or failed)
