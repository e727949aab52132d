"""How many sessions memory holds, and where the others are looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from sessionkeeper.storage.shelf import Shelf

# If an index does not know the files of more sessions than this, all are looked at.
UNFILED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Trusted:
    """What an index says that is as new as the files.

    Attributes:
        lsn: The highest log sequence number in it.
        counts: How many sessions there are in each namespace.
        unfiled: Sessions of which it does not know the files.
    """

    lsn: int
    counts: Counter[str]
    unfiled: list[str]


@dataclass(slots=True)
class Room:
    """The bound of a store's memory; belongs to the root of the tree.

    Attributes:
        shelf: Where sessions are looked up that are not in memory.
        bound: How many sessions may be in memory; None: all of them are.
        open: Opens the index, if there is one.
        is_lost: Whether the index turned out to be of no use, or all is to be in memory: the next
            recovery looks at the whole folder.
    """

    shelf: Shelf
    bound: Callable[[], int | None]
    open: Callable[[], bool]
    is_lost: bool = False

    def trusted(self, journal: bytes, oldest: int, newest: int) -> Trusted | None:
        """What the index says, if it has all that the journal has not; None if it has not.

        Args:
            journal: The id of the journal.
            oldest: Its first frame that counts.
            newest: Its last frame; an index that is ahead of it tells of what a power loss took.
        """
        bound = self.bound()
        if bound is None or self.is_lost or not journal:
            return None
        try:
            if not self.open():
                return None
            reached = self.shelf.reached()
            if reached.journal != journal or not oldest - 1 <= reached.frame <= newest:
                return None
            counts = self.shelf.counts()
            unfiled = self.shelf.unfiled(UNFILED + 1)
        except IndexFailed:
            return None
        if counts.total() <= bound or len(unfiled) > UNFILED:
            return None
        return Trusted(reached.lsn, counts, unfiled)
