"""Checks of whole sessions: a few built in, others the application's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sessionkeeper.engine.apply import Transaction
from sessionkeeper.errors import InvalidConfig, ValidationFailed
from sessionkeeper.keys import named
from sessionkeeper.retention import Retention
from sessionkeeper.session import Session
from sessionkeeper.storage.backend import Append, Put

if TYPE_CHECKING:
    from typing import Any

    from sessionkeeper.clock import Clock
    from sessionkeeper.engine.commands import Prepared
    from sessionkeeper.engine.view import View
    from sessionkeeper.storage.documents import Document, Record

Validator = Callable[[Session], Iterable[str] | None]
"""Gets a session as it would be, and returns what is wrong with it, or raises."""


def has_description(session: Session) -> list[str]:
    """Its title says what it is."""
    return [] if session.title and session.title.strip() else ["it has no title"]


def times_in_order(session: Session) -> list[str]:
    """It was created before it was changed, and completed in between."""
    issues = []
    if session.updated_at < session.created_at:
        issues.append("it was changed before it was created")
    done = session.completed_at
    if done is not None and not session.created_at <= done <= session.updated_at:
        issues.append("it was not completed between its creation and its last change")
    return issues


def counts_agree(session: Session) -> list[str]:
    """It has as many messages as it says."""
    said, found = session.info.message_count, len(session.messages)
    return [] if said == found else [f"it says {said} messages and has {found}"]


def ids_unique(session: Session) -> list[str]:
    """No two annotations, and no two events, have one id."""
    issues = []
    for what, ids in (
        ("annotations", [note.id for note in session.annotations]),
        ("events", [event.id for event in session.events]),
    ):
        if len(set(ids)) < len(ids):
            issues.append(f"two {what} have the same id")
    return issues


CHECKS: Final[dict[str, Validator]] = {
    "description": has_description,
    "times": times_in_order,
    "counts": counts_agree,
    "ids": ids_unique,
}
"""The checks that can be named."""

# What holds of every session, whatever the application means by it.
INTEGRITY: Final = (times_in_order, counts_agree, ids_unique)


def check_validators(validators: Iterable[Validator | str]) -> tuple[Validator, ...]:
    """The functions that a caller means.

    Raises:
        InvalidConfig: An unknown name, or something that cannot be called.
    """
    if isinstance(validators, str):
        raise InvalidConfig("validators is a list, also of one name")
    found: list[Validator] = []
    for validator in validators:
        if isinstance(validator, str):
            if validator not in CHECKS:
                raise InvalidConfig(
                    f"there is no check {validator!r}; known are {', '.join(CHECKS)}",
                )
            found.append(CHECKS[validator])
        elif callable(validator):
            found.append(validator)
        else:
            raise InvalidConfig(f"validators holds {validator!r}, which cannot be called")
    return tuple(found)


def issues_of(session: Session, validators: Iterable[Validator]) -> list[str]:
    """All that the validators find wrong, each thing once.

    Raises:
        TypeError: One returned something else than a list of texts.
    """
    issues: dict[str, None] = {}
    for validator in validators:
        name = getattr(validator, "__name__", repr(validator))
        try:
            found: Any = validator(session)
        except Exception as error:  # noqa: BLE001 - raising is how a validator refuses
            found = [f"{name}: {error}" if str(error) else f"{name}: {type(error).__name__}"]
        if found is None:
            continue
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise TypeError(f"{name} returned {type(found).__name__}, not a list of issues")
        issues.update((str(issue), None) for issue in found)
    return list(issues)


class _Seen:
    """What a command would be applied to, as any thread may look at it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.record = view.record
        self.trashed = view.trashed
        self.backup = view.backup
        self.newest_first = view.newest_first
        self.count = view.count
        self.namespaces = view.namespaces

    def document(self, session_id: str) -> Document | None:
        """The whole session, or None."""
        return self._view.load(session_id)

    def at_hand(self, session_id: str) -> Document | None:
        """None: an append is looked at with all that was there before."""
        del session_id
        return None


def require_valid(
    command: Prepared[object],
    view: View,
    clock: Clock,
    validators: Iterable[Validator],
    revive: Callable[[Any], Any] | None,
) -> None:
    """Refuse a command that would leave a session of which something is wrong.

    It is tried out upon what is visible now; nothing is changed by that.

    Raises:
        ValidationFailed: Something is wrong; the error names all of it.
        SessionKeeperError: The command would be refused.
    """
    if command.concerns() is None:
        return
    view.wait_readable()
    trial = Transaction(_Seen(view), view.lsn, clock, Retention(None, None))
    trial.run(command, "trial")
    for change in trial.changes:
        if isinstance(change, Put):
            _require_valid(change.document, validators, revive)
        elif isinstance(change, Append):
            before = view.load(change.record.session_id)
            _require_valid(change.upon(before), validators, revive)


def _require_valid(
    document: Document,
    validators: Iterable[Validator],
    revive: Callable[[Any], Any] | None,
) -> None:
    record: Record = document.record
    issues = issues_of(document.session(revive=revive), validators)
    if issues:
        raise ValidationFailed(
            f"session {named(record.session_id)} would not be valid: {'; '.join(issues)}",
            session_id=record.session_id,
            issues=issues,
        )
