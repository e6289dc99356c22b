"""Undoes what the import of a plugin changes for all code of the process, and says what it was."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def undoing_changes(note: Callable[[str], None]) -> Iterator[None]:
    """Undo, at the end of the block, what the block changed of the state that all parts share.

    note: called with a line for each change.
    """
    before = _state()
    yield
    after = _state()
    for name, (value, restore) in before.items():
        if after[name][0] != value:
            restore(value)
            note(
                f"its import changed {name} from {value} to {after[name][0]}, for all parts; "
                "this is undone: change it only where your code needs it"
            )


def _state() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Return {what: (its value, the function that sets it)}.

    A library that is not imported yet has no entry; built-in plugins, which come first, import all.
    """
    state: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "the working folder": (os.getcwd(), os.chdir)
    }
    if (numpy := sys.modules.get("numpy")) is not None:
        state["numpy's handling of errors"] = (
            numpy.geterr(),
            lambda errors: numpy.seterr(**errors),
        )
    if (torch := sys.modules.get("torch")) is not None:
        state |= {
            "torch's default dtype": (torch.get_default_dtype(), torch.set_default_dtype),
            "torch's default device": (torch.get_default_device(), torch.set_default_device),
            "whether torch computes gradients": (
                torch.is_grad_enabled(),
                torch.set_grad_enabled,
            ),
        }
    return state
