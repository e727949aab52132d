"""The indexer: writes what was published into the index, beside the actor."""

from __future__ import annotations

import contextlib
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from sessionkeeper.events import logger
from sessionkeeper.processes.writer import ENDED, FINISH, RETRY, Writer, Writing
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.index import Entry, Reached
from sessionkeeper.storage.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sessionkeeper.engine.catalog import Catalog
    from sessionkeeper.engine.view import View
    from sessionkeeper.events import Event
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.index import Row
    from sessionkeeper.storage.indexjson import IndexJson
    from sessionkeeper.storage.platform import Signature
    from sessionkeeper.storage.shelving import ShelvedFolder

# Seconds between two writings of the index.json at least.
LIST = 1.0

# So many sessions are compared, or written, in one go; in between the indexer can be stopped.
CHUNK = 1000


class ListSessions:
    """A word to the indexer itself: write the index.json."""


class Indexing(Writing):
    """Writes what was published into the index, and the index.json.

    Args:
        catalog: What is to be written, and where.
        view: All that is visible.
        published: Where a version was published and as what; None if its file is behind.
        tell: Where events go.
        listing: The index.json; None if there is to be none.
        shelved: The folder of which memory may hold a part; None: it holds all.
        suspect: Called with names of files that are not as published.
        wrote: Called when more of what is in memory is in the index.
    """

    NAME = "the index"

    def __init__(
        self,
        catalog: Catalog,
        view: View,
        published: Callable[[Record], tuple[str, Signature] | None],
        tell: Callable[[Event], None],
        listing: IndexJson | None = None,
        *,
        shelved: ShelvedFolder | None = None,
        suspect: Callable[[Sequence[str]], object] = lambda _: None,
        wrote: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(catalog, catalog.index, tell)
        self._catalog = catalog
        self._index = catalog.index
        self._view = view
        self._published = published
        self._listing = listing
        self._shelf = Shelf(self._index)
        self._shelved = shelved
        self._suspect = suspect
        self._wrote = wrote
        # An index that was trusted at the opening is looked through, when there is nothing to do.
        self._is_checked = False
        # What it said last of how far it is; None: whatever was said by another process.
        self._reached: Reached | None = None
        self._checking: Iterator[None] = iter(())
        # Whether the index.json may lack something.
        self.listing_is_due = False

    def finish(self) -> None:
        """Do what is left, when nobody else does; not for ever, because someone waits for it."""
        end = time.monotonic() + FINISH
        with contextlib.suppress(IndexFailed):
            while (self.step() or self._catalog.is_behind()) and time.monotonic() < end:
                pass
        if self.listing_is_due:
            self.list_sessions()

    def list_sessions(self) -> bool:
        """Write the index.json; False if the medium refuses, then it is to be tried again."""
        with self._catalog.writing:
            if self._listing is None or self._catalog.paused:
                return True  # resumed, it is due again
            return self._list(self._listing)

    def _list(self, listing: IndexJson) -> bool:
        seen = self._view.seen(lambda: 0)
        if seen is None:
            return True
        # Before it is written: what comes meanwhile makes it due again.
        self.listing_is_due = False
        try:
            if seen.whole:
                listing.write([each for each in seen.records.values() if each is not None])
            else:
                listing.leave_out(self._view.count())
        except OSError as error:
            self.listing_is_due = True
            logger.warning("the index.json cannot be written now: %s", error)
            return False
        return True

    def _step(self) -> bool:
        if self._catalog.look():
            # Under the view's lock: nothing is published between its records and the first note.
            seen = self._view.seen(self._catalog.begin_comparison)
            if seen is None:
                return False
            self.listing_is_due = self._listing is not None
            reached = Reached(seen.lsn, *self._catalog.marked)
            if seen.whole:
                records = {key: each for key, each in seen.records.items() if each is not None}
                self._comparison = self._compare(seen.number, reached, records)
            else:
                self._comparison = self._compare_held(seen.number, reached, seen.records)
        if next(self._comparison, ENDED) is not ENDED:
            return True
        noted = self._catalog.take()
        if noted is None:
            return self._scrub() or next(self._checking, ENDED) is not ENDED
        if noted.records and self._listing is not None:
            self.listing_is_due = True
        reached = Reached(noted.lsn, *noted.mark)
        self._index.write(
            [self._entry(record) for record in noted.records.values() if record is not None],
            filed=[
                self._entry(record)
                for session_id, record in noted.filed.items()
                if session_id not in noted.records
            ],
            removed=[name for name, record in noted.records.items() if record is None],
            reached=reached,
        )
        self._reached = reached
        self._catalog.wrote(noted)
        self._wrote()
        # Else what came meanwhile is collected first: under load this would never rest.
        return self._catalog.is_urgent()

    def _scrub(self) -> bool:
        scrub = self._catalog.next_scrub()
        if scrub is None:
            return False
        session_id, done = scrub
        self._index.scrub(session_id)
        if not self.list_sessions():
            raise IndexFailed("the index.json still names a session that was erased", passing=True)
        self._catalog.scrubbed()
        done()
        return True

    def _entry(self, record: Record) -> Entry:
        filed = self._published(record)
        return Entry(record) if filed is None else Entry(record, *filed)

    def _compare(
        self,
        number: int,
        reached: Reached,
        records: dict[str, Record],
    ) -> Iterator[None]:
        """Make the index what the view was: one row for each session, as it should be."""
        self._index.open()
        self._index.check()
        yield
        wrong: list[int] = []
        # Taken out of the rows before anything is written, for both use one connection.
        rows = self._index.rows()
        while chunk := list(islice(rows, CHUNK)):
            for row in chunk:
                if self._holds(row, records.get(row.session_id)):
                    del records[row.session_id]
                elif not row.intact or row.session_id not in records:
                    wrong.append(row.number)
            yield
        missing = iter(records.values())
        while entries := [self._entry(record) for record in islice(missing, CHUNK)]:
            self._index.write(entries, dropped=wrong)
            wrong = []
            yield
        self._index.write([], dropped=wrong, reached=reached)
        self._is_checked = True
        self._compared(number, reached)
        yield

    def _compared(self, number: int, reached: Reached) -> None:
        self._failures = 0
        self._reached = reached
        self._catalog.end_comparison(number, reached.lsn)
        self._wrote()

    def _compare_held(
        self,
        number: int,
        reached: Reached,
        records: dict[str, Record | None],
    ) -> Iterator[None]:
        """Bring what memory holds into an index that has all the rest."""
        self._index.open()
        found = self._shelf.reached()
        if found == Reached() or self._reached not in (None, found):
            raise IndexFailed("it is not the one that was there before")
        yield
        held = iter(records.items())
        while chunk := dict(islice(held, CHUNK)):
            rows = self._shelf.of_keys(chunk)
            entries = [self._entry(record) for record in chunk.values() if record is not None]
            changed = [entry for entry in entries if rows.get(entry.record.session_id) != entry]
            gone = [key for key, record in chunk.items() if record is None and key in rows]
            self._index.write(changed, removed=gone)
            yield
        self._index.write([], reached=reached)
        self._compared(number, reached)
        if not self._is_checked:
            self._checking = self._check()
        yield

    def _check(self) -> Iterator[None]:
        """Look through an index that was trusted, and compare the folder with it."""
        for _ in self._shelf.entries():
            yield
        if self._shelved is not None:
            for suspects in self._shelved.find_suspects():
                if suspects:
                    self._suspect(suspects)
                yield
        self._is_checked = True

    def _lost(self) -> None:
        self._reached = None
        self._checking = iter(())
        if self._view.is_shelved:
            self._view.lose()

    def _holds(self, row: Row, record: Record | None) -> bool:
        """Whether a row says what it should; a file that is the same holds the same version."""
        if record is None or not row.intact or row.lsn != record.lsn:
            return False
        filed = self._published(record)
        return filed is not None and filed == (row.stem, row.signature)


class Indexer(Writer):
    """The writer of the index, which writes the index.json too, less often.

    Args:
        indexing: What it does.
        catalog: Wakes it.
    """

    def __init__(self, indexing: Indexing, catalog: Catalog) -> None:
        super().__init__(indexing, catalog)
        self._indexing = indexing
        self._listing_set = False

    def handle_info(self, message: Any) -> None:
        """Take its own word for the index.json, or see `Writer.handle_info`."""
        if not isinstance(message, ListSessions):
            super().handle_info(message)
            return
        self._listing_set = False
        if self._indexing.listing_is_due and not self._indexing.list_sessions():
            self._list_in(RETRY)

    def _go(self) -> None:
        super()._go()
        if self._indexing.listing_is_due:
            self._list_in(LIST)

    def _list_in(self, seconds: float) -> None:
        if not self._listing_set:
            self._listing_set = True
            self.send_after(seconds, ListSessions())
