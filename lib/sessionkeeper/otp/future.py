"""A lean one-shot reply that threads wait for and event loops await."""

from __future__ import annotations

from functools import partial
from threading import TIMEOUT_MAX, Lock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from sessionkeeper.otp.runtime import PROCESS, call_hook, check_process, log

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Generator

T = TypeVar("T")

PENDING: Final = 0
CLAIMED: Final = 1
DONE: Final = 2


def acquire_within(lock: LockType, timeout: float | None) -> bool:
    """Acquire a lock within so many seconds, however many, None for ever; tell whether."""
    return lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), TIMEOUT_MAX))


class Reply(Generic[T]):
    """The reply to one request: set once, by whoever is first.

    The reading side is that of `concurrent.futures.Future`; besides, it can be awaited on
    asyncio. For another event loop, build on `add_done_callback`, with trio for instance
    ``reply.add_done_callback(lambda _: token.run_sync_soon(event.set))``.

    A `concurrent.futures.Future` makes a condition with its locks for each instance; this
    one makes a bare lock, and a second one only where a thread really waits.
    """

    __slots__ = ("_error", "_generation", "_mutex", "_value", "_waiting", "state")

    def __init__(self) -> None:
        self._mutex = Lock()
        self.state = PENDING
        self._waiting: list[Callable[[], object]] | None = None
        self._generation = PROCESS.generation
        self._value: T | None
        self._error: BaseException | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {('pending', 'executing', 'done')[self.state]}>"

    # -- for whoever waits

    def done(self) -> bool:
        """Tell whether the outcome is there."""
        return self.state == DONE

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the outcome and tell whether it is there.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            ForkedError: it was pending when this process was forked.
        """
        if self.state != DONE and (timeout is None or timeout > 0):
            check_process(self._generation)
            latch = Lock()
            latch.acquire()
            if self._join_waiting(latch.release) and not acquire_within(latch, timeout):
                with self._mutex:
                    if self._waiting is not None:
                        self._waiting.remove(latch.release)
        return self.state == DONE

    def latch(self) -> LockType:
        """Return a locked lock that the outcome releases; only for who made this, and at once.

        As long as nobody else knows of this reply, it takes less than `wait`.
        """
        latch = Lock()
        latch.acquire()
        self._waiting = [latch.release]
        return latch

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the server answered with.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: no outcome in time; the request itself goes on.
            ForkedError: it was pending when this process was forked.
        """
        error = self.exception(timeout)
        if error is None:
            return cast("T", self._value)
        try:
            raise error
        finally:
            # The traceback refers to this frame: do not let it keep the reply alive.
            del self, error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None if there is a value; otherwise like `result`."""
        if self.state != DONE and not self.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} seconds")
        return self._error

    def add_done_callback(self, callback: Callable[[Reply[T]], object]) -> None:
        """Call `callback(self)` once the outcome is there; at once if it is there already.

        It runs in the thread that settles the reply, so it must be quick. What it raises is
        logged and hurts nobody.
        """
        call = partial(call_hook, callback, self)
        if not self._join_waiting(call):
            call()

    def __await__(self) -> Generator[Any, None, T]:
        if self.state != DONE:
            # Whoever awaits on asyncio has imported it; nobody else shall pay for it.
            import asyncio  # noqa: PLC0415

            loop = asyncio.get_running_loop()
            woken = asyncio.Event()

            def wake(_reply: Reply[T]) -> None:
                try:
                    loop.call_soon_threadsafe(woken.set)
                except RuntimeError:
                    log.debug("the event loop was closed before its reply came")

            self.add_done_callback(wake)
            yield from woken.wait().__await__()
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
        withdrawn = self._settle(None, error, below=CLAIMED)
        PROCESS.withdrawals += 1
        return withdrawn

    def claim(self) -> bool:
        """Mark it as executing, after which it cannot be withdrawn; False if it was."""
        return self._move(PENDING, CLAIMED)

    def unclaim(self) -> bool:
        """Mark it as waiting again; False unless it was executing."""
        return self._move(CLAIMED, PENDING)

    # -- inside; `with` takes twice as long as what is done here for each message

    def _move(self, before: int, after: int) -> bool:
        self._mutex.acquire()
        try:
            if self.state != before:
                return False
            self.state = after
            return True
        finally:
            self._mutex.release()

    def _settle(self, value: T | None, error: BaseException | None, below: int = DONE) -> bool:
        self._mutex.acquire()
        try:
            if self.state >= below:
                return False
            self._value = value
            self._error = error
            self.state = DONE
            waiting, self._waiting = self._waiting, None
        finally:
            self._mutex.release()
        if waiting is not None:
            for wake in waiting:
                wake()
        return True

    def _join_waiting(self, wake: Callable[[], object]) -> bool:
        with self._mutex:
            if self.state == DONE:
                return False
            self._waiting = [*(self._waiting or ()), wake]
            return True
