"""The sections of a recipe other than components: their keys, with limits and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, with_config

from core.episodes.episode import Frame, Mode, Rotation
from core.registry.part_settings import Amount, Positive, Rate, Share
from core.store.location import Address

# The maximum number of demonstrations of a task. Each attempt takes a seed, and evaluation
# takes the seeds from a million on. Demonstrations stay below a million even if only one attempt in
# ten succeeds.
MOST_DEMONSTRATIONS = 100_000


@dataclass(frozen=True)
class TrainConfig:
    """How the parts are trained together."""

    steps: Positive = 2_000
    """optimiser steps."""
    batch_size: Positive = 32
    """windows per optimiser step, over all devices and accumulated micro-batches."""
    accumulation: Positive = 1
    """micro-batches per optimiser step."""
    learning_rate: Rate = 3e-4
    """full learning rate of every part that does not set its own."""
    weight_decay: Amount = 0.01
    """weight decay of AdamW, on matrices only, of every part that does not set its own."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """decay rates of AdamW's running averages of the gradient and of the squared gradient."""
    warmup_steps: Annotated[int, Ge(0)] = 100
    """steps over which the learning rate rises linearly to its full value."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """how the learning rate falls; cosine and linear end at zero."""
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """share of the steps after the warm-up in which the learning rate falls; the rate falls in the
    last steps, and is constant between the warm-up and these.
    """
    gradient_clip: Amount = 1.0
    """maximum norm of the gradient of all parts together; 0 does not clip."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """number format of weights and computation, as Lightning Fabric names it."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """device to train on; "auto" takes a GPU if there is one."""
    strategy: Literal["auto", "ddp"] = "auto"
    """how processes share the work, as Lightning Fabric names it; "ddp" averages gradients."""
    devices: Positive = 1
    """processes to train with, one per device."""
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    """seed of the initial weights, the order of the data and all random numbers of training."""
    validate_every: Positive = 200
    """steps between validations on the held-out episodes; the last step always validates."""
    checkpoint_every: Positive = 200
    """steps between checkpoints; the last step always saves."""
    keep_last: Positive = 2
    """number of newest checkpoints to keep, beside the best one."""
    log_every: Positive = 10
    """steps between readings of the losses; a reading waits for the device."""
    joint_table_every: Positive = 100
    """steps between measurements of the joint-training table; the first step is always measured."""

    def __post_init__(self) -> None:
        if self.schedule == "constant" and self.decay != 1.0:
            raise ValueError('decay has no effect with schedule = "constant"; drop one of the two')
        if self.batch_size % (self.accumulation * self.devices):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of accumulation x devices "
                f"= {self.accumulation} x {self.devices}"
            )


# `fill` finds the unknown keys of a section; pydantic finds those of a table inside a section
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class StoreConfig:
    """One of several stores to train on together."""

    path: Address
    """the episode store; relative to the recipe's folder, or a URL: s3://, gs://, https:// or
    http://.
    """
    name: str | None = None
    """the store's name in messages, episode ids and checkpoints; default: the last part of its
    path, without .zarr.
    """
    weight: Annotated[float, Gt(0)] | None = None
    """the store's weight divided by the sum of all weights is its share of the samples; give a
    weight to all stores or to none; default: every window is drawn equally often.
    """
    cameras: Mapping[str, str] = field(default_factory=dict)
    """{the policy's name: the store's name} of cameras; others keep their names."""
    actions: Mapping[str, str] = field(default_factory=dict)
    """{the policy's name: the store's name} of action dimensions; others keep their names."""

    @property
    def label(self) -> str:
        """The store's name: from the recipe, or the last part of its path without .zarr."""
        if self.name:
            return self.name
        path = str(self.path).partition("?")[0].rstrip("/")
        return path.rpartition("/")[2].removesuffix(".zarr")


