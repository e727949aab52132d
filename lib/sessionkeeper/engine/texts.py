"""The way into the text index, and the queries that wait for it.

What an append has added is handed on as it is, so that nobody reads the session for it. Unlike
lists, which the records in memory can answer, a search in texts has nowhere else to look while
the text index is made: it waits.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sessionkeeper.engine.backlog import LIMIT, PATIENCE, UNUSED, Backlog
from sessionkeeper.errors import IndexBehind
from sessionkeeper.storage.backend import Append, Put, Trash
from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sessionkeeper.engine.backlog import Noted
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.fulltext import FullText

T = TypeVar("T")

# So many bytes may wait to be entered; then whoever publishes waits. What appends have added is
# kept up to here, too; beyond, the session is read for it.
BYTES: Final = 4 * 1024 * 1024

# So often in a row, before anything was taken; then the text index is given up for the time being.
WAITS: Final = 10


@dataclass(slots=True)
class Added:
    """What was added to a session that was nothing but appended to.

    Attributes:
        base: The version it was added to.
        record: The version that came out.
        chunks: The messages.
        size: Their bytes.
    """

    base: Record
    record: Record
    chunks: list[Chunk]
    size: int


class Texts(Backlog):
    """The way into the text index and out of it; any thread.

    Args:
        index: Where it leads.
        timeout: See `Backlog`.
        on: Whether there is to be a text index.
        limit: See `Backlog`.
        patience: See `Backlog`.
    """

    def __init__(
        self,
        index: FullText,
        timeout: float,
        *,
        on: bool,
        limit: int = LIMIT,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(timeout, limit=limit, patience=patience)
        self.index = index
        self._on = on
        self._added: dict[str, Added] = {}
        self._added_bytes = 0
        self._bytes = 0
        self._waits = 0

    @property
    def is_on(self) -> bool:
        """Whether there is to be a text index."""
        return self._on

    def switch(self, *, on: bool) -> None:
        """From now on there is to be a text index, or none."""
        with self._changed:
            if self._on != on:
                self._on = on
                self._give_up()
                self._rouse(urgent=True)

    def pause(self) -> None:
        """See `Backlog.pause`."""
        self.index.interrupt()
        super().pause()

    # --- for the actor ----------------------------------------------------------------------

    def note(self, records: Iterable[tuple[str, Record | None]], lsn: int) -> None:
        """See `Backlog.note`; nothing is noted while there is to be no text index."""
        if not self._on:
            return
        changed = dict(records)
        with self._changed:
            for key in changed:
                self._forget(key)
            super().note(changed.items(), lsn)

    def note_changes(self, batch: Sequence[Change], lsn: int) -> None:
        """Take down a batch that was just published; the caller holds the view's lock."""
        if not self._on:
            return
        with self._changed:
            for change in batch:
                self._note_change(change)
            super().note([], lsn)

    def _note_change(self, change: Change) -> None:
        if self._state in UNUSED:
            return
        key = change.record.session_id
        added = self._added.get(key)
        self._records[key] = None if isinstance(change, Trash) else change.record
        if isinstance(change, Put):
            self._bytes += change.document.size
        if isinstance(change, Append):
            size = sum(map(len, change.chunks))
            self._bytes += size
            if added is None:
                added = self._added[key] = Added(change.base, change.base, [], 0)
            if added.record.lsn == change.base.lsn:
                added.record = change.record
                added.chunks += change.chunks
                added.size += size
                self._added_bytes += size
                if self._added_bytes <= BYTES:
                    return
        self._forget(key)

    def _forget(self, key: str) -> None:
        added = self._added.pop(key, None)
        if added is not None:
            self._added_bytes -= added.size

    def make_room(self) -> None:
        """Wait, for a short time, while too much is noted.

        To make the text index anew takes long, so it is given up after some such waits only.
        """
        if not self._is_full():
            return
        with self._changed:
            self._rouse(urgent=True)
            if self._state == "current" and not self._changed.wait_for(
                lambda: not self._is_full() or self._state != "current",
                self._patience,
            ):
                self._waits += 1
                if self._waits >= WAITS:
                    self._give_up()

    def _is_full(self) -> bool:
        return super()._is_full() or self._bytes > BYTES

    # --- for the indexer --------------------------------------------------------------------

    def look(self) -> bool:
        """See `Backlog.look`."""
        return super().look() and self._on

    def take_all(self) -> tuple[Noted | None, dict[str, Added]]:
        """All that is to be written, and what was added to sessions that are among it."""
        with self._changed:
            added = self._added
            self._start_over()
            return self.take(), added

    def is_current(self) -> bool:
        """Whether the text index is as it should be, but for what is noted."""
        return self._usable()

    def has_scrubs(self) -> bool:
        """Whether a session is to be taken out of it for good."""
        return bool(self._scrubs)

    def all_scrubbed(self) -> list[Callable[[], object]]:
        """There is nothing in it of any session; what is to be called because of that."""
        with self._changed:
            waiting = [done for _, done in self._scrubs]
            self._scrubs.clear()
            return waiting

    def _give_up(self) -> None:
        super()._give_up()
        self._start_over()

    def _start_over(self) -> None:
        self._added, self._added_bytes = {}, 0
        self._bytes = self._waits = 0

    # --- for queries ------------------------------------------------------------------------

    def ask(self, query: Callable[[FullText], T]) -> T | None:
        """The answer of the text index, which holds all that was noted before.

        Returns:
            None if it has no answer here and now: it was switched off, persistence was, or this
            process was forked.

        Raises:
            IndexBehind: It is made, or made anew, and was not ready in time.
        """
        end = time.monotonic() + self._timeout
        while self._on and not self.paused and os.getpid() == self._process:
            epoch = self._made(end)
            if epoch is None:
                continue
            try:
                answer = query(self.index)
            except IndexFailed:
                with self._changed:
                    if self._epoch == epoch:
                        self._give_up()
                        self._rouse(urgent=True)
                continue
            if self._epoch == epoch:
                return answer
        return None

    def _made(self, end: float) -> int | None:
        """Wait until it is made, and then for all that is noted; None if it was given up."""
        with self._changed:
            if not self._usable():
                self._rouse(urgent=True)
            made = self._changed.wait_for(
                lambda: self._usable() or not self._on or self.paused,
                end - time.monotonic(),
            )
            if not made:
                raise IndexBehind(
                    f"the text index is not ready after {self._timeout:g} s",
                    hint="It is made in the background; search again after a while.",
                )
            return self._caught_up(max(0.0, end - time.monotonic()))
