"""What commands do: deltas upon the sessions that are visible, collected for one commit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands import ABSENT
from sessionkeeper.errors import (
    Conflict,
    InvalidNamespace,
    InvalidValue,
    SessionExists,
    SessionNotFound,
    SessionTooLarge,
)
from sessionkeeper.keys import SEPARATOR, named, namespace_of
from sessionkeeper.session import COMPLETED, KEEP, Keep
from sessionkeeper.storage.backend import Append, Put, Trash, fulfilled
from sessionkeeper.storage.documents import (
    MAX_REMEMBERED_KEYS,
    NULL,
    Document,
    Record,
    Request,
)
from sessionkeeper.storage.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from sessionkeeper.answers import Decision, Removal
    from sessionkeeper.clock import Clock
    from sessionkeeper.engine.commands import Fields, Prepared, PreparedAppend, PreparedSave
    from sessionkeeper.retention import Retention
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.backend import Body, Change


class Visible(Protocol):
    """The sessions as callers see them now."""

    def record(self, session_id: str) -> Record | None:
        """The record of a session, or None."""
        ...

    def document(self, session_id: str) -> Document | None:
        """The whole session, or None."""
        ...

    def at_hand(self, session_id: str) -> Document | None:
        """The whole session if it is in memory, else None."""
        ...

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last, or None."""
        ...

    def backup(self, session_id: str, generation: int | None) -> Document:
        """A version that was replaced; the newest that is whole if none is named."""
        ...

    def newest_first(self) -> Iterable[Record]:
        """All records, the one changed last first."""
        ...

    def count(self, namespace: str | None) -> int:
        """How many sessions there are in a namespace; None: in all."""
        ...

    def namespaces(self) -> Iterable[str]:
        """The namespaces in which there are sessions."""
        ...


