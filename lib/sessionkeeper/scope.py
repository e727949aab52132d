"""The sessions of one namespace: every method for sessions, and none for the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from sessionkeeper.changing import DEFAULT, Changing, Timeout
from sessionkeeper.engine.commands import Command, Within

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from sessionkeeper.config import Config
    from sessionkeeper.engine.validation import Validator
    from sessionkeeper.engine.values import Values
    from sessionkeeper.engine.view import View
    from sessionkeeper.events import Event, EventBus
    from sessionkeeper.otp import Reply
    from sessionkeeper.receipts import Receipt

T = TypeVar("T")


class SessionScope(Changing):
    """The sessions of one namespace of a store; `SessionStore.scope` makes it.

    What it changes goes through the store's mailbox, in the order in which it was sent, whoever
    sent it. It holds nothing of its own: closing it closes nothing, and when the store is closed
    it is, too.

    Args:
        store: What commands are sent through.
        namespace: Which namespace; checked.
        view: What callers see.
        events: What the store tells.
        values: How values of the application are converted.
        validators: What changes are checked with.
        left_open_at: See `Changing`.
    """

    def __init__(
        self,
        store: Changing,
        namespace: str,
        *,
        view: View,
        events: EventBus,
        values: Values,
        validators: tuple[Validator, ...],
        left_open_at: int | None,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._view = view
        self._events = events
        self._values = values
        self._validators = validators
        self._left_open_at = left_open_at

    @property
    def path(self) -> Path:
        """The folder of the store, absolute."""
        return self._store.path

    @property
    def config(self) -> Config:
        """The settings in force; they are the store's."""
        return self._store.config

    def ask(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> T:
        """Send a command for sessions of this namespace; see `SessionStore.ask`.

        What concerns the whole store, such as `Cleanup`, does so here, too.
        """
        return self._store.ask(Within(self._namespace, command), timeout=timeout)

    def submit(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> Reply[T]:
        """Queue a command for sessions of this namespace; see `SessionStore.submit`."""
        return self._store.submit(Within(self._namespace, command), timeout=timeout)

    def tell(self, command: Command[T]) -> Receipt[T]:
        """Send a command for sessions of this namespace; see `SessionStore.tell`."""
        return self._store.tell(Within(self._namespace, command))

    def flush(self, timeout: Timeout = DEFAULT) -> None:
        """Wait until all that was sent to the store before is done; see `SessionStore.flush`."""
        self._store.flush(timeout)

    def now(self) -> datetime:
        """What the store's wall clock says (aware, UTC)."""
        return self._store.now()

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event about a session of this namespace.

        See `SessionStore.subscribe`, which tells what concerns no session, too.
        """

        def happened(event: Event) -> None:
            if event.session_id is not None and event.namespace == self._namespace:
                callback(event)

        return self._events.subscribe(happened)

    def close(self) -> None:
        """Nothing: the store is closed by whoever opened it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._store!r}.scope({self._namespace!r})"

    def require_open(self) -> None:
        """See `Changing.require_open`."""
        self._store.require_open()
