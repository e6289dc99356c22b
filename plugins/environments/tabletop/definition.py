"""What defines a task of the table: conditions, a test of success, instructions and an expert."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from core.environments import Task
from plugins.environments.tabletop import experts
from plugins.environments.tabletop.instructions import HELD_OUT, INSTRUCTIONS
from plugins.environments.tabletop.scene import Start, State
from plugins.environments.tabletop.shows import Past, Show

MEMORY = "memory"  # tier of the tasks that need memory; a recipe has them only if it names them

# returns whether a task is done, given the state at its beginning and the present state
Oracle = Callable[[State, State], bool]


@dataclass(frozen=True)
class MemoryRules:
    """What a task has in addition if it needs memory.

    prepare: changes a start, drawn for any task, to one for this task, and draws its show.
    choose: returns which answer the gripper gives in a state, or None.
    goes_on: returns whether the show goes on in a state, to its next moment.
    """

    prepare: Callable[[Start, np.random.Generator], tuple[Start, Show]]
    choose: Callable[[State], str | None]
    goes_on: Callable[[State], bool] = lambda state: True  # noqa: ARG005

    def follow(self, state: State, presses: int) -> Past:
        """Return the past that includes the present state; state.past is that before it.

        presses: how often the button was pressed since the task began.
        """
        past = replace(state.past, presses=presses)
        state = replace(state, past=past)
        moment = past.moment + int(self.goes_on(state))
        return replace(past, choice=past.choice or self.choose(state), moment=moment)


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
    memory: what the task has in addition if one needs memory to do it. Such a task begins in a
        scene of its own, and never before or after another task.
    """

    task: Task
    done: Oracle
    expert: experts.Expert
    needs: Mapping[str, float] = field(default_factory=dict)
    leaves: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    pushes: bool = False
    uses_up: bool = False
    memory: MemoryRules | None = None


def make_task(
    kind: str, name: str, max_steps: int, tier: str, colour: str = "", below: str = ""
) -> Task:
    """Return a task with the instructions of its kind, some of them for evaluation alone.

    colour, below: colours of the block that is moved, and of the block below it.
    """
    texts = tuple(text.format(c=colour, b=below) for text in INSTRUCTIONS[kind])
    return Task(
        name,
        texts[:-HELD_OUT],
        max_steps,
        held_out=texts[-HELD_OUT:],
        tier=tier,
        by_default=tier != MEMORY,
    )