class Transaction:
    """The commands of one turn, each upon what those before it made.

    A command is computed whole before anything of it is entered, so one that is refused, or
    fails, leaves the transaction as it was.

    Attributes:
        changes: What is to be committed, in order.
        superseded: Bodies of versions that a later one of the same turn replaced.
        lsn: The highest log sequence number used so far.
    """

    def __init__(
        self,
        visible: Visible,
        lsn: int,
        clock: Clock,
        retention: Retention,
        max_size: int | None = None,
    ) -> None:
        self.changes: list[Change] = []
        self.superseded: list[Body] = []
        self.lsn = lsn
        self._visible = visible
        self._clock = clock
        self._retention = retention
        self._max_size = max_size
        # Sessions as this transaction leaves them; None: deleted by it.
        self._pending: dict[str, Record | None] = {}
        # Where in `changes` the newest Put or Append of a pending session stands.
        self._latest: dict[str, int] = {}

    def run(self, command: Prepared[object], request_id: str) -> object:
        """Apply one command; a request that was fulfilled before gets its answer again.

        Raises:
            SessionKeeperError: The command is refused; the transaction is as before.
        """
        session_id, key = command.concerns(), command.idempotency_key()
        record = self.record(session_id) if session_id is not None else None
        if record is not None and key is not None:
            answer = fulfilled(record, _keyed(key))
            if answer is not None:
                return answer
        return command.apply(self, request_id)

    # --- the commands -----------------------------------------------------------------------

    def save(self, command: PreparedSave, request_id: str) -> Saved:
        """Create a session or replace the fields given."""
        current = self.document(command.session_id)
        _check_generation(command, current)
        base = current or self.new(command.session_id)
        fields = command.fields
        record = base.record
        count, cost, chunks = record.message_count, record.total_cost, base.chunks
        if not isinstance(fields.messages, Keep):
            count, cost, chunks = fields.message_count, fields.cost, Lines(fields.messages)
        elif command.cost_given:
            cost = fields.cost
        elif fields.added:
            count += fields.message_count
            cost = _sum(cost, fields.cost)
            chunks = chunks.extended(fields.added)
        changed = self._next(record, request_id, command.idempotency_key(), count, cost)
        document = Document(
            _with_fields(changed, fields),
            chunks,
            base.state if isinstance(fields.state, Keep) else fields.state,
            base.annotations,
            base.events,
        )
        return self._enter(Put(document, command.body))

    def append(self, command: PreparedAppend, request_id: str) -> Saved:
        """Add messages at the end; what was there before is not touched, nor even read."""
        current = self.record(command.session_id)
        if current is not None and not command.message_count:
            return Saved.of(current.session_id, current.generation, current.message_count)
        base = current or self.new(command.session_id).record
        cost = _sum(base.total_cost, command.cost)
        changed = self._next(
            base,
            request_id,
            command.key,
            base.message_count + command.message_count,
            cost,
        )
        if current is None:
            return self._put(Document(changed, Lines(command.messages), NULL))
        return self._append(base, changed, command.messages)

    def trash(self, session_id: str, reason: str, request_id: str) -> bool:
        """Move a session to the trash; False if there is none."""
        record = self.record(session_id)
        if record is None:
            return False
        self.lsn += 1
        self.changes.append(Trash(record, self.lsn, reason, self._clock.now(), request_id))
        self._pending[session_id] = None
        self._latest.pop(session_id, None)
        return True

    def undelete(self, session_id: str, request_id: str) -> Saved:
        """Bring back what was deleted last."""
        self.require_absent(session_id)
        trashed = self._visible.trashed(session_id)
        if trashed is None:
            raise SessionNotFound(
                f"session {named(session_id)} is not in the trash",
                session_id=session_id,
            )
        return self.put(trashed, request_id)

    def expired(self, retention: Retention | None = None) -> list[Removal]:
        """What the retention settings remove now, those in force or others."""
        return (retention or self._retention).removals(self._newest_first(), self._clock.now())

    def decisions(self) -> list[Decision]:
        """What the retention settings do with each session now, and why."""
        return self._retention.decisions(self._newest_first(), self._clock.now())

    def _newest_first(self) -> Iterator[Record]:
        unchanged = (r for r in self._visible.newest_first() if r.session_id not in self._pending)
        changed = [record for record in self._pending.values() if record is not None]
        changed.sort(key=lambda record: -record.lsn)
        yield from changed
        yield from unchanged

    def count(self, namespace: str | None) -> int:
        """How many sessions a namespace, or the store, has after the commands so far."""
        count = self._visible.count(namespace)
        for session_id, record in self._pending.items():
            if namespace is None or namespace == namespace_of(session_id):
                existed = self._visible.record(session_id) is not None
                count += (record is not None) - existed
        return count

    # --- what other commands are made of ----------------------------------------------------

    def record(self, session_id: str) -> Record | None:
        """The record of a session after the commands so far, or None."""
        if session_id in self._pending:
            return self._pending[session_id]
        return self._visible.record(session_id)

    def document(self, session_id: str) -> Document | None:
        """The whole session after the commands so far, or None.

        Raises:
            SessionKeeperError: Its file cannot be read, or something is in its way.
        """
        if session_id not in self._pending:
            return self._visible.document(session_id)
        index = self._latest.get(session_id)
        change = None if index is None else self.changes[index]
        if isinstance(change, Append):
            return change.upon(self._visible.document(session_id))
        return change.document if isinstance(change, Put) else None

    def existing(self, session_id: str) -> Document:
        """The whole session after the commands so far.

        Raises:
            SessionNotFound: There is none.
        """
        document = self.document(session_id)
        if document is None:
            raise SessionNotFound(f"there is no session {named(session_id)}", session_id=session_id)
        return document

    def backup(self, session_id: str, generation: int | None) -> Document:
        """A version of a session that was replaced; the newest that is whole if none is named.

        Raises:
            NoBackup: Nothing is kept, or not that one.
            BackupsDamaged: What is kept cannot be read.
        """
        return self._visible.backup(session_id, generation)

    def amend(
        self,
        session_id: str,
        request_id: str,
        change: Callable[[Document], Document],
    ) -> Saved:
        """Make a function of what a session is its next version.

        Args:
            session_id: The session.
            request_id: The command that does it.
            change: Returns the session changed, or the very same one to leave it as it is.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: What `change` raises; nothing is entered.
        """
        current = self.existing(session_id)
        changed = change(current)
        if changed is current:
            record = current.record
            return Saved.of(session_id, record.generation, record.message_count)
        return self.put(changed, request_id)

    def require_absent(self, session_id: str) -> None:
        """Refuse a session that exists.

        Raises:
            SessionExists: It does.
        """
        record = self.record(session_id)
        if record is not None:
            raise SessionExists(
                f"session {named(session_id)} exists",
                session_id=session_id,
                expected=ABSENT,
                actual=record.generation,
            )

    def put(self, document: Document, request_id: str, *marks: str) -> Saved:
        """Enter a document as the next generation of the one in its record.

        Args:
            document: The session with its record as it was before.
            request_id: The command that does it.
            marks: Further ids by which this version is to be recognised.
        """
        record = document.record
        changed = self._next(record, request_id, None, record.message_count, record.total_cost)
        marked = (
            Request(mark, changed.generation, changed.message_count, keyed=False) for mark in marks
        )
        changed = replace(changed, requests=(*changed.requests, *marked))
        return self._put(replace(document, record=changed))

    def new(self, session_id: str) -> Document:
        """A session without anything, as the base of its first generation."""
        now = self._clock.now()
        return Document(
            Record(
                session_id=session_id,
                generation=0,
                lsn=0,
                created_at=now,
                updated_at=now,
                completed_at=None,
                persisted_until=None,
                status=None,
                title=None,
                summary=None,
                tags=(),
                message_count=0,
                total_cost=0.0,
            ),
            Lines(),
            NULL,
        )

    # --- their parts ------------------------------------------------------------------------

    def _next(
        self,
        record: Record,
        request_id: str,
        key: str | None,
        message_count: int,
        total_cost: float,
    ) -> Record:
        """The record of the next generation, with the request entered in it."""
        now: datetime = record.created_at
        if record.generation:
            now = max(self._clock.now(), now)
        generation = record.generation + 1
        # Requests of this turn all stay: after a crash their callers are still waiting. Of the
        # turns before only those matter that may come again.
        requests = record.requests
        if self._pending.get(record.session_id) is None:
            requests = tuple([r for r in requests if r.keyed][-MAX_REMEMBERED_KEYS:])
        requests += (Request(request_id, generation, message_count, keyed=False),)
        if key is not None:
            requests += (Request(_keyed(key), generation, message_count, keyed=True),)
        until = self._retention.deadline(record.persisted_until, now)
        return record.advanced(self.lsn + 1, now, until, message_count, total_cost, requests)

    def _put(self, document: Document) -> Saved:
        return self._enter(Put(document))

    def _append(self, base: Record, changed: Record, messages: tuple[Chunk, ...]) -> Saved:
        index = self._latest.get(base.session_id)
        before = None if index is None else self.changes[index]
        if isinstance(before, Put):
            return self._put(before.document.with_appended(messages, changed))
        if isinstance(before, Append):
            whole = before.whole and before.whole.with_appended(messages, changed)
            more = (*before.chunks, *messages)
            return self._enter(replace(before, record=changed, chunks=more, whole=whole))
        at_hand = self._visible.at_hand(base.session_id)
        whole = at_hand and at_hand.with_appended(messages, changed)
        return self._enter(Append(changed, base, messages, whole))

    def _require_room(self, change: Put | Append) -> None:
        if self._max_size is None:
            return
        session_id = change.record.session_id
        whole = change.document if isinstance(change, Put) else change.whole
        if whole is None and isinstance(change, Append):
            whole = change.upon(self._visible.document(session_id))
        if whole is None or whole.size <= self._max_size:
            return
        before = self.document(session_id)
        # One that was larger before, under another limit, may still be tagged, or shortened.
        if before is None or whole.size > before.size:
            raise SessionTooLarge(
                f"session {named(session_id)} would have {whole.size} bytes,"
                f" more than {self._max_size}",
                session_id=session_id,
            )

    def _refuse_twin(self, namespace: str) -> None:
        """Refuse a namespace whose folder would be that of another where capitals do not count."""
        if self._visible.count(namespace):
            return
        begun = {namespace_of(key) for key, record in self._pending.items() if record is not None}
        for other in begun.union(self._visible.namespaces()):
            if other != namespace and other.casefold() == namespace.casefold():
                raise InvalidNamespace(
                    f"{namespace!r} differs from the namespace {other!r} in capitals only",
                    namespace=namespace,
                )

    def _enter(self, change: Put | Append) -> Saved:
        self._require_room(change)
        record = change.record
        session_id = record.session_id
        if SEPARATOR in session_id and self.record(session_id) is None:
            self._refuse_twin(namespace_of(session_id))
        index = self._latest.get(session_id)
        if index is None:
            self._latest[session_id] = len(self.changes)
            self.changes.append(change)
        else:
            before = self.changes[index]
            if isinstance(before, Put) and before.body is not None:
                self.superseded.append(before.body)
            self.changes[index] = change  # only the newest version is written
        self._pending[session_id] = record
        self.lsn = record.lsn
        return Saved.of(session_id, record.generation, record.message_count)


