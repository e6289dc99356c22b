"""Reads a folder of .npz files with colour, depth and force, one episode in each."""

from dataclasses import dataclass, replace

from core import DataError, hookimpl, one_line
from core.episodes import Episode, Feature
from core.formats import read_npz
from depth_force.world import describe

ARRAYS = ("rgb", "depth", "force", "action", "proprio", "instruction")


@dataclass(frozen=True)
class RecordingsConfig:
    """How the rig was set up."""

    depth_unit: str = "mm"
    """of the depth camera's numbers."""


class Recordings:
    """Reads the arrays of each file.

    rgb (n Y X 3) uint8, depth (n Y X 1) uint16, force (n 6), action and proprio (n 2), instruction.
    """

    def __init__(self, config, *, source):
        self.files = {file.stem: file for file in sorted(source.glob("*.npz"))}
        if not self.files:
            raise DataError(
                f"{source}: holds no .npz files; name a folder with one of them per episode"
            )
        depth = read_npz(next(iter(self.files.values())), ["depth"])["depth"]
        info = describe(depth.shape[1])
        try:
            depth_feature = Feature(depth.shape[1:], "uint16", "depth", config.depth_unit)
        except ValueError as error:
            raise DataError(f"{source}: {one_line(error)}; record it again") from None
        self.info = replace(
            info,
            features={**info.features, "depth": depth_feature},
            origin=f"folder {source.name}",
        )

    def ids(self):
        return [*self.files]

    def read(self, episode):
        arrays = read_npz(self.files[episode], ARRAYS)
        instruction = str(arrays["instruction"])
        return Episode(
            id=episode,
            task=instruction,
            instruction=instruction,
            images={"top": arrays["rgb"]},
            actions=arrays["action"],
            proprio=arrays["proprio"],
            features={name: arrays[name] for name in ("depth", "force")},
        )


@hookimpl
def register_datasets(register):
    register("depth_force_npz", RecordingsConfig, Recordings)
