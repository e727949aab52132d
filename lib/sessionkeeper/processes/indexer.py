"""The indexer: writes what was published into the index, beside the actor."""

from __future__ import annotations

import contextlib
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.events import Event, logger
from sessionkeeper.otp import GenServer
from sessionkeeper.storage.index import Entry, IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessionkeeper.engine.catalog import Catalog
    from sessionkeeper.engine.view import View
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.index import Row
    from sessionkeeper.storage.indexjson import IndexJson
    from sessionkeeper.storage.platform import Signature

# Seconds in which changes are collected, unless somebody waits for them: a session that changes
# again and again is written once.
COLLECT = 0.05

# Seconds that closing spends at most on what is not in the index yet; it is found again.
FINISH = 5.0

# Seconds until an index that cannot be written is tried again.
RETRY = 30.0

# Seconds between two writings of the index.json at least.
LIST = 1.0

# So many sessions are compared, or written, in one go; in between the indexer can be stopped.
CHUNK = 1000


_ENDED: Final = object()


class Look:
    """To the indexer: somebody waits, or there is much to write."""


class LookSoon:
    """To the indexer: there is something to write, and nobody waits for it."""


class ListSessions:
    """A word to the indexer itself: write the index.json."""


class GoOn:
    """A word to the indexer itself: there is more to do."""


class Indexing:
    """What the indexer does, piece by piece; belongs to the root, so that closing can end it.

    Args:
        catalog: What is to be written, and where.
        view: All that is visible.
        published: Where a version was published and as what; None if its file is behind.
        tell: Where events go.
        listing: The index.json; None if there is to be none.
    """

    def __init__(
        self,
        catalog: Catalog,
        view: View,
        published: Callable[[Record], tuple[str, Signature] | None],
        tell: Callable[[Event], None],
        listing: IndexJson | None = None,
    ) -> None:
        self._catalog = catalog
        self._index = catalog.index
        self._view = view
        self._published = published
        self._tell = tell
        self._listing = listing
        # Whether the index.json may lack something.
        self.listing_is_due = False
        self._comparison: Iterator[None] = iter(())
        self._failures = 0

    def step(self) -> bool:
        """Do one piece of work.

        Returns:
            Whether there is more to do now.

        Raises:
            IndexFailed: The index cannot be used; it is to be tried again after a while.
        """
        with self._catalog.writing:
            if self._catalog.paused:
                self._comparison = iter(())
                return False
            return self._tried()

    def _tried(self) -> bool:
        try:
            return self._step()
        except Exception as error:
            # Whatever it is: an index that cannot be written must not bring the store down.
            self._catalog.give_up()
            self._comparison = iter(())
            self._failures += 1
            if not isinstance(error, IndexFailed):
                logger.exception("the index was given up")
            elif error.passing:
                raise
            self._tell(Event("damaged", None, f"the index is made anew: {error}", self._index.path))
            self._index.discard()
            if self._failures > 1:
                raise IndexFailed(f"it failed again: {error}") from error
            return True

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
        seen = self._view.snapshot(lambda: 0)
        if seen is None:
            return True
        # Before it is written: what comes meanwhile makes it due again.
        self.listing_is_due = False
        try:
            listing.write(seen[2].values())
        except OSError as error:
            self.listing_is_due = True
            logger.warning("the index.json cannot be written now: %s", error)
            return False
        return True

    def _step(self) -> bool:
        if self._catalog.look():
            # Under the view's lock: nothing is published between its records and the first note.
            seen = self._view.snapshot(self._catalog.begin_comparison)
            if seen is None:
                return False
            self.listing_is_due = self._listing is not None
            self._comparison = self._compare(*seen)
        if next(self._comparison, _ENDED) is not _ENDED:
            return True
        noted = self._catalog.take()
        if noted is None:
            return self._scrub()
        if noted.records and self._listing is not None:
            self.listing_is_due = True
        self._index.write(
            [self._entry(record) for record in noted.records.values() if record is not None],
            filed=[
                self._entry(record)
                for session_id, record in noted.filed.items()
                if session_id not in noted.records
            ],
            removed=[name for name, record in noted.records.items() if record is None],
            lsn=noted.lsn,
        )
        self._catalog.wrote(noted)
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

    def _compare(self, number: int, lsn: int, records: dict[str, Record]) -> Iterator[None]:
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
        self._index.write([], dropped=wrong, lsn=lsn)
        self._failures = 0
        self._catalog.end_comparison(number)
        yield

    def _holds(self, row: Row, record: Record | None) -> bool:
        """Whether a row says what it should; a file that is the same holds the same version."""
        if record is None or not row.intact or row.lsn != record.lsn:
            return False
        filed = self._published(record)
        return filed is not None and filed == (row.stem, row.signature)


class Indexer(GenServer):
    """Writes in a thread of its own what was published.

    It keeps nothing that could be lost: what another incarnation had taken and not written is
    found by comparing the index with the view, with which each begins.

    Args:
        indexing: What it does.
        catalog: Wakes it.
    """

    def __init__(self, indexing: Indexing, catalog: Catalog) -> None:
        super().__init__()
        self._indexing = indexing
        self._catalog = catalog
        self._going_on = False
        self._listing_set = False

    def handle_continue(self) -> None:
        """Compare the index with what there is, as soon as that is known."""
        ref = self.ref
        self._catalog.attend(lambda urgent: ref.post(Look() if urgent else LookSoon()))
        self._go()

    def handle_info(self, message: Any) -> None:
        """Take the catalog's word, or its own."""
        match message:
            case LookSoon():
                self.send_after(COLLECT, Look())
            case Look():
                if not self._going_on:
                    self._go()
            case GoOn():
                self._go()
            case ListSessions():
                self._listing_set = False
                if self._indexing.listing_is_due and not self._indexing.list_sessions():
                    self._list_in(RETRY)
            case _:
                super().handle_info(message)

    def _go(self) -> None:
        self._going_on = False
        try:
            self._going_on = self._indexing.step()
        except IndexFailed as error:
            logger.warning("the index cannot be written now, queries do without: %s", error)
            self.send_after(RETRY, Look())
        if self._indexing.listing_is_due:
            self._list_in(LIST)
        if self._going_on:
            self.ref.post(GoOn())

    def _list_in(self, seconds: float) -> None:
        if not self._listing_set:
            self._listing_set = True
            self.send_after(seconds, ListSessions())
