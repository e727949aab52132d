"""The trash: one folder for each removal, with a manifest written before anything moves.

A removal is complete when the session's file lies in its folder. A folder without one is a
removal that never happened, and recovery takes it away.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from sessionkeeper.answers import Saved, Trashed
from sessionkeeper.errors import CorruptDocument, NewerVersion
from sessionkeeper.events import logger
from sessionkeeper.keys import key_of, split_key
from sessionkeeper.layout import aside_name, stem_of_aside
from sessionkeeper.storage.documents import decode_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionkeeper.storage.backend import Trash
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.platform import FileSystem

MANIFEST = "removal.json"
SESSION = "session.json"
BACKUPS = "backups"
# A removal's folder is named by its number, a hyphen, and the session's file stem.
_LSN_DIGITS = 16
_STEM_AT = _LSN_DIGITS + 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One removal.

    Attributes:
        folder: Where it lies.
        lsn: The number of the removal.
        session_id: What was removed.
        at: When the grace began.
        reason: Why it was removed, in words.
        answers: The requests that it, and the version it removed, fulfilled.
    """

    folder: Path
    lsn: int
    session_id: str
    at: datetime
    reason: str
    answers: dict[str, Saved | bool]


def read_removal(fs: FileSystem, folder: Path) -> Entry | None:
    """What the manifest in a removal's folder says; None if it cannot be read."""
    try:
        manifest: dict[str, Any] = orjson.loads(b"".join(fs.read(folder / MANIFEST)[0]))
        session_id = key_of(str(manifest.get("namespace", "")), str(manifest["session_id"]))
        answers: dict[str, Saved | bool] = {
            rid: Saved.of(session_id, generation, count)
            for rid, generation, count in manifest["requests"]
        }
        answers[manifest["request_id"]] = True
        at = datetime.fromisoformat(manifest["at"])
        reason = str(manifest.get("reason", ""))
        return Entry(folder, int(folder.name[:_LSN_DIGITS], 16), session_id, at, reason, answers)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stem_of(folder: Path) -> str:
    """The file stem of the session that lies in a removal's folder."""
    return stem_of_aside(folder.name[_STEM_AT:])


def _twin(folder: Path) -> Path:
    """The other of the two names that one removal's folder can have."""
    name = folder.name
    sign = "+" if name[_LSN_DIGITS] == "-" else "-"
    return folder.with_name(f"{name[:_LSN_DIGITS]}{sign}{name[_LSN_DIGITS + 1 :]}")


