"""Threads of our own for what would block an event loop.

Not `concurrent.futures`: its executors refuse work while the interpreter exits, which is when
stores are closed.
"""

from __future__ import annotations

import itertools
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.errors import StoreClosed
from sessionkeeper.otp import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

_numbers = itertools.count(1)


class _Stop:
    pass


_STOP: Final = _Stop()


class Workers:
    """A few daemon threads that run functions and settle replies with what they return.

    Threads are started when there is work and none is idle, up to `limit`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: SimpleQueue[tuple[Reply[Any], Callable[[], Any]] | _Stop] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, work: Callable[[], Any]) -> Reply[Any]:
        """Run `work` on a worker; a reply that is withdrawn before it begins is not begun.

        Raises:
            StoreClosed: The workers were stopped.
        """
        reply: Reply[Any] = Reply()
        with self._lock:
            if self._closed:
                raise StoreClosed("the store is closed")
            self._queue.put((reply, work))
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                name = f"sessionkeeper-worker-{next(_numbers)}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
        return reply

    def stop(self) -> None:
        """Let the threads end after what is queued; nothing is accepted any more."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._queue.put(_STOP)

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            if isinstance(entry, _Stop):
                return
            reply, work = entry
            if reply.claim():
                try:
                    reply.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                    reply.set_exception(error)
            del entry, reply, work
            with self._lock:
                self._idle += 1
