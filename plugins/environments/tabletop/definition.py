"""What defines a task of the table: conditions, a test of success, instructions and an expert."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from core.environments import Task
from plugins.environments.tabletop import experts
from plugins.environments.tabletop.instructions import HELD_OUT, INSTRUCTIONS
from plugins.environments.tabletop.scene import State

# returns whether a task is done, given the state at its beginning and the present state
Oracle = Callable[[State, State], bool]


@dataclass(frozen=True)
class TabletopTask:
    """A task of the table.

    task: name and instructions.
    done: returns whether the task is done.
    expert: returns the action that demonstrates the task.
    needs, leaves: the states that fixtures must have before the task, and the states that they have
        after it, for example {"drawer": DRAWER_TRAVEL}. Fixtures are "drawer" and "slider", in
        metres; "lamp"; and "room", whether the drawer has room for a block.
    blocks: the block that the task moves, if any; for stacking, also the block below.
    pushes: whether the task pushes a block. A pushed block needs free space on all four sides.
    uses_up: whether the task's blocks no longer stand free on the table afterwards.
    """

    task: Task
    done: Oracle
    expert: experts.Expert
    needs: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    pushes: bool = False
    uses_up: bool = False


def worded(
    kind: str, name: str, max_steps: int, tier: str, colour: str = "", below: str = ""
) -> Task:
    """Return a task with the instructions of its kind, some of them for evaluation alone.

    colour, below: colours of the block that is moved, and of the block below it.
    """
    texts = tuple(text.format(c=colour, b=below) for text in INSTRUCTIONS[kind])
    return Task(name, texts[:-HELD_OUT], max_steps, held_out=texts[-HELD_OUT:], tier=tier)
