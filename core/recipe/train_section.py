"""The section [train] of a recipe: its keys, with limits and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, with_config

from core.recipe.checking import raise_if_repeated
from core.registry.part_settings import Amount, Positive, Rate, Share


# `fill` finds unknown keys in a section, and pydantic finds unknown keys in a table inside it
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class StageConfig:
    """One of several stages of training."""

    steps: Positive
    """optimiser steps of the stage."""
    parts: tuple[str, ...]
    """which parts train: names of their sections, "projections" for the layers between encoders and
    backbone, and "auxiliary/LABEL" for an auxiliary head; or a module of one of them, such as
    "policy_head.autoencoder". All else keeps its weights.
    """
    freeze: tuple[str, ...] = ()
    """modules of those parts that keep their weights nonetheless, "policy_head.autoencoder" for
    example.
    """
    losses: tuple[str, ...] = ()
    """whose losses count: "policy_head", "auxiliary/LABEL", or a part that has a loss of its own;
    an empty list means all.
    """

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts names none, so nothing would train; name one")
        raise_if_repeated(self.parts, "parts")
        raise_if_repeated(self.freeze, "freeze")
        raise_if_repeated(self.losses, "losses")


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
    compile: bool = False
    """let `torch.compile` compile the blocks of the parts; the first step and the first validation
    then take longer, and later steps less long, mostly on a GPU. Rounding changes, the names of the
    weights do not.
    """
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """device to train on; "auto" takes a GPU if there is one."""
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    """how processes share the work, by its name in Lightning Fabric; "ddp" averages gradients. The
    third one searches in each step for weights without a gradient; that is chosen by itself if a
    trial before training leaves some without.
    """
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
    not_finite: Literal["stop", "skip"] = "stop"
    """what happens at a step whose loss or gradient is NaN or infinite: "stop" ends the run, before
    such weights are saved; "skip" leaves the weights as they are and goes on. "skip" makes the
    program wait for the device in every step.
    """
    max_skipped: Positive = 20
    """how many steps in a row may be skipped before the run stops: by not_finite = "skip", or by
    the loss scaling of precision = "16-mixed".
    """
    patience: Annotated[int, Ge(0)] = 0
    """early stopping: the run ends after this many validations without a lower error than before;
    0 means that all steps are done.
    """
    stages: tuple[StageConfig, ...] = ()
    """stages of training, each a table [[train.stages]]. They follow each other, and begin again
    until `steps` are done. Without stages, all parts train together in every step.
    """

    def __post_init__(self) -> None:
        if self.schedule == "constant" and self.decay != 1.0:
            raise ValueError('decay has no effect with schedule = "constant"; drop one of the two')
        if self.patience and self.validate_every % self.checkpoint_every:
            raise ValueError(
                f"validate_every {self.validate_every} must be a multiple of checkpoint_every "
                f"{self.checkpoint_every} if patience is set, so that the best step is saved"
            )
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
