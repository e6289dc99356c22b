"""The sections of a recipe that name no component: their keys, with limits and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, with_config

from core.episodes.episode import Frame, Mode, Rotation
from core.episodes.renaming import NewNames
from core.episodes.seeds import EVALUATION_SEEDS, LAST_SEED
from core.recipe.checking import raise_if_repeated
from core.recipe.start import CheckpointName, StartConfig
from core.recipe.train_section import TrainConfig
from core.registry.part_settings import Positive, Share
from core.store.location import Address

# The maximum number of demonstrations of a task. Each attempt of the expert uses up one seed
# below one million, and evaluation uses the seeds from one million upwards. With this maximum, the
# expert does not run out of seeds even if only one attempt in ten succeeds.
MOST_DEMONSTRATIONS = 100_000


# `fill` finds unknown keys in a section, and pydantic finds unknown keys in a table inside it
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class StoreConfig:
    """One of several stores to train on together."""

    path: Address
    """the episode store: a path relative to the recipe's folder, or a URL that begins with s3://,
    gs://, https:// or http://.
    """
    name: str | None = None
    """the store's name in messages, episode ids and checkpoints; default: the last part of its
    path, without .zarr.
    """
    weight: Annotated[float, Gt(0)] | None = None
    """the store's share of the samples is its weight divided by the sum of all stores' weights.
    Give a weight to all stores or to none; without weights, every window is drawn equally often.
    """
    cameras: Mapping[str, str] = field(default_factory=dict)
    """cameras to rename: {name for the policy: name in the store}; other cameras keep their names.
    """
    actions: Mapping[str, str] = field(default_factory=dict)
    """action dimensions to rename: {name for the policy: name in the store}; other dimensions keep
    their names.
    """

    @property
    def new_names(self) -> NewNames:
        """The names that the policy gives to cameras and action dimensions of the store."""
        return NewNames(self.cameras, self.actions)

    @property
    def label(self) -> str:
        """`name` if the recipe sets it, else the last part of the path without .zarr."""
        if self.name:
            return self.name
        path = str(self.path).partition("?")[0].rstrip("/")
        return path.rpartition("/")[2].removesuffix(".zarr")


@dataclass(frozen=True)
class DataConfig:
    """The episodes to train on, and what a sample is."""

    path: Address | None = None
    """the episode store: a path relative to the recipe's folder, or a URL that begins with s3://,
    gs://, https:// or http://.
    """
    stores: tuple[StoreConfig, ...] = ()
    """several stores, instead of `path`; each store is a table [[data.stores]]."""
    window: Positive = 8
    """frames of history per sample (T)."""
    sampling: Literal["windows", "episodes"] = "windows"
    """which windows a batch holds: "windows": random ones; "episodes": each row reads an episode
    from its first frame to its last, in consecutive windows, and the policy head's state is carried
    from each window to the next.
    """
    cameras: tuple[str, ...] = ()
    """which cameras to use, by name; an empty list means all."""
    features: tuple[str, ...] = ()
    """which of the stores' named features are loaded for the policy, "depth" for example. A vision
    encoder reads them if its `build` has an argument `features`; a policy head reads them from
    `context.features`. None of the built-in parts reads them.
    """
    proprio_normalization: Literal["mean_std", "min_max"] = "mean_std"
    """how proprioception is normalised: "mean_std", to mean 0 and standard deviation 1; "min_max",
    the observed range to [-1, 1], without clipping, as in Diffusion Policy.
    """
    constant_proprio: tuple[str, ...] = ()
    """proprioceptive numbers whose changes are mere noise, by name; the normalisation does not
    stretch them.
    """
    validation_episodes: Annotated[int, Ge(0)] = 1
    """how many episodes of each task are held out for validation: the last episodes of the task. A
    task with no more episodes than that is trained on as a whole; if all tasks are so small, the
    episodes are taken from all. With 0, nothing is held out, and nothing validated.
    """
    validation_share: Share = 0.0
    """share of each task's episodes that is held out, 0.05 for example; instead of a number."""
    validation_over: Literal["tasks", "all"] = "tasks"
    """"tasks": the number or share is that of each task; "all": it is that of all episodes of a
    store together, spread evenly over the store, whatever their tasks.
    """
    validation_ids: tuple[str, ...] = ()
    """the very episodes to hold out, by id, instead of a number or a share; with several stores, an
    id is "STORE/ID".
    """
    threads: Positive = 2
    """number of threads that decode frames."""
    prefetch: Positive = 3
    """how many batches are prepared in advance."""

    def __post_init__(self) -> None:
        raise_if_repeated(self.cameras, "cameras")
        raise_if_repeated(self.features, "features")
        raise_if_repeated(self.constant_proprio, "constant_proprio")
        raise_if_repeated(self.validation_ids, "validation_ids")
        if self.validation_ids and (self.validation_share or self.validation_over == "all"):
            raise ValueError(
                "validation_ids names the episodes, so validation_share and validation_over have "
                "no effect; drop them"
            )
        if (self.path is None) == (not self.stores):
            raise ValueError("name either one store with path, or several with [[data.stores]]")
        raise_if_repeated(tuple(store.label for store in self.stores), "stores (set name)")
        if len({store.weight is None for store in self.stores}) > 1:
            raise ValueError("stores: give every store a weight, or none")

    @property
    def holds_out(self) -> bool:
        """Whether any episodes are held out for validation."""
        return bool(self.validation_ids or self.validation_share or self.validation_episodes)

    @property
    def store_configs(self) -> tuple[StoreConfig, ...]:
        """All stores of the recipe, also if there is only the store at `path`."""
        if self.stores:
            return self.stores
        assert self.path is not None  # __post_init__ has checked that `path` or `stores` is set
        return (StoreConfig(self.path),)


