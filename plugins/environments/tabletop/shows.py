"""Shows: what the lamp and the fixtures do by themselves, and what has happened in an episode."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Show:
    """What the lamp and the fixtures do by themselves, moment by moment.

    A moment lasts one control step: moment 0 is what the first frame of an episode shows.

    answer: what the show tells; a word of the task that the show belongs to.
    go: the moment from which the gripper may act; before it, the gripper is to wait.
    lamp: the lamp's colour at each moment, a key of LAMP_COLOURS. The last colour stays. If there
        are none, the button switches the lamp; otherwise it does not.
    motions: {"drawer" or "slider": its position at each moment, as in State}. After the last of
        these moments, the fixture is free.
    """

    answer: str = ""
    go: int = 0
    lamp: tuple[str, ...] = ()
    motions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def colour(self, moment: int) -> str | None:
        """Return the lamp's colour at a moment; None if the button switches the lamp."""
        return self.lamp[min(moment, len(self.lamp) - 1)] if self.lamp else None


@dataclass(frozen=True)
class Past:
    """What has happened since the task began, as far as the task depends on it.

    No camera shows it. A policy has to remember it, and an expert is told.

    show, moment: the show, and the moment that it has reached.
    presses: how often the button was pressed.
    choice: which answer the gripper has given by what it did; None if it has given none yet. The
        first answer counts, so a policy cannot try one answer after the other.
    """

    show: Show = field(default_factory=Show)
    moment: int = 0
    presses: int = 0
    choice: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the gripper is still to wait."""
        return self.moment < self.show.go
