"""What belongs to the whole interpreter process: forks, and the drain at its exit.

Threads do not survive a fork, and daemon threads do not survive the interpreter. So a
child process is told apart by a generation number, and before the interpreter goes, every
running tree is drained within a limit.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("sessionkeeper.otp")


class Drainable(Protocol):
    """What the drain at exit needs of a server."""

    @property
    def is_root(self) -> bool:
        """Whether nobody supervises it."""

    def drain(self, timeout: float | None = None) -> bool:
        """Finish what was accepted, then stop."""


class _Process:
    """The fork generation, the running servers and the limit of the drain."""

    __slots__ = ("exit_limit", "generation", "running")

    def __init__(self) -> None:
        self.generation = 0
        self.running: dict[int, Drainable] = {}
        self.exit_limit = 10.0


PROCESS = _Process()


def call_hook(hook: Callable[..., object], *args: Any) -> bool:
    """Call foreign code that must not hurt the caller; tell whether it went well.

    What it raises is logged. In the main thread, what is not an `Exception` passes through:
    there it is the user who presses Ctrl-C.

    Args:
        hook: what to call.
        args: with what.
    """
    try:
        hook(*args)
    except BaseException as error:
        if not isinstance(error, Exception) and current_thread() is main_thread():
            raise
        log.exception("the hook %r failed", hook)
        return False
    return True


def set_exit_limit(seconds: float) -> None:
    """Limit how long the drain at interpreter exit may take in all (default: 10 seconds)."""
    PROCESS.exit_limit = seconds


def _after_fork_in_child() -> None:
    PROCESS.generation += 1
    PROCESS.running = {}


def _drain_at_exit() -> None:
    deadline = time.monotonic() + PROCESS.exit_limit
    for server in reversed(list(PROCESS.running.values())):
        if not server.is_root:
            continue
        try:
            if not server.drain(max(0.0, deadline - time.monotonic())):
                log.error("%r was not drained before the interpreter exited", server)
        except Exception:
            log.exception("%r could not be drained at interpreter exit", server)


os.register_at_fork(after_in_child=_after_fork_in_child)
# Not an executor's hook: those run before this, and a drain must still work then.
atexit.register(_drain_at_exit)
