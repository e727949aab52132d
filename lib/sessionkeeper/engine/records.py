"""The versions that are visible: in memory all of them, or those that changed last.

What is not in memory is on a shelf: the index says of it what memory said. The actor alone changes
this, under the view's lock; any thread asks.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from sessionkeeper.keys import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.shelving import ShelvedFolder


class Records:
    """Records by key, in the order of the last change while all are in memory.

    Attributes:
        shelf: Where sessions are looked up that are not in memory; None: all are.
        counts: How many sessions there are in each namespace that has any.
        total: How many in all.
    """

    def __init__(
        self,
        records: Iterable[Record] = (),
        shelf: ShelvedFolder | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        self.shelf = shelf
        # A number stands for a session that is not there: the last change that was visible when
        # that was found. A changed session moves to the end.
        self._held: dict[str, Record | int] = {record.session_id: record for record in records}
        self.counts = Counter(map(namespace_of, self._held)) if counts is None else counts
        self.total = self.counts.total()

    @property
    def held(self) -> int:
        """How many are in memory."""
        return len(self._held)

    def get(self, session_id: str) -> Record | None:
        """The version of a session; None if there is none.

        Raises:
            IndexFailed: It is not in memory, and the index cannot be read.
        """
        held = self._held.get(session_id)
        if held is None and self.shelf is not None:
            return self.shelf.shelved(session_id)
        return None if isinstance(held, int) else held

    def is_counted(self, session_id: str) -> bool:
        """Whether a session is among those that there were, whatever became of its file since."""
        held = self._held.get(session_id)
        if held is None and self.shelf is not None:
            return self.shelf.indexed([session_id])[session_id] is not None
        return held is not None and not isinstance(held, int)

    def is_held(self, session_id: str) -> bool:
        """Whether a shelf need not be asked."""
        return self.shelf is None or session_id in self._held

    def show(self, record: Record) -> None:
        """Make a version the visible one.

        Raises:
            IndexFailed: See `get`.
        """
        if not self.is_counted(record.session_id):
            self._count(record.session_id, 1)
        self._held.pop(record.session_id, None)
        self._held[record.session_id] = record

    def hide(self, session_id: str, lsn: int) -> None:
        """A session is gone.

        Args:
            session_id: The session.
            lsn: The highest log sequence number that is visible.

        Raises:
            IndexFailed: See `get`.
        """
        if self.is_counted(session_id):
            self._count(session_id, -1)
        self._held.pop(session_id, None)
        if self.shelf is not None:
            self._held[session_id] = lsn

    def hold(self, session_id: str, record: Record | None, lsn: int) -> None:
        """Bring into memory what the shelf says; for arguments see `hide`."""
        self._held.setdefault(session_id, lsn if record is None else record)

    def oldest(self, count: int, written: int) -> dict[str, Record | None]:
        """What was changed longest ago; None for sessions that are gone.

        Args:
            count: So many at most.
            written: Up to which change the index has all: of later ones it may still be told.
        """
        found: dict[str, Record | None] = {}
        for session_id, held in islice(self._held.items(), count):
            if not isinstance(held, int):
                found[session_id] = held
            elif held <= written:
                found[session_id] = None
        return found

    def let_go(self, looked_at: dict[str, Record | None], gone: Iterable[str]) -> None:
        """Forget what the shelf says as well; what it does not say is not asked for soon."""
        for session_id in looked_at:
            held = self._held.pop(session_id, None)
            if held is not None:
                self._held[session_id] = held
        for session_id in gone:
            self._held.pop(session_id, None)

    def visible(self) -> Iterator[Record]:
        """Those in memory, the one changed last first."""
        return (held for held in reversed(self._held.values()) if not isinstance(held, int))

    def changes(self) -> dict[str, Record | None]:
        """What is in memory; None for sessions that are known to be gone."""
        held = self._held.items()
        return {key: None if isinstance(record, int) else record for key, record in held}

    def _count(self, session_id: str, by: int) -> None:
        namespace = namespace_of(session_id)
        self.total += by
        self.counts[namespace] += by
        if not self.counts[namespace]:
            del self.counts[namespace]
