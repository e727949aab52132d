"""A lean one-shot reply that threads wait for and event loops await."""

from __future__ import annotations

import logging
from threading import TIMEOUT_MAX, Lock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from sessionkeeper.otp.errors import ForkedError
from sessionkeeper.otp.runtime import PROCESS, call_hook

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

T = TypeVar("T")
log = logging.getLogger("sessionkeeper.otp")

_PENDING: Final = 0
_CLAIMED: Final = 1
_DONE: Final = 2

_LOCK_TYPE: Final = type(Lock())


class Reply(Generic[T]):
    """The reply to one request: set once, by whoever is first.

    The reading side is that of `concurrent.futures.Future`; besides, it can be awaited on
    asyncio. For another event loop, build on `add_done_callback`, with trio for instance
    ``reply.add_done_callback(lambda _: token.run_sync_soon(event.set))``.

    A `concurrent.futures.Future` makes a condition with its locks for each instance; this
    one makes a bare lock, and a second one only where a thread really waits.
    """

    __slots__ = ("_error", "_generation", "_mutex", "_state", "_value", "_waiting")

    def __init__(self) -> None:
        self._mutex = Lock()
        self._state = _PENDING
        self._waiting: list[Any] | None = None
        self._generation = PROCESS.generation
        self._value: T | None
        self._error: BaseException | None

    def __repr__(self) -> str:
        names = {_PENDING: "pending", _CLAIMED: "executing", _DONE: "done"}
        return f"<Reply {names[self._state]}>"

    # -- for whoever waits

    def done(self) -> bool:
        """Tell whether the outcome is there."""
        return self._state == _DONE

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the outcome and tell whether it is there.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            ForkedError: it was pending when this process was forked.
        """
        if self._state == _DONE:
            return True
        if timeout is not None and timeout <= 0:
            return False
        if self._generation != PROCESS.generation:
            raise ForkedError("this reply is pending in the parent process")
        latch = Lock()
        latch.acquire()
        if not self._join_waiting(latch):
            return True
        if timeout is None:
            return latch.acquire()
        if latch.acquire(timeout=min(timeout, TIMEOUT_MAX)):
            return True
        with self._mutex:
            if self._waiting is not None:
                self._waiting.remove(latch)
        return self.done()

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the server answered with.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: no outcome in time; the request itself goes on.
            ForkedError: it was pending when this process was forked.
        """
        if self._state != _DONE and not self.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} seconds")
        if self._error is None:
            return cast("T", self._value)
        try:
            raise self._error
        finally:
            # The traceback refers to this frame: do not let it keep the reply alive.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None if there is a value; otherwise like `result`."""
        if self._state != _DONE and not self.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} seconds")
        return self._error

    def add_done_callback(self, callback: Callable[[Reply[T]], object]) -> None:
        """Call `callback(self)` once the outcome is there; at once if it is there already.

        It runs in the thread that settles the reply, so it must be quick. What it raises is
        logged and hurts nobody.
        """
        if not self._join_waiting(callback):
            call_hook(callback, self)

    def __await__(self) -> Generator[Any, None, T]:
        if self._state != _DONE:
            # Whoever awaits on asyncio has imported it; nobody else shall pay for it.
            import asyncio  # noqa: PLC0415

            loop = asyncio.get_running_loop()
            waiter = loop.create_future()

            def wake(_reply: Reply[T]) -> None:
                try:
                    loop.call_soon_threadsafe(_set_unless_done, waiter)
                except RuntimeError:
                    log.debug("the event loop was closed before its reply came")

            self.add_done_callback(wake)
            yield from waiter
        return self.result(0)

    # -- for whoever settles

    def set_result(self, value: T) -> bool:
        """Settle with a value; False if it was settled before. Never raises."""
        return self._settle(value, None)

    def set_exception(self, error: BaseException) -> bool:
        """Settle with an error; False if it was settled before. Never raises."""
        return self._settle(None, error)

    def withdraw(self, error: BaseException) -> bool:
        """Take the request back with `error`; False if execution has begun or ended.

        The server never sees a request that was withdrawn.
        """
        return self._settle(None, error, below=_CLAIMED)

    def claim(self) -> bool:
        """Mark it as executing, after which it cannot be withdrawn; False if it was."""
        with self._mutex:
            if self._state != _PENDING:
                return False
            self._state = _CLAIMED
            return True

    def unclaim(self) -> None:
        """Mark it as waiting again: its request went back into the queue."""
        with self._mutex:
            if self._state == _CLAIMED:
                self._state = _PENDING

    # -- inside

    def _settle(self, value: T | None, error: BaseException | None, below: int = _DONE) -> bool:
        with self._mutex:
            if self._state >= below:
                return False
            self._value = value
            self._error = error
            self._state = _DONE
            waiting = self._waiting
            self._waiting = None
        if waiting is not None:
            for entry in waiting:
                if type(entry) is _LOCK_TYPE:
                    entry.release()
                else:
                    call_hook(entry, self)
        return True

    def _join_waiting(self, entry: object) -> bool:
        with self._mutex:
            if self._state == _DONE:
                return False
            if self._waiting is None:
                self._waiting = [entry]
            else:
                self._waiting.append(entry)
            return True


def _set_unless_done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
