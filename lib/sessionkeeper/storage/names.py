"""Which file a session lies in: ids to file stems and back, twins kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionkeeper.layout import hashed_stem, plain_stem

if TYPE_CHECKING:
    from sessionkeeper.storage.shelf import Shelf

_UNKNOWN: Final = ""


class NameTable:
    """The names in use in one folder.

    Two ids that differ in case only would share a file where the file system folds case; the
    second gets its hashed name, on every system, so that a folder can move.

    One thread changes it, any thread asks. Names of sessions that memory has no room for are
    looked up on a shelf; None in the tables then stands for what is known not to be.

    Attributes:
        shelf: Where names are looked up that are not in memory; None: all are.
    """

    def __init__(self) -> None:
        self.shelf: Shelf | None = None
        self._stems: dict[str, str | None] = {}
        self._owners: dict[str, str | None] = {}

    def find(self, session_id: str) -> str | None:
        """The stem of a session that has one.

        Raises:
            IndexFailed: The shelf cannot be read.
        """
        stem = self._stems.get(session_id, _UNKNOWN)
        if stem != _UNKNOWN:
            return stem
        if self.shelf is None:
            return None
        entry = self.shelf.of_keys([session_id]).get(session_id)
        return None if entry is None else entry.stem

    def knows(self, session_id: str) -> bool:
        """Whether a shelf need not be asked for that session."""
        return self.shelf is None or session_id in self._stems

    def stem_for(self, session_id: str) -> str:
        """The stem a session has, or the one it will get.

        Raises:
            IndexFailed: See `find`.
        """
        stem = self.find(session_id)
        if stem is not None:
            return stem
        stem = plain_stem(session_id)
        return stem if self.owner(stem) in (None, session_id) else hashed_stem(session_id)

    def bind(self, session_id: str, stem: str) -> None:
        """From now on that session lies in that file."""
        self._stems[session_id] = stem
        self._owners[stem.casefold()] = session_id

    def owner(self, stem: str) -> str | None:
        """The session that lies in that file; None if none does.

        Raises:
            IndexFailed: See `find`.
        """
        owner = self._owners.get(stem.casefold(), _UNKNOWN)
        if owner != _UNKNOWN:
            return owner
        if self.shelf is None:
            return None
        for entry in self.shelf.of_stems([stem]).values():
            # What is in memory is newer than what lies on the shelf.
            if self._stems.get(entry.record.session_id, entry.stem) == entry.stem:
                return entry.record.session_id
        return None

    def release(self, session_id: str) -> None:
        """The session has no file any more."""
        stem = self.find(session_id)
        if self.shelf is None:
            self._stems.pop(session_id, None)
        else:
            self._stems[session_id] = None
        if stem is not None:
            self._release(stem, session_id)

    def _release(self, stem: str, session_id: str) -> None:
        folded = stem.casefold()
        if self._owners.get(folded, session_id) != session_id:
            return
        if self.shelf is None:
            self._owners.pop(folded, None)
        else:
            self._owners[folded] = None

    def note_absent(self, session_id: str, *, is_free: bool) -> None:
        """A session is known to have no file; so may its usual name be."""
        self._stems.setdefault(session_id, None)
        if is_free:
            self._owners.setdefault(plain_stem(session_id).casefold(), None)

    def drop(self, session_id: str) -> None:
        """Let go of what the shelf says as well."""
        stem = self._stems.pop(session_id, None)
        for name in (stem, plain_stem(session_id)):
            if name is not None and self._owners.get(name.casefold()) in (None, session_id):
                self._owners.pop(name.casefold(), None)
