"""Remembers that Ctrl-C was pressed."""

import signal
import threading
from types import FrameType
from typing import Self


class CtrlC:
    """Remembers whether Ctrl-C was pressed; a context manager.

    Ctrl-C raises KeyboardInterrupt as ever. A library whose compiled code is being imported may
    lose it, or make another error of it.
    """

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> Self:
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.default_int_handler(number, frame)