def _sum(cost: float, more: float) -> float:
    total = cost + more
    if not math.isfinite(total):
        raise InvalidValue("the costs have no finite sum")
    return total


def _keyed(key: str) -> str:
    # A prefix of its own keeps callers' keys apart from the store's request ids.
    return f"key:{key}"


def _check_generation(command: PreparedSave, current: Document | None) -> None:
    expected = command.expected_generation
    actual = current.record.generation if current is not None else ABSENT
    if expected is None or expected == actual:
        return
    session_id = command.session_id
    if expected == ABSENT:
        raise SessionExists(
            f"session {named(session_id)} exists",
            session_id=session_id,
            expected=ABSENT,
            actual=actual,
        )
    raise Conflict(
        f"session {named(session_id)} has generation {actual}, not {expected}",
        session_id=session_id,
        expected=expected,
        actual=actual,
    )


def _with_fields(record: Record, fields: Fields) -> Record:
    if fields.describes_nothing:
        return record
    status = record.status if isinstance(fields.status, Keep) else fields.status
    completed_at = record.completed_at
    if fields.status is not KEEP:
        completed_at = None
        if status == COMPLETED:
            completed_at = record.completed_at or record.updated_at
    return replace(
        record,
        metadata=record.metadata if isinstance(fields.metadata, Keep) else fields.metadata,
        tags=record.tags if isinstance(fields.tags, Keep) else fields.tags,
        title=record.title if isinstance(fields.title, Keep) else fields.title,
        summary=record.summary if isinstance(fields.summary, Keep) else fields.summary,
        status=status,
        completed_at=completed_at,
    )