@dataclass(frozen=True)
class ActionConfig:
    """What the policy predicts, and what the recipe expects of the store's actions."""

    horizon: Positive = 10
    """actions per chunk (H)."""
    normalization: Literal[
        "none", "clip_range", "min_max", "quantile", "quantile_clipped", "mean_std"
    ] = "min_max"
    """how actions are scaled for the network; grippers are mapped by their own convention."""
    clip_range: tuple[float, float] = (-1.0, 1.0)
    """lowest and highest action value, for normalization = "clip_range"."""
    constant: tuple[str, ...] = ()
    """dimensions whose changes are mere noise, by name; the normalisation does not stretch them."""
    mode: Mode | None = None
    """expected mode of the actions; a store with the other mode is refused."""
    frame: Frame | None = None
    """expected coordinate frame of the actions; a store with another frame is refused."""
    rotation: Rotation | None = None
    """expected representation of rotations; a store with another representation is refused."""
    gripper: Literal["binary", "continuous", "none"] | None = None
    """expected kind of gripper; a store with another kind is refused."""
    rate: float | None = None
    """expected control rate, in Hz; a store with another rate is refused."""

    def __post_init__(self) -> None:
        raise_if_repeated(self.constant, "constant")
        low, high = self.clip_range
        if low >= high:
            raise ValueError(f"clip_range must rise, got {low} to {high}")
        if self.clip_range != (-1.0, 1.0) and self.normalization != "clip_range":
            raise ValueError(
                f'clip_range has no effect with normalization = "{self.normalization}"; '
                "drop one of the two"
            )


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the images in training; when the policy acts, it gets a central crop."""

    shift: Annotated[int, Ge(0)] | Mapping[str, Annotated[int, Ge(0)]] = 0
    """maximum shift in each direction, in pixels: a number for all cameras, or a table {camera:
    pixels}.
    """
    crop: Annotated[float, Gt(0), Le(1)] = 1.0
    """share of each side that is kept; the part that is kept is enlarged to the image's size."""
    brightness: Share = 0.0
    """largest relative change."""
    contrast: Share = 0.0
    """largest relative change."""
    saturation: Share = 0.0
    """largest relative change."""
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    """maximum change, as a share of the colour circle."""
    per_frame: bool = False
    """true: each frame of a window is changed differently; false: all frames get the same change.
    """


@dataclass(frozen=True)
class DemonstrationsConfig:
    """Demonstrations by the environment's expert; those that `data.path` lacks are recorded."""

    tasks: tuple[str, ...] = ()
    """which tasks to demonstrate, by name; an empty list means all."""
    episodes: Annotated[int, Gt(0), Le(MOST_DEMONSTRATIONS)] = 100
    """successful demonstrations of each task."""
    noise: Annotated[float, Ge(0), Le(1)] = 0.0
    """how much the expert's actions are disturbed while recording, in units of the actions; see the
    environment's page for the noise from which its expert recovers.
    """

    def __post_init__(self) -> None:
        raise_if_repeated(self.tasks, "tasks")


