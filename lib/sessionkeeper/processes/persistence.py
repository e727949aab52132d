"""Switching persistence off and on again while the store is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkeeper.events import Event, logger
from sessionkeeper.storage.overlay import Overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.engine.view import View
    from sessionkeeper.storage.backend import Backend


class Persistence:
    """Which backend is in force; belongs to the root, so it outlives every actor.

    Only the actor switches, between two turns.

    Args:
        stored: The backend that writes.
        backlogs: The ways into the index and the text index; none without these.
        publish: Where events go.
    """

    def __init__(
        self,
        stored: Backend,
        backlogs: Sequence[Backlog],
        publish: Callable[[Event], None],
    ) -> None:
        self._stored = stored
        self._backlogs = backlogs
        self._publish = publish
        self._overlay: Overlay | None = None

    @property
    def backend(self) -> Backend:
        """Where changes go now."""
        return self._stored if self._overlay is None else self._overlay

    @property
    def enabled(self) -> bool:
        """Whether changes are stored."""
        return self._overlay is None

    @property
    def unsaved(self) -> int:
        """How many sessions are not stored as they are now."""
        return 0 if self._overlay is None else len(self._overlay)

    def disable(self, view: View) -> None:
        """From now on changes stay in memory."""
        for backlog in self._backlogs:
            backlog.pause()
        seen = view.snapshot(lambda: 0)
        if seen is None:
            raise AssertionError("the actor has recovered, or it would not be here")
        _, lsn, records = seen
        self._overlay = Overlay(self._stored, records, lsn)
        view.use(self._overlay)
        self._publish(Event("volatile", detail="changes stay in memory"))

    def enable(self, view: View) -> None:
        """Write what was changed meanwhile; from now on changes are stored.

        Raises:
            StorageFailed: It could not all be written; it goes on as before.
            CommitUncertain: A recovery has to find out how much was.
        """
        if self._overlay is None:
            return
        count = len(self._overlay)
        self._overlay.save()
        self._overlay = None
        view.use(self._stored)
        for backlog in self._backlogs:
            backlog.resume()
        self._publish(Event("persistent", detail=f"{count} sessions were written"))

    def drop(self) -> None:
        """Say what is lost when the store ends now."""
        if self.unsaved:
            detail = f"{self.unsaved} sessions are not stored as they were, and lost"
            self._publish(Event("dropped", detail=detail))
            logger.warning("persistence was off: %s", detail)
