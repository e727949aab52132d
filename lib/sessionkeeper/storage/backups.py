"""Backups: the versions that were replaced, kept as second names of the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sessionkeeper.answers import BackupInfo
from sessionkeeper.errors import BackupsDamaged, CorruptDocument, NewerVersion, NoBackup
from sessionkeeper.keys import named
from sessionkeeper.layout import SUFFIX, aside_name, belongs
from sessionkeeper.storage.documents import decode_document

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.platform import FileSystem

_NAME = re.compile(r"\d{10}-\d{8}T\d{12}Z\.json")
_STAMP = "%Y%m%dT%H%M%S%f"
# So many sessions' lists of backups are kept in memory; others are read again when needed.
_REMEMBERED = 4096


def is_backup(name: str) -> bool:
    """Whether a file of that name is a version that was replaced, not a hand edit."""
    return _NAME.fullmatch(name) is not None


class Backups:
    """The folder of one store's backups: one folder for each session.

    A backup is named by its generation and its time, so that names sort by generation. A hand
    edit that met a write lies beside them, under a name of its own, and is never removed.

    Args:
        fs: The file system.
        folder: Where they lie.
        limit: How many of a session are kept; 0 for none.
    """

    def __init__(self, fs: FileSystem, folder: Path, limit: int) -> None:
        self._fs = fs
        self._folder = folder
        self._limit = limit
        self._names: dict[str, deque[str]] = {}

    def resize(self, limit: int) -> None:
        """Keep so many of each session from its next replacement on; 0 for none.

        What is there beyond that goes one by one; with 0 it stays.
        """
        self._limit = limit

    def of(self, stem: str) -> Path:
        """The folder of one session's backups."""
        return self._folder / aside_name(stem)

    def keep(self, stem: str, target: Path, record: Record) -> None:
        """Keep the version that is about to be replaced; the oldest beyond the limit goes.

        Raises:
            OSError: As the system said.
        """
        if not self._limit:
            return
        name = f"{record.generation:010}-{record.updated_at:%Y%m%dT%H%M%S%f}Z{SUFFIX}"
        names = self._names.get(stem)
        if names is None:
            names = self._remember(stem)
        try:
            self._fs.link(target, self.of(stem) / name)
        except FileExistsError:
            return  # kept before a crash that came before the replacement
        names.append(name)
        while len(names) > self._limit:
            self._fs.unlink(self.of(stem) / names[0])
            names.popleft()

    def take_over(self, stem: str, folder: Path) -> None:
        """Take all that is kept in another folder, too; it stays there as well.

        Raises:
            OSError: As the system said.
        """
        here = self.of(stem)
        self._fs.make_folder(here)
        self.forget(stem)
        for entry in list(self._fs.entries(folder)):
            with contextlib.suppress(FileExistsError):  # it was taken before a crash
                self._fs.link(folder / entry.name, here / entry.name)

    def forget(self, stem: str) -> None:
        """The folder was moved, with the session."""
        self._names.pop(stem, None)

    def keep_edit(self, stem: str, target: Path, lsn: int) -> Path:
        """Keep a hand-made version, durably.

        Args:
            stem: The session's file stem.
            target: The file.
            lsn: The number of the change that meets it.

        Returns:
            Where it is kept.

        Raises:
            OSError: As the system said.
        """
        folder = self.of(stem)
        self._fs.make_folder(folder)
        # A crash after the link leaves the number unused: the next try meets its own copy.
        for copy in itertools.count(1):
            aside = folder / f"{lsn:016x}-edited-{copy}{SUFFIX}"
            there = self._fs.status(aside)
            if there is None:
                self._fs.link(target, aside)
            if there is None or os.path.samestat(there, target.lstat()):
                break
        self._fs.sync_folder(folder)
        self._fs.sync_folder(self._folder)
        return aside

    def newest_valid(self, stem: str) -> Document | None:
        """The newest backup that is whole and belongs to that file."""
        for name in reversed(self._listed(stem)):
            try:
                document = decode_document(self._fs.read(self.of(stem) / name)[0])
            except (OSError, CorruptDocument, NewerVersion):
                continue  # damaged too, or gone: the one before may not be
            if document is not None and belongs(stem, document.record.session_id):
                return document
        return None

    def infos(self, stem: str, session_id: str) -> list[BackupInfo]:
        """What is kept of a session, the newest first; not one byte of it is read."""
        found: list[BackupInfo] = []
        for name in reversed(self._listed(stem)):
            path = self.of(stem) / name
            status = self._fs.status(path)
            if status is not None:
                generation, stamp = name.removesuffix(f"Z{SUFFIX}").split("-")
                at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
                found.append(BackupInfo.of(session_id, int(generation), at, status.st_size, path))
        return found

    def load(self, stem: str, session_id: str, generation: int | None) -> Document:
        """One version that is kept; the newest that is whole if none is named.

        Raises:
            NoBackup: Nothing is kept, or not that one.
            BackupsDamaged: What is kept cannot be read.
        """
        infos = self.infos(stem, session_id)
        wanted = [info for info in infos if generation in (None, info.generation)]
        if not wanted:
            what = "no backup" if generation is None else f"no backup of generation {generation}"
            raise NoBackup(f"{what} of session {named(session_id)}", session_id=session_id)
        reasons: list[str] = []
        for info in wanted:
            try:
                document = decode_document(self._fs.read(info.path)[0])
            except (OSError, CorruptDocument, NewerVersion) as error:
                reasons.append(f"{info.path.name}: {error}")
                continue
            if document is not None and document.record.session_id == session_id:
                return document
            reasons.append(f"{info.path.name}: it is not as it was written")
        raise BackupsDamaged("; ".join(reasons), session_id=session_id, path=self.of(stem))

    def _remember(self, stem: str) -> deque[str]:
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        names = self._names[stem] = deque(self._listed(stem))
        if not names:
            self._fs.make_folder(self.of(stem))
        return names

    def _listed(self, stem: str) -> list[str]:
        try:
            entries = list(self._fs.entries(self.of(stem)))
        except FileNotFoundError:
            return []
        return sorted(entry.name for entry in entries if is_backup(entry.name))
