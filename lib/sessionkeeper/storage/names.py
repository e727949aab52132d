"""Which file a session lies in: ids to file stems and back, twins kept apart."""

from __future__ import annotations

from sessionkeeper.layout import hashed_stem, plain_stem


class NameTable:
    """The names in use in one folder.

    Two ids that differ in case only would share a file where the file system folds case; the
    second gets its hashed name, on every system, so that a folder can move.
    """

    def __init__(self) -> None:
        self._stems: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def find(self, session_id: str) -> str | None:
        """The stem of a session that has one."""
        return self._stems.get(session_id)

    def stem_for(self, session_id: str) -> str:
        """The stem a session has, or the one it will get."""
        stem = self._stems.get(session_id)
        if stem is not None:
            return stem
        stem = plain_stem(session_id)
        if self._owners.get(stem.casefold(), session_id) != session_id:
            return hashed_stem(session_id)
        return stem

    def bind(self, session_id: str, stem: str) -> None:
        """From now on that session lies in that file."""
        self._stems[session_id] = stem
        self._owners[stem.casefold()] = session_id

    def owner(self, stem: str) -> str | None:
        """The session that lies in that file; None if none does."""
        return self._owners.get(stem.casefold())

    def release(self, session_id: str) -> None:
        """The session has no file any more."""
        stem = self._stems.pop(session_id, None)
        if stem is not None:
            self._owners.pop(stem.casefold(), None)
