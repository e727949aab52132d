"""What is on its way into a database that queries read, and the queries that wait for it.

It belongs to the root of the tree, as the view does. The actor notes what it published, which
takes no time; an indexer takes what was noted and writes it; a query waits until all that was
noted before it began is written. A session that changes a thousand times meanwhile is written
once. When the database cannot be used the backlog says so.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sessionkeeper.errors import IndexBehind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionkeeper.storage.documents import Record

# So many sessions may wait to be written; then whoever publishes waits, but never longer than
# this, in seconds: an index that cannot keep up is given up for the time being.
LIMIT: Final = 10_000
PATIENCE: Final = 1.0

# The id of a journal, and a frame of it.
Mark = tuple[bytes, int]

State = Literal[
    "paused",  # it is not to be written
    "stale",  # all is to be compared with the index before it can be used
    "comparing",  # that is under way
    "current",  # but for what is noted
]


# In these nothing is noted: all there is will be compared.
UNUSED: Final = frozenset({"stale", "paused"})


@dataclass(frozen=True, slots=True)
class Noted:
    """What the indexer is to write.

    Attributes:
        number: Of the last note in it.
        lsn: The highest log sequence number in it.
        mark: How far the journal had come with it.
        records: The newest version of each session that changed; None if it is gone.
        filed: Versions that were brought into their files.
    """

    number: int
    lsn: int
    mark: Mark
    records: dict[str, Record | None]
    filed: dict[str, Record]


class Backlog:
    """The way into a database; any thread.

    Args:
        timeout: Seconds that a query waits for what was saved before it.
        limit: How many sessions may wait to be written.
        patience: Seconds that whoever publishes waits for room.
    """

    def __init__(
        self,
        timeout: float,
        *,
        limit: int = LIMIT,
        patience: float = PATIENCE,
    ) -> None:
        self._timeout = timeout
        self._limit = limit
        self._patience = patience
        self._process = os.getpid()
        # Held by whoever writes into the database.
        self.writing = threading.RLock()
        self._changed = threading.Condition()
        self._state: State = "stale"
        # One more with each comparison: what a query read across one proves nothing.
        self._epoch = 0
        self._lsn = 0
        self._number = 0
        self._written = 0
        # Says how far the journal has come; asked in the thread that writes it.
        self.mark: Callable[[], Mark] = lambda: (b"", 0)
        self._marked: Mark = (b"", 0)
        # Up to which change all is in the database.
        self.written_lsn = 0
        self._records: dict[str, Record | None] = {}
        self._filed: dict[str, Record] = {}
        self._scrubs: deque[tuple[str, Callable[[], object]]] = deque()
        self._wake: Callable[[bool], object] = lambda _: None
        # What the indexer was told since it last took: nothing, at leisure, at once.
        self._woken: bool | None = None

    # --- for persistence --------------------------------------------------------------------

    def pause(self) -> None:
        """Have nothing written from now on; queries look elsewhere. What is under way is ended."""
        with self.writing, self._changed:
            self._give_up()
            self._state = "paused"

    def resume(self) -> None:
        """Have all compared with the database, and written again."""
        with self._changed:
            self._state = "stale"
            self._woken = None  # whoever was woken while it was paused has not looked
            self._rouse(urgent=True)

    @property
    def paused(self) -> bool:
        """Whether nothing is to be written."""
        return self._state == "paused"

    # --- for the actor ----------------------------------------------------------------------

    def note(self, records: Iterable[tuple[str, Record | None]], lsn: int) -> None:
        """Take down what was just published; the caller holds the view's lock.

        Args:
            records: Sessions that changed; None for those that are gone.
            lsn: The highest log sequence number that is visible with these.
        """
        with self._changed:
            self._number += 1
            self._lsn = max(self._lsn, lsn)
            self._marked = self.mark()
            if self._state not in UNUSED:
                self._records.update(records)
            self._rouse(urgent=2 * len(self._records) > self._limit)

    def file(self, record: Record) -> None:
        """Take down that a session's file has caught up with this version."""
        with self._changed:
            if self._state not in UNUSED:
                self._filed[record.session_id] = record
                self._rouse(urgent=2 * len(self._filed) > self._limit)

    def wait_at_most(self, seconds: float) -> None:
        """From now on queries wait so long for what was saved before them."""
        self._timeout = seconds

    def make_room(self) -> None:
        """Wait, for a short time, while too much is noted; slows writers down, never stops them."""
        if not self._is_full():
            return
        with self._changed:
            self._rouse(urgent=True)
            if self._state == "current" and not self._changed.wait_for(
                lambda: not self._is_full() or self._state != "current",
                self._patience,
            ):
                self._give_up()

    def _is_full(self) -> bool:
        return len(self._records) > self._limit or len(self._filed) > self._limit

    def scrub(self, session_id: str, done: Callable[[], object]) -> None:
        """Have every byte of a session that is gone taken out of the index.

        Args:
            session_id: The session; that it is gone is noted.
            done: Called when it is done, by the indexer.
        """
        with self._changed:
            self._scrubs.append((session_id, done))
            self._rouse(urgent=True)

    # --- for the indexer --------------------------------------------------------------------

    def attend(self, wake: Callable[[bool], object]) -> None:
        """Have `wake` called when there is something to do; its argument says whether at once."""
        with self._changed:
            self._wake = wake
            self._woken = None
            self._give_up()

    def begin_comparison(self) -> int:
        """Forget what was noted: all there is will be compared. The caller holds the view's lock.

        Returns:
            The number for `end_comparison`.
        """
        with self._changed:
            self._give_up()
            self._state = "comparing"
            return self._number

    @property
    def marked(self) -> Mark:
        """How far the journal had come with what was noted last."""
        return self._marked

    def end_comparison(self, number: int, lsn: int = 0) -> None:
        """From now on the index holds all that was noted up to that number.

        Args:
            number: What `begin_comparison` returned.
            lsn: The highest log sequence number that was visible then.
        """
        with self._changed:
            self.written_lsn = max(self.written_lsn, lsn)
            if self._state == "comparing":
                self._state = "current"
            self._reach(number)

    def look(self) -> bool:
        """Whether a comparison is to begin; whatever is noted from now on wakes anew."""
        with self._changed:
            self._woken = None
            return self._state == "stale"

    def take(self) -> Noted | None:
        """All that is to be written; None if there is nothing."""
        with self._changed:
            if self._state in UNUSED or not (self._records or self._filed):
                if self._state == "current":
                    self._reach(self._number)
                return None
            noted = Noted(self._number, self._lsn, self._marked, self._records, self._filed)
            self._records, self._filed = {}, {}
            self._changed.notify_all()  # there is room
            return noted

    def is_urgent(self) -> bool:
        """Whether what was noted since it was last looked at is to be written at once."""
        return bool(self._woken) or bool(self._scrubs)

    def is_behind(self) -> bool:
        """Whether something is noted that is not written."""
        return bool(self._records or self._filed)

    def next_scrub(self) -> tuple[str, Callable[[], object]] | None:
        """The session to be taken out next, once all that was noted is written."""
        with self._changed:
            if self._state != "current" or not self._scrubs:
                return None
            return self._scrubs[0]

    def scrubbed(self) -> None:
        """The first of those is out."""
        with self._changed:
            self._scrubs.popleft()

    def wrote(self, noted: Noted) -> None:
        """That is in the index now."""
        with self._changed:
            self.written_lsn = max(self.written_lsn, noted.lsn)
            self._reach(noted.number)

    def give_up(self) -> None:
        """The index cannot be used before all is compared with it; queries look elsewhere."""
        with self._changed:
            self._give_up()

    def _give_up(self) -> None:
        if self._state != "paused":
            self._state = "stale"
        self._epoch += 1
        self._records, self._filed = {}, {}
        self._changed.notify_all()

    def _reach(self, number: int) -> None:
        self._written = max(self._written, number)
        self._changed.notify_all()

    def _rouse(self, *, urgent: bool) -> None:
        if self._woken is None or (urgent and not self._woken):
            self._woken = urgent
            self._wake(urgent)

    def rouse(self) -> None:
        """Have the indexer look now."""
        with self._changed:
            self._rouse(urgent=True)
            self._changed.notify_all()

    def stir(self) -> None:
        """Have whoever waits look whether there is still something to wait for."""
        with self._changed:
            self._changed.notify_all()

    def wait_usable(self, timeout: float, or_else: Callable[[], bool]) -> bool:
        """Wait until the database can be used, or need not be; False if that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._usable() or or_else(), max(timeout, 0.0))

    # --- for queries ------------------------------------------------------------------------

    def _caught_up(self, timeout: float | None = None) -> int | None:
        """Wait for all that is noted.

        Args:
            timeout: Seconds to wait; as long as a query does if left out.

        Returns:
            The epoch for which the database can be used, or None.

        Raises:
            IndexBehind: It did not get there in time.
        """
        if not self._usable() or os.getpid() != self._process:
            return None  # connections do not survive a fork
        with self._changed:
            number = self._number
            if self._written < number:
                self._rouse(urgent=True)
                self._changed.wait_for(
                    lambda: self._written >= number or not self._usable(),
                    self._timeout if timeout is None else timeout,
                )
            if not self._usable():
                return None
            if self._written < number:
                raise IndexBehind(f"the index is behind after {self._timeout:g} s")
            return self._epoch

    def _usable(self) -> bool:
        return self._state == "current"
