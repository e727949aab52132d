"""Long work in short steps, so that no thread keeps the interpreter from event loops.

A single call into C (a copy, a search, a decoder) is not interrupted, however long it takes; and
a thread that runs Python is asked to give the interpreter away only after 5 ms. So whatever grows
with a session is done in steps of bounded size, and after each of them `Pace.step` is called.
"""

from __future__ import annotations

import time
from typing import Final

SLICE: Final = 256 * 1024
"""Bytes that are read or written at once."""

CHUNK: Final = 64 * 1024
"""Bytes after which a chunk of message lines ends: so many are decoded at once."""

# How long a thread may keep the interpreter between two steps, in seconds.
_TURN: Final = 0.001

# A real sleep, however short: with a sleep of 0 Python may be back for the interpreter before
# whoever waits for it has woken up, which then waits for its turn anew.
_PAUSE: Final = 1e-6


class Pace:
    """Gives the interpreter to other threads once in a millisecond of work."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def step(self) -> None:
        """Give way if it is time."""
        if time.perf_counter() - self._since >= _TURN:
            time.sleep(_PAUSE)
            self._since = time.perf_counter()