class TrashFolder:
    """The removals of one store, oldest to newest by name."""

    def __init__(self, fs: FileSystem, folder: Path) -> None:
        self._fs = fs
        self._folder = folder

    def stage(self, change: Trash, stem: str, *, sync: bool = True) -> Path:
        """Write the manifest of a removal.

        Args:
            change: The removal.
            stem: The session's file stem.
            sync: Whether the manifest is durable on return.

        Returns:
            The folder the session's file is to be moved into.
        """
        record = change.record
        folder = self.folder_of(change.lsn, stem)
        self._fs.make_folder(folder)
        path = folder / MANIFEST
        if self._fs.status(path) is not None:
            self._fs.unlink(path)  # of a removal that a crash left half done
        namespace, session_id = split_key(record.session_id)
        manifest = {
            "session_id": session_id,
            "namespace": namespace,
            "reason": change.reason,
            "at": change.at.isoformat(),
            "request_id": change.request_id,
            "requests": [[r.request_id, r.generation, r.message_count] for r in record.requests],
        }
        content = [orjson.dumps(manifest, option=orjson.OPT_INDENT_2)]
        if sync:
            self._fs.write_new(path, content)
            self._fs.sync_folder(folder)
        else:
            self._fs.write_unsynced(path, content)
        return folder

    def folder_of(self, lsn: int, stem: str) -> Path:
        """The folder of the removal of that number, where its session lies if it is there."""
        first = self._folder / f"{lsn:016x}-{aside_name(stem)}"
        second = _twin(first)
        lies_there = [f for f in (first, second) if self._fs.status(f / SESSION) is not None]
        return lies_there[0] if lies_there else first

    def holds(self, lsn: int, stem: str, base_lsn: int) -> bool:
        """Whether the removal of that number is complete, with the version it removed."""
        return self.moved(lsn, stem, base_lsn) is not None and self.is_named(lsn, stem)

    def is_named(self, lsn: int, stem: str) -> bool:
        """Whether the removal of that number has a manifest that can be read."""
        return self._entry(self.folder_of(lsn, stem)) is not None

    def moved(self, lsn: int, stem: str, base_lsn: int) -> Document | None:
        """The version that the removal of that number took, if it lies there whole."""
        try:
            found = decode_document(self._fs.read(self.folder_of(lsn, stem) / SESSION)[0])
        except (OSError, CorruptDocument, NewerVersion):
            return None
        return found if found is not None and found.record.lsn == base_lsn else None

    def settle(self, folder: Path) -> None:
        """Make one removal durable: its bytes, then their names; one that is gone needs nothing."""
        # Another thread may empty the trash meanwhile, and so may a person.
        with contextlib.suppress(FileNotFoundError):
            self._fs.sync_files(folder, [folder / MANIFEST, folder / SESSION])
            self._fs.sync_folder(folder)

    def renew(self, lsn: int, stem: str, temporary: Callable[[], Path]) -> Path:
        """Write the folder of a removal anew, under another name, durably.

        Returns:
            The folder in which it lies now.
        """
        folder = self.folder_of(lsn, stem)
        other = _twin(folder)
        if self._fs.status(other) is not None:
            self._remove(other)
        self._fs.make_folder(other)
        for name in (MANIFEST, SESSION):
            path = temporary()
            self._fs.write_new(path, self._fs.read(folder / name)[0])
            self._fs.replace(path, other / name)
        self._fs.sync_folder(other)
        self.sync()
        if self._fs.status(folder / BACKUPS) is not None:
            self._fs.replace(folder / BACKUPS, other / BACKUPS)
        self._remove(folder)
        return other

    def sync(self) -> None:
        """Make the names of the removals durable."""
        self._fs.sync_folder(self._folder)

    def entries(self) -> Iterator[Entry]:
        """All complete removals, oldest first."""
        for folder in self._folders():
            entry = self._entry(folder)
            if entry is not None:
                yield entry

    def entry_of(self, lsn: int, stem: str) -> Entry | None:
        """The removal of that number, if it is complete."""
        return self._entry(self.folder_of(lsn, stem))

    def sweep(self) -> None:
        """Take away removals that never happened."""
        for folder in self._folders():
            if self._fs.status(folder / SESSION) is None:
                self._remove(folder)

    def take_back(self, folder: Path) -> None:
        """Take away a removal that did not happen, though its session was copied already."""
        if self._fs.status(folder) is not None:
            self._remove(folder)

    def listed(self) -> list[Trashed]:
        """What lies here, newest removal last."""
        return [Trashed.of(e.session_id, e.at, e.reason) for e in self.entries()]

    def find(self, session_id: str) -> Document | None:
        """The version of a session that was removed last."""
        folder = self._newest_of(session_id)
        return None if folder is None else decode_document(self._fs.read(folder / SESSION)[0])

    def backups_of(self, session_id: str) -> Path | None:
        """Where the backups lie that went with that version; None if there are none."""
        folder = self._newest_of(session_id)
        if folder is None or self._fs.status(folder / BACKUPS) is None:
            return None
        return folder / BACKUPS

    def _newest_of(self, session_id: str) -> Path | None:
        newest_first = reversed(list(self.entries()))
        return next((e.folder for e in newest_first if e.session_id == session_id), None)

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was removed before that instant."""
        gone: list[str] = []
        for entry in self.entries():
            if entry.at < before:
                self._remove(entry.folder)
                gone.append(entry.session_id)
        if gone:
            self.sync()
        return gone

    def _folders(self) -> list[Path]:
        entries = self._fs.entries(self._folder)
        return sorted(self._folder / e.name for e in entries if e.is_dir(follow_symlinks=False))

    def _entry(self, folder: Path) -> Entry | None:
        if self._fs.status(folder / SESSION) is None:
            return None
        entry = read_removal(self._fs, folder)
        if entry is None:
            # It holds a session that somebody deleted; not knowing when, it stays for ever.
            logger.warning("the removal %s cannot be read and is kept", folder)
        return entry

    def _remove(self, folder: Path) -> None:
        # The manifest goes last: what is left after a crash is still recognised.
        backups = folder / BACKUPS
        if self._fs.status(backups) is not None:
            for entry in list(self._fs.entries(backups)):
                self._fs.unlink(backups / entry.name)
            self._fs.remove_folder(backups)
        for name in (SESSION, MANIFEST):
            if self._fs.status(folder / name) is not None:
                self._fs.unlink(folder / name)
        self._fs.remove_folder(folder)
