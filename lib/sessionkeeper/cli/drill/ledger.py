"""What was acknowledged, kept in memory while the writers work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.cli.drill.count import Mark


class Ledger:
    """The messages acknowledged so far; written and waited for from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._marks: dict[str, list[Mark]] = {}
        self._total = 0
        self._closed = False

    def note(self, session_id: str, marks: Sequence[Mark]) -> None:
        """Enter messages whose change was acknowledged."""
        with self._changed:
            self._marks.setdefault(session_id, []).extend(marks)
            self._total += len(marks)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing will be entered any more; nobody waits in vain."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, total: int, timeout: float) -> bool:
        """Wait for so many messages in all; False if they did not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._total >= total, timeout)
            return self._total >= total

    @property
    def total(self) -> int:
        """How many messages are in it."""
        return self._total

    def acknowledged(self) -> dict[str, list[Mark]]:
        """The marks acknowledged, by session."""
        with self._changed:
            return {session_id: list(marks) for session_id, marks in self._marks.items()}
