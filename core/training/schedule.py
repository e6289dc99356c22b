"""Schedules: the learning rate and the stage of training, as functions of the step alone."""

import math
from collections.abc import Callable, Iterator, Mapping

from core.recipe.train_section import TrainConfig

# {name: function of two numbers that returns the factor of the learning rate while it falls}; the
# first number is the progress of the fall, from 0 to 1, and the second is the length of the fall,
# in units of the warm-up
SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "constant": lambda _progress, _length: 1.0,
    "linear": lambda progress, _length: 1.0 - progress,
    "cosine": lambda progress, _length: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "rsqrt": lambda progress, length: (1.0 + progress * length) ** -0.5,
}


def schedule_factor(step: int, train: TrainConfig) -> float:
    """Return the factor, in [0, 1], of the learning rate after `step` steps.

    The factor rises linearly to 1 during the warm-up and stays at 1 until the fall begins. It then
    falls as the schedule says. With a short fall (`decay` below 1), the schedule is that of Hu et
    al. 2024 (warmup-stable-decay). If "rsqrt" falls from the end of the warm-up on, its factor is
    sqrt(warmup_steps / step) (Vaswani et al. 2017).

    If the recipe goes through its stages once, each stage has such a schedule of its own. If the
    stages take turns, there is one schedule for the whole run.
    """
    steps = train.steps
    if steps == sum(stage.steps for stage in train.stages):
        number, begin = stage_at(step, train)
        step, steps = step - begin, train.stages[number].steps
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    decay_steps = train.decay * max(1, steps - train.warmup_steps)
    progress = max(0.0, 1.0 - (steps - step) / decay_steps)
    return SCHEDULES[train.schedule](progress, decay_steps / max(1, train.warmup_steps))


def doubtful_warmup(train: TrainConfig) -> Iterator[str]:
    """Yield a line if the learning rate never reaches its full value, as the warm-up is too long.

    If the recipe goes through its stages once, each of them has a warm-up.
    """
    lengths = {"the run": train.steps}
    if train.steps == sum(stage.steps for stage in train.stages):
        lengths = {f"stage {n}": stage.steps for n, stage in enumerate(train.stages)}
    for name, steps in lengths.items():
        if train.warmup_steps > steps:
            share = steps / train.warmup_steps
            yield (
                f"train.warmup_steps: {train.warmup_steps} are more than the {steps} of {name}, so "
                f"the learning rate rises to {share:.0%} of its value and no further; lower them"
            )


def stage_at(done: int, train: TrainConfig) -> tuple[int, int]:
    """Return which stage follows `done` steps, and how many steps were done when it began.

    Stages follow each other, and the first one follows the last.
    """
    round_steps = sum(stage.steps for stage in train.stages)
    begin = done - done % round_steps
    for number, stage in enumerate(train.stages):
        if done < begin + stage.steps:
            return number, begin
        begin += stage.steps
    raise AssertionError("a round of stages covers all its steps")


def begins_stage(done: int, train: TrainConfig) -> bool:
    """Return whether a stage begins after `done` steps for the first time."""
    if not train.stages or done >= sum(stage.steps for stage in train.stages):
        return False
    return stage_at(done, train)[1] == done
