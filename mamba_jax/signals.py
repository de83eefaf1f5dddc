"""Stopping a run from outside without losing work."""

import os
import signal
from types import FrameType
from typing import Any

from mamba_jax.processes import largest

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM and Ctrl-C while it is entered; a second signal of the same kind ends the process at once.

    number: the signal that came to this process, 0 if none.
    """

    def __init__(self) -> None:
        self.number = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in STOP_SIGNALS:
            self.previous[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def told(self) -> int:
        """The signal that came to any of the processes that train together, 0 if none; all of them must ask."""
        return largest(self.number)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        del frame
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        text = "\nStopping: a checkpoint is saved at the end of this round; repeat to stop at once and lose it.\n"
        os.write(2, text.encode())  # printing is not safe in a signal handler
