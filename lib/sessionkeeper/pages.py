"""Lists of sessions: pages, and live sessions among those stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, overload

from sessionkeeper.errors import InvalidQuery

if TYPE_CHECKING:
    from sessionkeeper.session import SessionInfo

T = TypeVar("T")

SessionOrder: TypeAlias = Literal[
    "changed",
    "-changed",
    "created",
    "-created",
    "updated",
    "-updated",
    "title",
    "-title",
    "cost",
    "-cost",
    "messages",
    "-messages",
    "id",
    "-id",
]
"""What sessions are listed by, the lowest first; with a `-` in front, the highest first."""


class Page(Sequence[T]):
    """Part of a list, with the cursor that continues it.

    Attributes:
        cursor: Give it to the same call for the next page; None at the end.
    """

    __slots__ = ("_items", "cursor")

    def __init__(self, items: Sequence[T], cursor: str | None) -> None:
        self._items = tuple(items)
        self.cursor = cursor

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Page):
            return self._items == other._items and self.cursor == other.cursor
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a page is compared, never a key

    def __repr__(self) -> str:
        return f"Page({list(self._items)!r}, cursor={self.cursor!r})"


class LiveSession(Protocol):
    """What an application holds of a session it is at work on, for `SessionStore.merge_recent`."""

    @property
    def session_id(self) -> str:
        """The id."""
        ...

    @property
    def updated_at(self) -> datetime:
        """When it was last changed (aware)."""
        ...


L = TypeVar("L", bound=LiveSession)


def merge_newest(live: Iterable[L], stored: Iterable[SessionInfo]) -> list[L | SessionInfo]:
    """Both together without doubles, the one changed last first; a live one hides its stored self.

    Raises:
        TypeError: A live one has no id, or no time.
        InvalidQuery: A time without a time zone.
    """
    newest: dict[str, L] = {}
    for session in live:
        session_id: object = session.session_id
        updated_at: object = session.updated_at
        if not isinstance(session_id, str) or not isinstance(updated_at, datetime):
            raise TypeError(f"{session!r} has no session_id or updated_at")
        if updated_at.tzinfo is None:
            raise InvalidQuery(f"updated_at of {session_id!r} is without a time zone")
        if session_id not in newest or newest[session_id].updated_at < updated_at:
            newest[session_id] = session
    kept = (info for info in stored if info.session_id not in newest)
    return sorted((*newest.values(), *kept), key=lambda each: each.updated_at, reverse=True)
