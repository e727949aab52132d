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
from dataclasses import dataclass, field
from threading import current_thread, local, main_thread
from typing import TYPE_CHECKING, Any

from sessionkeeper.otp.errors import ForkedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.otp.server_ref import ServerRef

log = logging.getLogger("sessionkeeper.otp")


@dataclass(slots=True)
class _Process:
    """The fork generation, the handles of running servers and the limit of the drain.

    Withdrawals are counted so that a mailbox looks for gaps only if there may be any; two at
    the same moment may count as one.
    """

    generation: int = 0
    withdrawals: int = 0
    exit_limit: float = 10.0
    running: dict[ServerRef, None] = field(default_factory=dict)


class _Here(local):
    """Whose thread this is."""

    ref: ServerRef | None = None


PROCESS = _Process()
HERE = _Here()


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


def check_process(generation: int) -> None:
    """Raise `ForkedError` in a fork of the process in which it had that generation."""
    if generation != PROCESS.generation:
        raise ForkedError("it belongs to the parent process")


def set_exit_limit(seconds: float) -> None:
    """Limit how long the drain at interpreter exit may take in all (default: 10 seconds)."""
    PROCESS.exit_limit = seconds


def _after_fork_in_child() -> None:
    PROCESS.generation += 1
    PROCESS.running = {}


def _drain_at_exit() -> None:
    deadline = time.monotonic() + PROCESS.exit_limit
    for ref in [ref for ref in reversed(PROCESS.running) if ref.supervisor is None]:
        try:
            if not ref.drain(max(0.0, deadline - time.monotonic())):
                log.error("%r was not drained before the interpreter exited", ref)
        except Exception:
            log.exception("%r could not be drained at interpreter exit", ref)


os.register_at_fork(after_in_child=_after_fork_in_child)
# Not an executor's hook: those run before this, and a drain must still work then.
atexit.register(_drain_at_exit)