@dataclass(frozen=True)
class DataConfig:
    """The episodes to train on, and what a sample is."""

    path: Address | None = None
    """the episode store; relative to the recipe's folder, or a URL: s3://, gs://, https:// or
    http://.
    """
    stores: tuple[StoreConfig, ...] = ()
    """several stores instead of one, each a table [[data.stores]]."""
    window: Positive = 8
    """frames of history per sample (T)."""
    cameras: tuple[str, ...] = ()
    """which cameras to use, by name; an empty list means all."""
    features: tuple[str, ...] = ()
    """which of the stores' named features are loaded for the policy, "depth" for example; a vision
    encoder whose build asks for `features` reads them, or a head through `context.features`; none
    of the built-in parts reads them.
    """
    validation_episodes: Positive = 1
    """how many episodes of each task are held out for validation: the last ones."""
    threads: Positive = 2
    """threads that decode frames."""
    prefetch: Positive = 3
    """how many batches are prepared ahead."""

    def __post_init__(self) -> None:
        _raise_if_repeated(self.cameras, "cameras")
        _raise_if_repeated(self.features, "features")
        if (self.path is None) == (not self.stores):
            raise ValueError("name either one store with path, or several with [[data.stores]]")
        _raise_if_repeated(tuple(store.label for store in self.stores), "stores (set name)")
        if len({store.weight is None for store in self.stores}) > 1:
            raise ValueError("stores: give every store a weight, or none")

    @property
    def store_configs(self) -> tuple[StoreConfig, ...]:
        """The stores, one or several."""
        if self.stores:
            return self.stores
        assert self.path is not None  # __post_init__ has checked that `path` or `stores` is set
        return (StoreConfig(self.path),)


@dataclass(frozen=True)
class ActionConfig:
    """What the policy predicts, and what the recipe expects of the store's actions."""

    horizon: Positive = 10
    """actions per chunk (H)."""
    normalization: Literal["none", "clip_range", "min_max", "quantile", "mean_std"] = "min_max"
    """how actions are scaled for the network; grippers are mapped by their own convention."""
    clip_range: tuple[float, float] = (-1.0, 1.0)
    """lowest and highest value, for normalization = "clip_range"."""
    mode: Mode | None = None
    """expected mode; a store with the other mode is refused."""
    frame: Frame | None = None
    """expected coordinates; a store with other coordinates is refused."""
    rotation: Rotation | None = None
    """expected layout of rotations; a store with another layout is refused."""
    gripper: Literal["binary", "continuous", "none"] | None = None
    """expected kind of gripper; a store with another kind is refused."""
    rate: float | None = None
    """expected control rate, in Hz; a store with another rate is refused."""

    def __post_init__(self) -> None:
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
    """Random changes of the images while training; acting crops the middle of each image."""

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
    """change each frame of a window independently, not the whole window alike."""


@dataclass(frozen=True)
class DemonstrationsConfig:
    """What the environment's expert demonstrates; recorded into data.path on first use."""

    tasks: tuple[str, ...] = ()
    """which tasks, by name; an empty list means all."""
    episodes: Annotated[int, Gt(0), Le(MOST_DEMONSTRATIONS)] = 100
    """successful demonstrations of each task."""
    noise: Annotated[float, Ge(0), Le(1)] = 0.0
    """how much the expert's actions are disturbed while recording, in units of the actions; see the
    environment's page for how much its expert recovers from.
    """

    def __post_init__(self) -> None:
        _raise_if_repeated(self.tasks, "tasks")


@dataclass(frozen=True)
class EvaluateConfig:
    """How the trained policy is evaluated in the environment."""

    tasks: tuple[str, ...] = ()
    """which tasks, by name; an empty list means those of [demonstrations], or all."""
    episodes: Annotated[int, Ge(0)] = 20
    """attempts at each task; 0 to try chains alone."""
    chains: Annotated[int, Ge(0)] = 0
    """how many chains to try; a chain is tasks in a row, without a reset, until one fails."""
    replan_steps: Positive = 1
    """actions of each chunk that are executed before the policy is asked again."""
    num_envs: Positive = 16
    """environments that run at once, one process each; they form the policy's batch, so results
    depend on their number.
    """
    timeout: Annotated[float, Gt(0)] = 60.0
    """seconds after which an environment that does not answer is restarted."""
    controls: tuple[Literal["blank_images", "swapped_words"], ...] = ()
    """what else to measure: success with black images ("blank_images") or with other words in the
    instruction ("swapped_words").
    """
    swap: tuple[str, ...] = ()
    """the words of "swapped_words": each word is replaced by the next, the last by the first."""
    control_episodes: Positive | None = None
    """attempts at each task under each control; default: as many as episodes."""
    checkpoint: Literal["last", "best"] = "last"
    """which checkpoint to evaluate: the newest, or the best by validation."""
    store: str | None = None
    """for a policy that was trained on several stores: the name of the store in whose action scale
    the policy acts; default: the first store.
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


# the sections of every recipe, beside those of components
SECTIONS: Mapping[str, type] = {
    "train": TrainConfig,
    "data": DataConfig,
    "augmentation": AugmentationConfig,
    "action": ActionConfig,
}
# sections that need an environment; a recipe without them has None in their place
ENVIRONMENT_SECTIONS: Mapping[str, type] = {
    "demonstrations": DemonstrationsConfig,
    "evaluate": EvaluateConfig,
}
