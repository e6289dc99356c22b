"""The sections of a recipe that name no component: their keys, with limits and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, with_config

from core.episodes.episode import Frame, Mode, Rotation
from core.recipe.start import CheckpointName, StartConfig
from core.registry.part_settings import Amount, Positive, Rate, Share
from core.store.location import Address

# The maximum number of demonstrations of a task. Each attempt of the expert uses up one seed
# below one million, and evaluation uses the seeds from one million upwards. With this maximum, the
# expert does not run out of seeds even if only one attempt in ten succeeds.
MOST_DEMONSTRATIONS = 100_000


# `fill` finds unknown keys in a section, and pydantic finds unknown keys in a table inside it
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class StageConfig:
    """One of several stages of training."""

    steps: Positive
    """optimiser steps of the stage."""
    parts: tuple[str, ...]
    """which parts train: names of their sections, "projections" for the layers between encoders and
    backbone, and "auxiliary/LABEL" for an auxiliary head. All other parts keep their weights.
    """
    losses: tuple[str, ...] = ()
    """whose losses count: "policy_head", "auxiliary/LABEL", or a part that has a loss of its own;
    an empty list means all.
    """

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts names none, so nothing would train; name one")
        _raise_if_repeated(self.parts, "parts")
        _raise_if_repeated(self.losses, "losses")


@dataclass(frozen=True)
class TrainConfig:
    """How the parts are trained together."""

    steps: Positive = 2_000
    """optimiser steps."""
    batch_size: Positive = 32
    """windows per optimiser step, summed over all devices and accumulated micro-batches."""
    accumulation: Positive = 1
    """micro-batches per optimiser step."""
    learning_rate: Rate = 3e-4
    """learning rate after the warm-up, for every part that sets no `learning_rate`."""
    weight_decay: Amount = 0.01
    """weight decay of weights with two or more dimensions, for every part that sets no
    `weight_decay`; biases and the weights of norms have none.
    """
    betas: tuple[Share, Share] = (0.9, 0.999)
    """decay rates of AdamW's running averages of the gradient and of the squared gradient; for
    optimisers with AdamW in them.
    """
    warmup_steps: Annotated[int, Ge(0)] = 100
    """steps over which the learning rate rises linearly to its full value."""
    schedule: Literal["constant", "cosine", "linear", "rsqrt"] = "cosine"
    """how the learning rate falls; "cosine" and "linear" end at zero, and "rsqrt" falls with the
    inverse square root of the step (Vaswani et al. 2017).
    """
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """length of the last phase of training, in which the learning rate falls, as a share of all
    steps after the warm-up; between the warm-up and this phase, the learning rate is constant.
    """
    ema: Share = 0.0
    """decay of an exponential moving average of the weights, 0.999 for example; 0 means no average.
    With it, the averaged weights are validated and used for acting, and training goes on with the
    weights themselves.
    """
    gradient_clip: Amount = 1.0
    """maximum norm of the gradient of all parts together; 0 means no clipping."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """number format of the weights and of the computation, by its name in Lightning Fabric."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """device to train on; "auto" takes a GPU if there is one."""
    strategy: Literal["auto", "ddp"] = "auto"
    """how processes share the work, by its name in Lightning Fabric; "ddp" averages gradients."""
    devices: Positive = 1
    """number of devices to train on; each device has a process."""
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    """seed of the initial weights, the order of the data and all random numbers of training."""
    validate_every: Positive = 200
    """steps between validations on the held-out episodes; the last step is always validated."""
    checkpoint_every: Positive = 200
    """steps between checkpoints; a checkpoint is always saved after the last step."""
    keep_last: Positive = 2
    """number of newest checkpoints to keep, in addition to the best checkpoint."""
    keep_frozen: bool = False
    """whether the run's folder gets a copy of the frozen weights that were published, too, so that
    the policy acts where their source is not; checkpoints leave them out.
    """
    log_every: Positive = 10
    """steps between log entries of the losses; each entry makes the program wait for the device.
    """
    joint_table_every: Positive = 100
    """steps between measurements of the joint-training table; the first step is always measured."""
    loggers: tuple[str | Mapping[str, Any], ...] = ("tensorboard",)
    """where else the figures of metrics.jsonl go: names of loggers, or tables of a name and the
    logger's keys, {name = "wandb", project = "arm"} for example.
    """
    callbacks: tuple[str | Mapping[str, Any], ...] = ()
    """plugins' own code that training calls: names of callbacks, or tables [[train.callbacks]] of a
    name and the callback's keys.
    """
    stages: tuple[StageConfig, ...] = ()
    """stages of training, each a table [[train.stages]]. They follow each other, and begin again
    until `steps` are done. Without stages, all parts train together in every step.
    """

    def __post_init__(self) -> None:
        if self.schedule == "constant" and self.decay != 1.0:
            raise ValueError('decay has no effect with schedule = "constant"; drop one of the two')
        round_steps = sum(stage.steps for stage in self.stages)
        if self.stages and self.steps % round_steps:
            raise ValueError(
                f"steps {self.steps} must be a multiple of the steps of all stages together "
                f"= {round_steps}"
            )
        if self.batch_size % (self.accumulation * self.devices):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of accumulation x devices "
                f"= {self.accumulation} x {self.devices}"
            )


@with_config(ConfigDict(extra="forbid"))  # as for StageConfig
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
        _raise_if_repeated(self.cameras, "cameras")
        _raise_if_repeated(self.features, "features")
        _raise_if_repeated(self.constant_proprio, "constant_proprio")
        _raise_if_repeated(self.validation_ids, "validation_ids")
        if self.validation_ids and (self.validation_share or self.validation_over == "all"):
            raise ValueError(
                "validation_ids names the episodes, so validation_share and validation_over have "
                "no effect; drop them"
            )
        if (self.path is None) == (not self.stores):
            raise ValueError("name either one store with path, or several with [[data.stores]]")
        _raise_if_repeated(tuple(store.label for store in self.stores), "stores (set name)")
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
        _raise_if_repeated(self.constant, "constant")
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
        _raise_if_repeated(self.tasks, "tasks")


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
    store: str | None = None
    """for a policy that was trained on several stores: the name of the store whose normalisation of
    actions and proprioception is used; default: the first store.
    """

    def __post_init__(self) -> None:
        for key in ("tasks", "controls", "swap"):
            _raise_if_repeated(getattr(self, key), key)
        if not self.episodes and not self.chains:
            raise ValueError(
                "episodes = 0 and chains = 0 leave nothing to try; raise one of the two"
            )
        if not self.episodes and self.controls:
            raise ValueError(
                "controls compare with single tasks, and episodes = 0; raise it or drop controls"
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


def _raise_if_repeated(names: tuple[str, ...], key: str) -> None:
    """Raise ValueError if a name occurs twice in the list that is the value of `key`."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key} names one twice: {', '.join(repeated)}")


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
