"""The section [start] of a recipe: training begins with the weights of another run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

# a checkpoint of a run: the newest, that with the lowest validation error, or that of a step
CheckpointName = Literal["last", "best"] | Annotated[int, Ge(0)]


@dataclass(frozen=True)
class StartConfig:
    """The run with whose weights training begins."""

    run: Path | None = None
    """folder of a run: every part begins with the weights of that run's part, and an auxiliary head
    with those of the head with the same label. This counts more than a part's `pretrained`.
    """
    checkpoint: CheckpointName = "last"
    """which checkpoint of the run: "last", "best" (by validation error), or the step after which it
    was saved.
    """
    averages: bool = True
    """if the run kept averages of its weights: whether to begin with the averages or with the
    weights that the run went on with.
    """
    anew: tuple[str, ...] = ()
    """what begins as if there were no [start], by the beginnings of the weights' names:
    "policy_head", "auxiliary.LABEL" or "projections.vision", or less than a part, as
    "policy_head.pose.2".
    """

    def __post_init__(self) -> None:
        if self.run is None and (self.checkpoint, self.averages, self.anew) != ("last", True, ()):
            raise ValueError(
                "checkpoint, averages and anew have no effect without run; name the run, or drop "
                "them"
            )

    def begins_anew(self, name: str) -> bool:
        """Whether a weight, or a whole part, begins as if there were no [start]."""
        return self.run is None or any(
            name == beginning or name.startswith(f"{beginning}.") for beginning in self.anew
        )
