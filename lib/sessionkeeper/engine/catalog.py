"""The catalog: the way into the index, and the queries that are answered from it.

When the index cannot be used the catalog says so, and queries look elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkeeper.engine.backlog import LIMIT, PATIENCE, Backlog
from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.index import Index
    from sessionkeeper.storage.orders import Position
    from sessionkeeper.storage.selecting import Wanted


class Catalog(Backlog):
    """The way into the index and out of it; any thread.

    Args:
        index: Where it leads.
        timeout: See `Backlog`.
        limit: See `Backlog`.
        patience: See `Backlog`.
    """

    def __init__(
        self,
        index: Index,
        timeout: float,
        *,
        limit: int = LIMIT,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(timeout, limit=limit, patience=patience)
        self.index = index

    def page(
        self,
        wanted: Wanted,
        behind: Position | None,
        limit: int | None,
    ) -> list[Record] | None:
        """See `Index.page`; None if the index cannot be used now.

        Raises:
            IndexBehind: What was saved before is not in it in time.
        """
        return self._read(lambda: self.index.page(wanted, behind, limit))

    def after(self, session_id: str, limit: int) -> list[Record] | None:
        """See `Index.after`; None if the index cannot be used now.

        Raises:
            IndexBehind: What was saved before is not in it in time.
        """
        return self._read(lambda: self.index.after(session_id, limit))

    def _read(self, query: Callable[[], list[Record]]) -> list[Record] | None:
        epoch = self._caught_up()
        if epoch is None:
            return None
        try:
            found = query()
        except IndexFailed:
            with self._changed:
                if self._epoch == epoch:
                    # The comparison finds out what is wrong, says so and makes it good.
                    self._give_up()
                    self._rouse(urgent=True)
            return None
        return found if self._epoch == epoch else None
