"""What callers see: records and cached documents, belonging to the root of the tree.

The view outlives the actor, as an ETS table outlives its owner when it has an heir. Reads never
enter the mailbox. Only the actor publishes, and a batch becomes visible under one lock.
"""

from __future__ import annotations

import threading
import time
from heapq import merge
from typing import TYPE_CHECKING, NamedTuple

from sessionkeeper.engine.query import Query, matching, page_of, position, select
from sessionkeeper.engine.records import Records
from sessionkeeper.errors import CorruptDocument, IndexBehind, NotExecuted, StoreClosed
from sessionkeeper.keys import key_of, namespace_of
from sessionkeeper.storage.backend import Put, RecoveryReport, Trash
from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from sessionkeeper.answers import BackupInfo, Trashed
    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.engine.cache import SessionCache
    from sessionkeeper.engine.catalog import Catalog
    from sessionkeeper.engine.texts import Texts
    from sessionkeeper.pages import Page
    from sessionkeeper.session import SessionInfo
    from sessionkeeper.storage.backend import Backend, Change, Reconciled
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.orders import Position
    from sessionkeeper.storage.shelving import ShelvedFolder

    T = TypeVar("T")

# A file that changes under a reader this often is not ours to wait for.
_MAX_ATTEMPTS = 8

# An iteration fetches so many at a time.
_PAGE = 500

# So many are let go of at a time, for callers are waiting.
_TRIMMED = 1000


class Seen(NamedTuple):
    """What is in memory at one moment.

    Attributes:
        number: What was begun with it.
        lsn: The highest log sequence number that was visible.
        records: The versions; None for sessions that are known to be gone.
        whole: Whether that is all there is.
    """

    number: int
    lsn: int
    records: dict[str, Record | None]
    whole: bool