@dataclass(frozen=True)
class EvaluateConfig:
    """How the trained policy is evaluated in the environment."""

    tasks: tuple[str, ...] = ()
    """which tasks to attempt, by name; an empty list means the tasks of [demonstrations], or all
    tasks if [demonstrations] is missing or names no tasks.
    """
    episodes: Annotated[int, Ge(0)] = 20
    """number of attempts at each task; with 0, only chains are tried."""
    chains: Annotated[int, Ge(0)] = 0
    """how many chains to try; a chain is a sequence of tasks that are attempted without a reset,
    until a task fails.
    """
    first_seed: Annotated[int, Ge(EVALUATION_SEEDS)] = EVALUATION_SEEDS
    """seed of the first attempt at each task, and of the first chain; those after it count on.
    Demonstrations use the seeds below one million, so these are refused.
    """
    replan_steps: Positive = 1
    """number of actions of each chunk that are executed before the policy predicts the next chunk.
    """
    num_envs: Positive = 16
    """number of environments that run at once, each in a process. It is also the policy's batch
    size. Rounding depends on the batch size, so changing this number can change the results.
    """
    timeout: Annotated[float, Gt(0)] = 60.0
    """seconds after which an environment that does not answer is restarted."""
    controls: tuple[Literal["blank_images", "swapped_words", "blank_history"], ...] = ()
    """conditions under which success is measured for comparison: black images ("blank_images"),
    other words in the instruction ("swapped_words"), or a policy that forgets all earlier
    observations before each of its steps ("blank_history").
    """
    swap: tuple[str, ...] = ()
    """the words that "swapped_words" replaces: each word by the next word of this list, and the
    last word by the first.
    """
    control_episodes: Positive | None = None
    """number of attempts at each task under each control; default: the value of `episodes`."""
    checkpoint: CheckpointName = "last"
    """which checkpoint to evaluate: "last", the newest; "best", the checkpoint with the lowest
    validation error; or the step after which it was saved, 2000 for example.
    """
    cameras: Mapping[str, str] = field(default_factory=dict)
    """cameras of the environment to rename: {name for the policy: name in the environment}, {top =
    "agentview"} for example; other cameras keep their names.
    """
    actions: Mapping[str, str] = field(default_factory=dict)
    """action dimensions of the environment to rename, as for `cameras`; their order stays."""
    proprio: Mapping[str, str] = field(default_factory=dict)
    """proprioceptive numbers of the environment to rename, as for `cameras`; their order stays."""
    features: Mapping[str, str] = field(default_factory=dict)
    """features of the environment to rename, as for `cameras`."""
    store: str | None = None
    """for a policy that was trained on several stores: the name of the store whose normalisation of
    actions and proprioception is used; default: the first store.
    """

    def __post_init__(self) -> None:
        for key in ("tasks", "controls", "swap"):
            raise_if_repeated(getattr(self, key), key)
        if not self.episodes and not self.chains:
            raise ValueError(
                "episodes = 0 and chains = 0 leave nothing to try; raise one of the two"
            )
        most = max(self.episodes, self.chains, self.control_episodes or 0)
        if self.first_seed + most - 1 > LAST_SEED:
            raise ValueError(
                f"first_seed = {self.first_seed} leads to seeds above {LAST_SEED}; choose a lower "
                "one"
            )
        if not self.episodes and self.controls:
            raise ValueError(
                "controls compare with single tasks, and episodes = 0; raise it, or leave controls "
                "out: evaluate.controls=[]"
            )
        if any(len(word.split()) != 1 for word in self.swap):
            raise ValueError(f"swap must hold single words, got {list(self.swap)}")
        swapping = "swapped_words" in self.controls
        if swapping and len(self.swap) < 2:
            raise ValueError(
                'controls names "swapped_words", but swap lists fewer than two words; '
                'for example ["red", "blue"]'
            )
        if self.swap and not swapping:
            raise ValueError(
                'swap has no effect without "swapped_words" in controls; drop one of the two'
            )
        if self.control_episodes and not self.controls:
            raise ValueError("control_episodes has no effect without controls; drop it")

    @property
    def new_names(self) -> NewNames:
        """The names that the policy gives to what the environment has."""
        return NewNames(self.cameras, self.actions, self.proprio, self.features)


# the sections that every recipe has, apart from the sections that name a component
SECTIONS: Mapping[str, type] = {
    "train": TrainConfig,
    "data": DataConfig,
    "augmentation": AugmentationConfig,
    "action": ActionConfig,
    "start": StartConfig,
}
# the optimiser of a recipe that names none
DEFAULT_OPTIMIZER = "adamw"
# the sections that need an environment; a `Recipe` holds None for a section that is missing
ENVIRONMENT_SECTIONS: Mapping[str, type] = {
    "demonstrations": DemonstrationsConfig,
    "evaluate": EvaluateConfig,
}
