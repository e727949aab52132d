"""Sending: how a command gets from its caller to the actor of an open store, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sessionkeeper.changing import DEFAULT, Changing, Default, Timeout
from sessionkeeper.engine.commands import CheckpointFiles, Command, CountSessions
from sessionkeeper.engine.validation import require_valid
from sessionkeeper.errors import (
    OutcomeUnknown,
    SessionKeeperError,
    StoreClosed,
    StoreReadOnly,
    ValidationFailed,
)
from sessionkeeper.otp import OtpError
from sessionkeeper.receipts import Receipt, Unread, translated

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.engine.commands import Prepared
    from sessionkeeper.otp import Reply
    from sessionkeeper.processes.tree import StoreTree

T = TypeVar("T")


class Sending(Changing):
    """Sends what `Changing` makes to the actor at the root of a tree, and waits for it.

    Subclasses set the tree, None if there is none to send to; what a command is checked with
    before it is sent; and the clock that checks go by.
    """

    _path: Path
    _tree: StoreTree | None
    _clock: Clock
    _unread: Unread
    _converts: bool
    _closed: bool

    def ask(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> T:
        """Send a command and wait for its answer.

        Args:
            command: What to do; checked and encoded in this thread before it is sent.
            timeout: Seconds; the store's `call_timeout` if left out, None for as long as it takes.

        Raises:
            NotExecuted: The store did not get to it in time; it has not happened and will not.
            OutcomeUnknown: The store was at it when the time was over.
            StoreBusy: The mailbox stayed full.
            StoreClosed: The store is closed.
            SessionKeeperError: The command was refused; nothing has changed.
        """
        tree = self._writer()
        prepared = self._prepared(command)
        seconds = tree.config.call_timeout if isinstance(timeout, Default) else timeout
        submission = tree.submission(prepared)
        try:
            answer: T = tree.actor.call(submission, seconds, size=prepared.size())
        except OtpError as error:
            told = translated(error)
            if not isinstance(told, OutcomeUnknown):
                tree.discard(submission)
            raise told from error
        return answer

    def submit(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> Reply[T]:
        """Queue a command and return its reply at once: what `tell` and event loops build on.

        Args:
            command: What to do; checked and encoded in this thread before it is queued.
            timeout: Seconds after which it is not begun any more; the store's `call_timeout` if
                left out, None for as long as it takes.

        Raises:
            OtpError: It was not queued; `receipts.translated` has the store's word for it.
        """
        tree = self._writer()
        prepared = self._prepared(command)
        seconds = tree.config.call_timeout if isinstance(timeout, Default) else timeout
        submission = tree.submission(prepared)
        try:
            return tree.actor.send_request(submission, timeout=seconds, size=prepared.size())
        except OtpError:
            tree.discard(submission)
            raise

    def tell(self, command: Command[T]) -> Receipt[T]:
        """Send a command without waiting for its answer.

        Args:
            command: What to do; checked and encoded in this thread before it is sent.

        Returns:
            The receipt. If nobody looks at a failure, `flush` or `close` raises it.

        Raises:
            StoreBusy: The mailbox stayed full for `call_timeout` seconds.
            StoreClosed: The store is closed.
        """
        try:
            reply = self.submit(command, timeout=None)
        except OtpError as error:
            raise translated(error) from error
        receipt: Receipt[T] = Receipt(reply)
        self._unread.watch(receipt)
        return receipt

    def flush(self, timeout: Timeout = DEFAULT) -> None:
        """Wait until all that was sent before is done.

        Args:
            timeout: Seconds; the store's `call_timeout` if left out, None for as long as it takes.

        Raises:
            UnreadFailures: A command sent with `tell` failed and nobody looked at its receipt.
            NotExecuted: It was not done within the timeout; it goes on.
        """
        if self._tree is not None:
            self.ask(CountSessions(), timeout=timeout)
        self._unread.raise_if_any()

    def checkpoint(self, timeout: float | None = 30.0) -> None:
        """Wait until every session file is current and durable.

        Changes are durable before; this is for whoever reads the files beside the store.

        Args:
            timeout: Seconds; None for as long as it takes.

        Raises:
            StoreReadOnly: The store is open for reading only.
            StorageFailed: The medium refused; nothing is lost, the journal holds everything.
            NotExecuted: It was not done within the timeout; it goes on.
            OutcomeUnknown: It was under way when the timeout came.
        """
        self.ask(CheckpointFiles(), timeout=timeout)

    def _prepared(self, command: Command[T]) -> Prepared[T]:
        if self._converts:
            command = command.converted(self._values)
        prepared = command.prepare()
        if self._validators:
            self._validate(prepared)
        return prepared

    def _validate(self, prepared: Prepared[Any]) -> None:
        rest = self._view, self._clock, self._validators, self._values.revive
        try:
            require_valid(prepared, *rest)
        except ValidationFailed:
            raise
        except SessionKeeperError:
            # It may build upon what was told before and is still waiting in the mailbox.
            tree = self._writer()
            try:
                tree.actor.call(tree.submission(CountSessions()), tree.config.call_timeout)
            except OtpError as error:
                raise translated(error) from error
            require_valid(prepared, *rest)

    def require_open(self) -> None:
        """See `Changing.require_open`."""
        tree = self._writer()
        if self._closed or tree.exit_reason is not None:
            raise StoreClosed("the store is closed")

    def _writer(self) -> StoreTree:
        if self._tree is None:
            raise StoreReadOnly("the store was opened for reading only", path=self._path)
        return self._tree
