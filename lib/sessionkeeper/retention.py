"""Which sessions a cleanup removes, and why: pure decisions, no side effects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from sessionkeeper.session import UNFINISHED, Removal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkeeper.session import Basis


class Retained(Protocol):
    """What retention has to know of a session."""

    @property
    def session_id(self) -> str:
        """The id."""
        ...

    @property
    def created_at(self) -> datetime:
        """When it was first saved."""
        ...

    @property
    def updated_at(self) -> datetime:
        """When it was last changed."""
        ...

    @property
    def completed_at(self) -> datetime | None:
        """When it was completed, or None."""
        ...

    @property
    def persisted_until(self) -> datetime | None:
        """Until when it was promised to be kept, or None."""
        ...

    @property
    def status(self) -> str | None:
        """The application's word, or None."""
        ...

    @property
    def pinned(self) -> bool:
        """Whether it is to stay."""
        ...


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how many sessions are kept; None is for ever and without limit.

    Attributes:
        days: The age at which a session goes.
        max_sessions: So many are kept.
        basis: What the age counts from: `completed`, its completion, or while it has none its
            last change; `updated`, its last change; `created`, its first save.
    """

    days: float | None
    max_sessions: int | None
    basis: Basis = "completed"

    def deadline(self, promised: datetime | None, now: datetime) -> datetime | None:
        """The `persistedUntil` to store with a session changed now; never shortens a promise."""
        until = _later(now, self.days) if self.days is not None else None
        if until is not None:
            # Whole milliseconds, as the file has it; upwards, for a promise never ends earlier.
            until += timedelta(microseconds=-until.microsecond % 1000)
        if until is None or promised is None:
            return until or promised
        return max(until, promised)

    def removals(self, newest_first: Iterable[Retained], now: datetime) -> list[Removal]:
        """Decide what is to go.

        Pinned and unfinished sessions are protected and count towards no limit.

        Args:
            newest_first: All sessions, the one changed last first.
            now: The wall clock.
        """
        found: list[Removal] = []
        kept = 0
        for session in newest_first:
            if session.pinned or session.status in UNFINISHED:
                continue
            expired = self._expired(session, now)
            if expired:
                found.append(Removal(session.session_id, "age", expired))
            elif self.max_sessions is not None and kept >= self.max_sessions:
                detail = f"more than {self.max_sessions} sessions"
                found.append(Removal(session.session_id, "count", detail))
            else:
                kept += 1
        return found

    def _expired(self, session: Retained, now: datetime) -> str | None:
        if self.days is None:
            return None
        end = _later(self._beginning(session), self.days)
        if end is None or now <= end:
            return None
        if session.persisted_until is not None and now <= session.persisted_until:
            return None
        return f"older than {self.days:g} days"

    def _beginning(self, session: Retained) -> datetime:
        match self.basis:
            case "completed":
                return session.completed_at or session.updated_at
            case "updated":
                return session.updated_at
            case "created":
                return session.created_at


def _later(start: datetime, days: float) -> datetime | None:
    try:
        return start + timedelta(days=days)
    except OverflowError:
        return None  # past year 9999: for ever