class View:
    """The sessions that are visible, and the way to read one.

    Args:
        backend: Where documents are read that are not cached.
        cache: Documents read or written lately.
        timeout: Seconds a read waits for a recovery, or for a publication under way.
        suspect: Called with the id of a session whose file is not as published; whoever owns the
            folder looks into it and publishes what it finds.
        catalog: Is told of all that becomes visible, and asked for lists of sessions; None: there
            is no index.
        texts: Is told, too, and asked for what messages hold; None: there is no text index.
        reads_texts: Whether the sessions themselves are looked through where there is none.
        shelved: The folder that knows the sessions that memory has no room for; None: all are in
            memory.
        lose: Called when those cannot be looked up, or all are to be in memory: whoever owns the
            folder looks at all of it, and publishes what it finds.

    Attributes:
        texts: See above.
        reads_texts: See above.
    """

    def __init__(
        self,
        backend: Backend,
        cache: SessionCache,
        timeout: float,
        suspect: Callable[[str], None],
        catalog: Catalog | None = None,
        *,
        texts: Texts | None = None,
        reads_texts: bool = False,
        shelved: ShelvedFolder | None = None,
        lose: Callable[[], object] = lambda: None,
    ) -> None:
        self._suspect = suspect
        self._catalog = catalog
        self.texts = texts
        self.reads_texts = reads_texts
        self.cache = cache
        self.last_recovery = RecoveryReport()
        self._backend = backend
        self._timeout = timeout
        self._shelved = shelved
        # The thread that recovers, and changes all this.
        self._actor = 0
        self._lose = lose
        self._records = Records()
        self._lsn = 0
        self._readable = False
        self._closed = False
        # So many sessions in a row had to stay in memory when room was made.
        self._passed_over = 0
        self._changed = threading.Condition()

    # --- written by the actor ---------------------------------------------------------------

    def begin_recovery(self) -> None:
        """From now on reads wait: what is shown may not be what is on the disk."""
        self._actor = threading.get_ident()
        with self._changed:
            self._readable = False

    def recovered(self, report: RecoveryReport) -> None:
        """Show what the recovery scan found; reads go on.

        Raises:
            IndexFailed: A part was looked at only, and the index cannot be read.
        """
        if report.looked_at is not None:
            self._recovered_in_part(report, report.looked_at)
            return
        records = sorted(report.records.values(), key=lambda r: (r.lsn, r.session_id))
        with self._changed:
            changed: dict[str, Record | None] = {}
            shown = {record.session_id: record for record in self._records.visible()}
            for record in records:
                before = shown.get(record.session_id)
                if before is None or before.lsn != record.lsn:
                    changed[record.session_id] = record
            for session_id in shown.keys() - report.records.keys():
                changed[session_id] = None
            if self._records.shelf is not None:
                self.cache.clear()  # nothing says what it has of those that were not in memory
            self._records = Records(records)
            self._end_recovery(report, changed)

    def _recovered_in_part(self, report: RecoveryReport, looked_at: set[str]) -> None:
        changed: dict[str, Record | None] = dict.fromkeys(looked_at)
        changed.update(report.records)
        with self._changed:
            if report.counts is not None:
                self._records = Records((), self._shelved, report.counts)
            self._records.shelf = self._shelved
            if self._shelved is not None:  # together, for a journal may name very many
                cold = [each for each in changed if not self._records.is_held(each)]
                for session_id, shown in self._shelved.indexed(cold).items():
                    self._records.hold(session_id, shown, report.lsn)
            for session_id, record in changed.items():
                if record is None:
                    self._records.hide(session_id, report.lsn)
                else:
                    self._records.show(record)
            self._end_recovery(report, changed)

    def _end_recovery(self, report: RecoveryReport, changed: dict[str, Record | None]) -> None:
        for session_id in changed:
            self.cache.discard(session_id)
        for backlog in self._backlogs():
            backlog.note(changed.items(), report.lsn)
            backlog.rouse()
        self._lsn = max(self._lsn, report.lsn)
        self.last_recovery = report
        self._readable = True
        self._changed.notify_all()

    def publish(self, batch: Sequence[Change], lsn: int) -> None:
        """Show a batch that is committed."""
        with self._changed:
            for change in batch:
                if isinstance(change, Trash):
                    self._hide(change.record.session_id, lsn)
                    continue
                self._records.show(change.record)
                document = change.document if isinstance(change, Put) else change.whole
                if document is not None:
                    self.cache.put(document)
                else:
                    self.cache.discard(change.record.session_id)
            self._lsn = max(self._lsn, lsn)
            if self._catalog is not None:
                self._catalog.note(map(_noted, batch), lsn)
            if self.texts is not None:
                self.texts.note_changes(batch, lsn)
            self._changed.notify_all()

    def use(self, backend: Backend) -> None:
        """From now on documents are read there; what is visible stays as it is."""
        with self._changed:
            self._backend = backend

    def wait_at_most(self, seconds: float) -> None:
        """From now on reads wait so long for a recovery, and queries for the index."""
        self._timeout = seconds
        for backlog in self._backlogs():
            backlog.wait_at_most(seconds)

    def make_room(self) -> None:
        """Wait, for a short time, if an index is too far behind what is published."""
        for backlog in self._backlogs():
            backlog.make_room()

    def reconciled(self, found: Reconciled) -> None:
        """Show what was changed by hand."""
        with self._changed:
            for session_id in found.vanished:
                self._hide(session_id, found.lsn)
            for record in found.records:
                self.cache.discard(record.session_id)
                self._records.show(record)
            self._lsn = max(self._lsn, found.lsn)
            changed: dict[str, Record | None] = dict.fromkeys(found.vanished)
            changed.update((record.session_id, record) for record in found.records)
            for backlog in self._backlogs():
                backlog.note(changed.items(), found.lsn)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is shown any more; waiting reads fail."""
        with self._changed:
            self._closed = True
            self._records = Records()
            self.cache.clear()
            self._changed.notify_all()
        for backlog in self._backlogs():
            backlog.stir()

    def _backlogs(self) -> Iterator[Backlog]:
        if self._catalog is not None:
            yield self._catalog
        if self.texts is not None:
            yield self.texts

    def _hide(self, session_id: str, lsn: int) -> None:
        self._records.hide(session_id, lsn)
        self.cache.discard(session_id)

    # --- read by anyone ---------------------------------------------------------------------

    @property
    def lsn(self) -> int:
        """The highest log sequence number that is visible."""
        return self._lsn

    def wait_recovered(self) -> None:
        """Wait, however long it takes, until a recovery is done or the view is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._readable or self._closed)

    def wait_readable(self) -> None:
        """Wait until a recovery under way is done.

        Raises:
            StoreClosed: The store is closed, or has given up.
            NotExecuted: The recovery took longer than the timeout.
        """
        if self._readable and not self._closed:
            return
        with self._changed:
            ready = self._changed.wait_for(lambda: self._readable or self._closed, self._timeout)
        if self._closed:
            raise StoreClosed("the store is closed")
        if not ready:
            raise NotExecuted(f"the store is still recovering after {self._timeout:g} s")

    def load(self, session_id: str) -> Document | None:
        """One session as callers may see it; waits while the store recovers.

        Raises:
            SessionKeeperError: As `Backend.read`.
        """
        try:
            return self._load(session_id)
        except IndexFailed:
            self._await_relearned()
        try:
            return self._load(session_id)
        except IndexFailed as error:
            raise NotExecuted(f"the index cannot be read: {error}") from error

    def _load(self, session_id: str) -> Document | None:
        self.wait_readable()
        with self._changed:  # not in the midst of a batch
            cached = self.cache.get(session_id)
        if cached is not None:
            return cached
        damage: CorruptDocument | None = None
        document: Document | None = None
        for _ in range(_MAX_ATTEMPTS):
            before = _lsn_of(self._records.get(session_id))
            try:
                document = self._backend.read(session_id)
                if self._settle(session_id, document):
                    break
            except CorruptDocument as error:
                damage = error
            if _lsn_of(self._records.get(session_id)) == before:
                self._suspect(session_id)
            if not self._await_change(session_id, before):
                break
        if document is None and damage is not None:
            raise damage
        return self._believed(session_id, document)

    def _believed(self, session_id: str, document: Document | None) -> Document | None:
        """What to say of a session whose file never became what is visible, however long we waited.

        Never what was deleted, and never a version older than one that was acknowledged.
        """
        record = self._records.get(session_id)
        if record is None:
            return None
        if document is None or document.record.lsn < record.lsn:
            raise CorruptDocument(
                "its file is not the version that was stored last",
                session_id=session_id,
            )
        return document

    def _settle(self, session_id: str, document: Document | None) -> bool:
        """Whether what was read is what is visible; if so it is cached."""
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is closed")
            record = self._records.get(session_id)
            if document is None or record is None:
                return document is None and record is None
            if document.record.lsn != record.lsn:
                return False
            self.cache.put(document)  # under the lock: never an older version over a newer
            return True

    def _await_change(self, session_id: str, before: int | None) -> bool:
        """Wait for the publication, or the reconciliation, of what a reader saw on the disk."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or _lsn_of(self._records.get(session_id)) != before,
                self._timeout / _MAX_ATTEMPTS,
            )

    def search(self, query: Query, limit: int | None, cursor: str | None) -> Page[SessionInfo]:
        """One page of the sessions that match, in the order of the query.

        Whatever was published before is in it. It comes from the index; where that cannot be
        used, from the records in memory.

        Raises:
            InvalidQuery: A negative limit, or a cursor that is not of this order.
            IndexBehind: The index did not get there in time.
        """
        self.wait_readable()
        behind = position(query.order, limit, cursor)
        if self._catalog is not None and limit != 0:
            more = None if limit is None else limit + 1
            found = self._indexed(self._catalog, lambda index: index.page(query, behind, more))
            if found is not None:
                return page_of(query.order, found, limit)
        newest = self.newest_first()
        self.wait_readable()  # after a close there are none, and that is no answer
        return select(newest, query, limit, cursor)

    def iterate(self, namespace: str) -> Iterator[Record]:
        """All sessions of a namespace in the order of their ids, each as it is at its turn.

        One that is there from beginning to end is neither left out nor given twice, whatever
        changes meanwhile.

        Raises:
            IndexBehind: The index did not get there in time.
        """
        last = key_of(namespace, "")
        while (page := self._following(last)) is not None:
            if not page:
                return
            yield from page
            last = page[-1].session_id
        with self._changed:
            there = [record.session_id for record in self._records.visible()]
            names = sorted(n for n in there if n > last and namespace_of(n) == namespace)
        self.wait_readable()
        for name in names:
            self.wait_readable()
            record = self.record(name)
            if record is not None:
                yield record

    def _following(self, session_id: str) -> list[Record] | None:
        self.wait_readable()
        if self._catalog is None:
            return None
        return self._indexed(self._catalog, lambda index: index.after(session_id, _PAGE))

    def _indexed(self, catalog: Catalog, ask: Callable[[Catalog], T | None]) -> T | None:
        """What the index says; None if it cannot be used, and all sessions are in memory.

        Raises:
            IndexBehind: It cannot be used in time, and holds what memory has no room for.
        """
        end = time.monotonic() + self._timeout
        while (found := ask(catalog)) is None and self._records.shelf is not None:
            if not catalog.wait_usable(end - time.monotonic(), self._needs_no_index):
                raise IndexBehind(f"the index is not ready after {self._timeout:g} s")
            self.wait_readable()
        return found

    def _needs_no_index(self) -> bool:
        return self._closed or not self.is_shelved

    def snapshot(self, begin: Callable[[], int]) -> tuple[int, int, dict[str, Record]] | None:
        """All that is visible, as one: for comparing with it.

        Args:
            begin: Called at that very moment, with nothing being published.

        Returns:
            What `begin` returned, the highest log sequence number and the records; None while
            nothing is known, or not all is in memory: it will be.
        """
        with self._changed:
            if not self._readable or self._closed:
                return None
            if self.is_shelved:
                self.lose()
                return None
            records = {record.session_id: record for record in self._records.visible()}
            return begin(), self._lsn, records

    def seen(self, begin: Callable[[], int]) -> Seen | None:
        """What is in memory, as one: for comparing the index with it.

        Args:
            begin: See `snapshot`.

        Returns:
            It; None while nothing is known.
        """
        with self._changed:
            if not self._readable or self._closed:
                return None
            return Seen(begin(), self._lsn, self._records.changes(), not self.is_shelved)

    # --- for the actor's transactions, in its own thread -------------------------------------

    def record(self, session_id: str) -> Record | None:
        """The record of a session, or None.

        Raises:
            NotExecuted: It had to be looked up, and the store is recovering from not being able to.
        """
        try:
            record = self._records.get(session_id)
        except IndexFailed:
            self._await_relearned()
        else:
            if record is None:
                self.cache.discard(session_id)  # its file may have been removed by hand
            return record
        try:
            return self._records.get(session_id)
        except IndexFailed as error:
            raise NotExecuted(f"the index cannot be read: {error}") from error

    def _await_relearned(self) -> None:
        """Have all looked at anew, and wait for that, unless it is this thread that is to do it."""
        self.lose()
        if threading.get_ident() == self._actor:
            raise NotExecuted("the index cannot be read, and all sessions are looked at anew")
        self.wait_readable()

    def document(self, session_id: str) -> Document | None:
        """The whole session, or None.

        Raises:
            SessionKeeperError: As `Backend.read`: also for what is blocked and not visible.
        """
        cached = self.at_hand(session_id)
        return cached if cached is not None else self._backend.read(session_id)

    def at_hand(self, session_id: str) -> Document | None:
        """The whole session if it is cached, else None."""
        return self.cache.get(session_id) if self.record(session_id) is not None else None

    def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions of a session that were replaced and are kept, the newest first."""
        return self._backend.backups(session_id)

    def backup(self, session_id: str, generation: int | None) -> Document:
        """One of those versions. See `Backend.backup`."""
        return self._backend.backup(session_id, generation)

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last, or None."""
        return self._backend.trashed(session_id)

    def removals(self, namespace: str) -> list[Trashed]:
        """What could be brought back from the trash of a namespace, the newest removal first."""
        self.wait_readable()
        newest: dict[str, Trashed] = {}
        for removal in reversed(self._backend.removals()):
            if removal.namespace == namespace:
                newest.setdefault(key_of(namespace, removal.session_id), removal)
        return [removal for key, removal in newest.items() if self.record(key) is None]

    def newest_first(self) -> Iterable[Record]:
        """All records, of all namespaces, the one changed last first.

        As they are now if all are in memory; else each as it is at its turn.

        Raises:
            IndexBehind: The index did not get there in time.
        """
        with self._changed:
            if not self.is_shelved:
                return list(self._records.visible())
        return self._newest_indexed()

    def _newest_indexed(self) -> Iterator[Record]:
        by_age = [self._newest_of(namespace) for namespace in self.namespaces()]
        return merge(*by_age, key=lambda record: (record.lsn, record.session_id), reverse=True)

    def _newest_of(self, namespace: str) -> Iterator[Record]:
        query = Query(namespace=namespace)
        behind: Position | None = None
        while (page := self._newest_behind(query, behind)) is not None:
            yield from page
            if len(page) < _PAGE:
                return
            behind = query.order.position(page[-1])
        with self._changed:  # all came into memory meanwhile
            rest = list(self._records.visible())
        yield from matching(rest, query, behind)

    def _newest_behind(self, query: Query, behind: Position | None) -> list[Record] | None:
        if self._catalog is None:
            return None
        return self._indexed(self._catalog, lambda index: index.page(query, behind, _PAGE))

    def count(self, namespace: str | None = None) -> int:
        """How many sessions there are in a namespace; None: in all."""
        return self._records.total if namespace is None else self._records.counts[namespace]

    def namespaces(self) -> list[str]:
        """The namespaces in which there are sessions; the default one is an empty name."""
        with self._changed:
            return sorted(self._records.counts)

    # --- what memory has no room for --------------------------------------------------------

    @property
    def is_shelved(self) -> bool:
        """Whether memory may hold a part of the sessions only."""
        return self._records.shelf is not None

    @property
    def held(self) -> int:
        """How many sessions are in memory."""
        return self._records.held

    def lose(self) -> None:
        """Have the whole folder looked at, and all held in memory; reads wait for that."""
        with self._changed:
            self._readable = False
        self._lose()

    def hold(self, session_ids: Iterable[str]) -> list[str]:
        """Bring into memory what the actor is about to change.

        Returns:
            Names of files among them that are not as last published.

        Raises:
            IndexFailed: They cannot be looked up.
        """
        if self._shelved is None or not self.is_shelved:
            return []
        missing = [each for each in session_ids if not self._records.is_held(each)]
        if not missing:
            return []
        held = self._shelved.hold(missing)
        with self._changed:
            for session_id, record in held.records.items():
                self._records.hold(session_id, record, self._lsn)
        return held.suspects

    def trim(self, bound: int, written: int) -> bool:
        """Let go of what the index has, until so many are in memory; some at a time.

        Args:
            bound: How many may stay.
            written: Up to which change the index has all.

        Returns:
            Whether there is more to let go of.
        """
        excess = self._records.held - bound
        if self._shelved is None or excess <= 0:
            return False
        some = min(excess, _TRIMMED)
        with self._changed:
            looked_at = self._records.oldest(some, written)
        try:
            gone = self._shelved.let_go(looked_at)
        except IndexFailed:
            return False  # it will be written anew, and then be asked again
        with self._changed:
            if gone:
                self._records.shelf = self._shelved
                self.last_recovery.let_go()  # it would hold on to all of them
            self._records.let_go(looked_at, gone)
        # Behind those that have to stay there may be others; when the index has written more, it
        # is looked for them again.
        self._passed_over = 0 if gone else self._passed_over + some
        if self._passed_over < min(self._records.held, _TRIMMED):
            return True
        self._passed_over = 0
        return False


def _lsn_of(record: Record | None) -> int | None:
    return None if record is None else record.lsn


def _noted(change: Change) -> tuple[str, Record | None]:
    record = change.record
    return record.session_id, None if isinstance(change, Trash) else record
