"""Which sessions a cleanup removes, and why: pure decisions, no side effects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from sessionkeeper.answers import Decision, Removal
from sessionkeeper.session import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.answers import Reason
    from sessionkeeper.session import Basis

# They go for their age, or are protected: neither takes a place among `max_sessions`.
_UNCOUNTED: Final[frozenset[Reason]] = frozenset(("age", "pinned", "unfinished"))


class Retained(Protocol):
    """What retention has to know of a session."""

    @property
    def key(self) -> str:
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
        if self.days is None and self.max_sessions is None:
            return []
        return [
            Removal.of(session.key, reason, self._detail(session, reason, now))
            for session, reason in self._judged(newest_first, now)
            if reason in ("age", "count")
        ]

    def decisions(self, newest_first: Iterable[Retained], now: datetime) -> list[Decision]:
        """Decide about every session, and say why; for arguments see `removals`."""
        return [
            Decision.of(
                session.key,
                reason in ("age", "count"),
                reason,
                self._detail(session, reason, now),
            )
            for session, reason in self._judged(newest_first, now)
        ]

    def _judged(
        self,
        newest_first: Iterable[Retained],
        now: datetime,
    ) -> Iterator[tuple[Retained, Reason]]:
        kept = 0
        for session in newest_first:
            reason = self._protection(session) or self._reason_of_age(session, now)
            if reason not in _UNCOUNTED:
                if self.max_sessions is not None and kept >= self.max_sessions:
                    reason = "count"
                else:
                    kept += 1
            yield session, reason

    def _protection(self, session: Retained) -> Reason | None:
        if session.pinned:
            return "pinned"
        return "unfinished" if session.status in UNFINISHED else None

    def _reason_of_age(self, session: Retained, now: datetime) -> Reason:
        if self.days is None:
            return "unlimited" if self.max_sessions is None else "newest"
        end = _later(self._beginning(session), self.days)
        if end is None or now <= end:
            return "young"
        if session.persisted_until is not None and now <= session.persisted_until:
            return "promised"
        return "age"

    def _detail(  # noqa: PLR0911 - one return for each reason
        self,
        session: Retained,
        reason: Reason,
        now: datetime,
    ) -> str:
        match reason:
            case "age":
                return f"older than {self.days:g} days"
            case "count":
                return f"more than {self.max_sessions} sessions"
            case "pinned":
                return "it is pinned"
            case "unfinished":
                return f"its status is {session.status}"
            case "promised":
                return f"it was promised to be kept until {session.persisted_until}"
            case "young":
                age = (now - self._beginning(session)) / timedelta(days=1)
                return f"{max(age, 0.0):.1f} of {self.days:g} days old"
            case "newest":
                return f"among the newest {self.max_sessions}"
            case "unlimited":
                return "no limit is set"

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
