"""Answers that are still to come, and the errors of the floor below in the store's own words."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sessionkeeper import otp
from sessionkeeper.errors import (
    NotExecuted,
    OutcomeUnknown,
    SessionKeeperError,
    StoreBusy,
    StoreClosed,
    UnreadFailures,
)
from sessionkeeper.events import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.otp import Reply

T = TypeVar("T")

# More unread failures than this are counted, not kept.
MAX_KEPT_FAILURES = 1000


def translated(error: BaseException) -> BaseException:  # noqa: PLR0911 - one for each error
    """The store's word for an error of supervision; other errors are returned as they are."""
    match error:
        case otp.Busy():
            return StoreBusy("the mailbox stayed full")
        case otp.CallTimeout(executed=False):
            return NotExecuted("the store did not get to it in time")
        case otp.CallTimeout() | otp.OutcomeUnknown():
            return OutcomeUnknown("the store did not answer in time")
        case otp.ServerDown(executed=False):
            return StoreClosed(f"the store is closed: {error.reason}")
        case otp.ServerDown():
            return OutcomeUnknown(f"the store went down over it: {error.reason}")
        case otp.ForkedError():
            return StoreClosed(
                "this process is a fork of the one that opened the store",
                hint="Open the store in this process.",
            )
        case otp.SelfCall():
            return SessionKeeperError(
                "a subscriber called the store from within the store's own thread",
                hint="Hand the work to a thread of your own.",
            )
    return error


class Receipt(Generic[T]):
    """The answer to a command sent with `tell`, when it comes.

    It has the methods of `concurrent.futures.Future`. A failure that is never looked at is
    logged, and raised by the next `flush` or `close`.
    """

    __slots__ = ("_reply", "seen")

    def __init__(self, reply: Reply[T]) -> None:
        self._reply = reply
        self.seen = False

    def result(self, timeout: float | None = None) -> T:
        """Wait for the answer.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            TimeoutError: There is none yet; the command goes on.
            SessionKeeperError: The command failed.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._reply.result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the answer and return its error, or None if the command succeeded.

        Raises:
            TimeoutError: There is no answer yet.
        """
        error = self._reply.exception(timeout)
        self.seen = True
        return None if error is None else translated(error)

    def done(self) -> bool:
        """Whether the answer is there."""
        return self._reply.done()

    def on_error(self, callback: Callable[[Receipt[T]], Any]) -> None:
        """Call `callback` with this receipt if the command fails; at once if it has."""

        def tell(reply: Reply[T]) -> None:
            if reply.exception(0) is not None:
                callback(self)

        self._reply.add_done_callback(tell)

    def add_done_callback(self, callback: Callable[[Receipt[T]], Any]) -> None:
        """Call `callback` with this receipt once the answer is there; at once if it is."""
        self._reply.add_done_callback(lambda _: callback(self))


class Unread:
    """The failures of receipts that nobody has looked at yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._receipts: list[Receipt[Any]] = []
        self._dropped = 0

    def watch(self, receipt: Receipt[Any]) -> None:
        """Remember the receipt if it fails."""
        receipt.on_error(self._failed)

    def _failed(self, receipt: Receipt[Any]) -> None:
        seen = receipt.seen
        error = receipt.exception(0)
        receipt.seen = seen  # looking from in here does not count
        logger.error("a command sent with tell() failed: %s", error)
        with self._lock:
            self._receipts = [r for r in self._receipts if not r.seen]
            if len(self._receipts) < MAX_KEPT_FAILURES:
                self._receipts.append(receipt)
            else:
                self._dropped += 1

    def raise_if_any(self) -> None:
        """Raise what nobody has looked at, once.

        Raises:
            UnreadFailures: There is something.
        """
        with self._lock:
            receipts, self._receipts = self._receipts, []
            dropped, self._dropped = self._dropped, 0
        failures = [e for r in receipts if not r.seen and (e := r.exception(0)) is not None]
        if failures or dropped:
            raise UnreadFailures(
                f"{len(failures) + dropped} commands sent with tell() failed",
                failures=failures,
            )
