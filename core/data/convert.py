"""python -m core.data.convert FORMAT SOURCE OUT.zarr: import episodes of another format into a store."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli import command
from core.errors import DataError, RecipeError

if TYPE_CHECKING:
    from core.data.contracts import EpisodeSource


@dataclass(frozen=True)
class Summary:
    """What a store holds after an import.

    added, episodes, frames: episodes imported just now; episodes and frames in all.
    bytes: size of all files.
    codecs: {camera: codec}.
    """

    added: int
    episodes: int
    frames: int
    bytes: int
    codecs: dict[str, str]

    def __str__(self) -> str:
        cameras = ", ".join(f"{camera} {codec}" for camera, codec in self.codecs.items())
        size = self.bytes / 1e6
        return (
            f"{self.added} episodes imported; {self.episodes} episodes, {self.frames} frames, {size:.1f} MB ({cameras})"
        )


def import_episodes(source: "EpisodeSource", out: Path, progress: Callable[[int, int], None]) -> Summary:
    """Append a source's episodes to a store, without those that it has already.

    progress: called with (done, total) after each episode. Raises DataError if an episode is damaged or the store's
    conventions are not the source's; episodes committed before stay, and the same call goes on from there.
    """
    from core.data.store import EpisodeStore
    from core.data.writer import StoreWriter

    if not (ids := source.ids()):
        raise DataError("the source holds no episodes; name another file or folder")
    added = 0
    with StoreWriter(out, source.info) as writer:
        imported = frozenset(writer.committed)
        for done, episode in enumerate(ids, 1):
            if episode not in imported:
                writer.append(source.read(episode))
                added += 1
            progress(done, len(ids))
    store = EpisodeStore(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Summary(added, len(store), store.frame_count, size, {n: codec.name for n, codec in store.codecs.items()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joinery import", description="Import episodes into a store.")
    parser.add_argument("format", help="how the source is laid out: a dataset that `joinery plugins dataset` lists")
    parser.add_argument("source", type=Path, help="file or folder to read")
    parser.add_argument("out", type=Path, help="the store, new or existing: name.zarr")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the format")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Import episodes."""
    arguments = _parser().parse_args(argv)
    source = _source(arguments.format, arguments.source, arguments.settings)

    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=None)
        summary = import_episodes(
            source, arguments.out, lambda done, total: bar.update(task, completed=done, total=total)
        )
    print(f"{arguments.out}: {summary}")
    return 0


def _source(name: str, path: Path, settings: list[str]) -> "EpisodeSource":
    """Build the dataset that reads the source; raises RecipeError for an unknown format or setting."""
    from core.checking import fill, parse_settings
    from core.plugins import load_plugins

    catalogue = load_plugins()
    component = catalogue["dataset"].get(name)
    if component is None:
        raise RecipeError(f"format: {catalogue.explain_unknown('dataset', name)}")
    mistakes: list[str] = []
    config = fill(component.config, parse_settings(settings, mistakes), name, mistakes)
    if mistakes:
        raise RecipeError(mistakes)
    source: EpisodeSource = component.build(config, source=path)
    return source


if __name__ == "__main__":
    raise SystemExit(main())
