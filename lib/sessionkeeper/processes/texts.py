"""What the writer of the text index does."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sessionkeeper.errors import CorruptDocument, NotExecuted, SessionKeeperError, StoreClosed
from sessionkeeper.events import logger
from sessionkeeper.processes.writer import ENDED, FINISH, Writing
from sessionkeeper.slices import Pace
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.fulltext import NO_LINES, UNFINISHED, Piece, digest_with, version_of
from sessionkeeper.storage.texts import lines_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sessionkeeper.engine.backlog import Noted
    from sessionkeeper.engine.texts import Added, Texts
    from sessionkeeper.engine.view import View
    from sessionkeeper.events import Event
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.fulltext import Row

# Characters that are entered in one go; in between the writer can be stopped.
PIECE = 256 * 1024

# So many sessions are compared, or taken out, in one go.
CHUNK = 500


@dataclass(slots=True)
class _Start:
    """Where a session's messages are to be entered from.

    Attributes:
        lines: The messages that are not in the index.
        first: The number of the first of them.
        digest: Of all before it.
    """

    lines: Iterator[bytes]
    first: int
    digest: bytes


class TextIndexing(Writing):
    """Writes the text of what was published into the text index.

    Args:
        texts: What is to be written, and where.
        view: All that is visible.
        tell: Where events go.
    """

    NAME = "the text index"

    def __init__(self, texts: Texts, view: View, tell: Callable[[Event], None]) -> None:
        super().__init__(texts, texts.index, tell)
        self._texts = texts
        self._index = texts.index
        self._view = view
        # What is being entered, piece by piece.
        self._entering: Iterator[None] = iter(())
        self._hurried = False

    def hurry(self) -> None:
        """Have whatever it is at end soon, from another thread: the store is being closed."""
        self._hurried = True
        self._index.interrupt()

    def finish(self) -> None:
        """Do what is left, once nobody else does; what is much is left for the next opening."""
        self._hurried = False
        end = time.monotonic() + FINISH
        with contextlib.suppress(IndexFailed):
            if not (self._texts.is_on or self._texts.paused):
                self._leave_off()
            while self._texts.is_current() and self.step() and time.monotonic() < end:
                pass
            if self._texts.has_scrubs():
                self._index.discard()  # the quickest way to leave nothing of a session
                self._texts.give_up()
                self._answer_scrubs()

    def _step(self) -> bool:
        if self._hurried:
            return False
        due = self._texts.look()
        if not self._texts.is_on:
            return self._leave_off()
        if due:
            seen = self._view.snapshot(self._texts.begin_comparison)
            if seen is None:
                return False
            self._entering = iter(())
            number, _, records = seen
            self._comparison = self._compare(number, records)
        for work in (self._comparison, self._entering):
            if next(work, ENDED) is not ENDED:
                return True
        noted, added = self._texts.take_all()
        if noted is None:
            return self._scrub()
        self._entering = self._enter_noted(noted, added)
        return True

    def _lost(self) -> None:
        self._entering = iter(())

    def _leave_off(self) -> bool:
        """There is to be no text index: what there is of one goes."""
        self._comparison = self._entering = iter(())
        self._index.discard()
        self._answer_scrubs()
        return False

    def _answer_scrubs(self) -> None:
        for done in self._texts.all_scrubbed():
            done()

    def _scrub(self) -> bool:
        scrub = self._texts.next_scrub()
        if scrub is None:
            return False
        self._index.scrub()
        self._texts.scrubbed()
        scrub[1]()
        return True

    def _compare(self, number: int, records: dict[str, Record]) -> Iterator[None]:
        """Make the text index what the view was."""
        self._index.open()
        self._index.check()
        yield
        gone: list[str] = []
        rows = self._index.rows()
        while chunk := list(islice(rows, CHUNK)):
            for row in chunk:
                record = records.get(row.key)
                if record is None:
                    gone.append(row.key)
                elif version_of(record) == row.version:
                    del records[row.key]
            yield
        yield from self._enter(records, {}, gone)
        self._failures = 0
        self._texts.end_comparison(number)

    def _enter_noted(self, noted: Noted, added: Mapping[str, Added]) -> Iterator[None]:
        there = {key: record for key, record in noted.records.items() if record is not None}
        gone = [key for key, record in noted.records.items() if record is None]
        yield from self._enter(there, added, gone)
        self._texts.wrote(noted)

    def _enter(
        self,
        records: Mapping[str, Record],
        added: Mapping[str, Added],
        gone: Iterable[str],
    ) -> Iterator[None]:
        leaving = iter(gone)
        while removed := list(islice(leaving, CHUNK)):
            self._index.write([], removed)
            yield
        pieces: list[Piece] = []
        size = 0
        for key, record in records.items():
            for piece in self._pieces(key, record, added.get(key)):
                pieces.append(piece)
                size += sum(map(len, piece.texts))
                # What follows goes by the row that this one makes.
                if size >= PIECE or len(pieces) >= CHUNK or piece.version == UNFINISHED:
                    self._index.write(pieces)
                    pieces, size = [], 0
                    yield
        if pieces:
            self._index.write(pieces)
            yield

    def _pieces(self, key: str, record: Record, added: Added | None) -> Iterator[Piece]:
        row = self._index.row(key)
        start = _behind(row, added)
        if start is None:
            document = self._document(key, record)
            if document is None:
                self._index.write([], [key])
                return
            start, record = _start(row, document), document.record
        number, digest = start.first, start.digest
        first, texts, size = number, list[str](), 0
        pace = Pace()
        for line in start.lines:
            if size >= PIECE:
                yield Piece(key, first, texts, digest, UNFINISHED)
                first, texts, size = number, [], 0
            texts.append(text_of(line))
            size += len(texts[-1])
            digest = digest_with(digest, line)
            number += 1
            pace.step()
        yield Piece(key, first, texts, digest, version_of(record))

    def _document(self, key: str, record: Record) -> Document | None:
        """The session as it is now; None if it is gone, or cannot be read."""
        document = None
        with contextlib.suppress(CorruptDocument):
            # Not as callers load it: those sessions that are in use are to stay in the cache.
            document = self._view.document(key)
        if document is not None and document.record.lsn == record.lsn:
            return document
        try:
            return self._view.load(key)
        except (StoreClosed, NotExecuted) as error:
            raise IndexFailed(f"{error}", passing=True) from error
        except SessionKeeperError as error:
            logger.debug("the text of a session is not in the index: %s", error)
            return None


def _behind(row: Row | None, added: Added | None) -> _Start | None:
    """What was added behind what is in the index; None if that is not all there is to enter."""
    if row is None or added is None or row.version != version_of(added.base):
        return None
    return _Start(lines_of(added.chunks), row.count, row.digest)


def _start(row: Row | None, document: Document) -> _Start:
    """Behind what is in the index if the session begins with that, else from its beginning."""
    lines = lines_of(document.chunks)
    if row is not None and 0 < row.count <= document.record.message_count:
        digest = NO_LINES
        pace = Pace()
        for line in islice(lines, row.count):
            digest = digest_with(digest, line)
            pace.step()
        if digest == row.digest:
            return _Start(lines, row.count, digest)
        lines = lines_of(document.chunks)
    return _Start(lines, 0, NO_LINES)
