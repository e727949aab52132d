"""Backups of the single-file layout: files that were replaced, and the versions in them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import orjson

from sessionkeeper.answers import BackupInfo
from sessionkeeper.errors import BackupsDamaged, CorruptDocument, NewerVersion, NoBackup
from sessionkeeper.keys import id_of, named
from sessionkeeper.layout import SUFFIX
from sessionkeeper.storage.backups import Backups
from sessionkeeper.storage.onefile import Contents, decode_file, encode_file, find_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.onefile import Slot
    from sessionkeeper.storage.platform import FileSystem

_NAME: Final = re.compile(r"[0-9a-f]{16}-\d{8}T\d{12}Z\.json")
EVER: Final = None

_Version = tuple["Slot", "Path"]


def is_kept_file(name: str) -> bool:
    """Whether a file of that name is one that was replaced, not a hand edit."""
    return _NAME.fullmatch(name) is not None


class KeptFiles:
    """The folder of the files that were replaced.

    Each is named by the highest number in it and the time, so that names sort by age. A hand edit
    that met a write lies beside them and is never removed.

    Args:
        fs: The file system.
        folder: Where they lie.
        limit: How many are kept; 0 for none.
        clock: For their names.
    """

    def __init__(self, fs: FileSystem, folder: Path, limit: int, clock: Clock) -> None:
        self._fs = fs
        self._folder = folder
        self._limit = limit
        self._clock = clock

    def resize(self, limit: int) -> None:
        """Keep so many from the next replacement on; with 0 what is there stays."""
        self._limit = limit

    def names(self) -> list[str]:
        """Those that are kept, the oldest first."""
        return sorted(path.name for path in self._paths() if is_kept_file(path.name))

    def keep(self, file: Path, lsn: int) -> None:
        """Keep a file that is about to be replaced; the oldest beyond the limit goes.

        Raises:
            OSError: As the system said.
        """
        if not self._limit:
            return
        names = self.names()
        status = self._fs.status(self._folder / names[-1]) if names else None
        if status is not None and os.path.samestat(status, file.lstat()):
            return  # kept before a crash that came before the replacement
        self._fs.link(file, self._folder / self._name(lsn))
        self._trim()

    def keep_bytes(self, temporary: Path, chunks: list[Chunk], lsn: int) -> None:
        """Keep a version that no file holds any more.

        Raises:
            OSError: As the system said.
        """
        if not self._limit:
            return
        self._fs.write_new(temporary, chunks)
        self._fs.replace(temporary, self._folder / self._name(lsn))
        self._trim()

    def keep_edit(self, file: Path, lsn: int) -> Path:
        """Keep a hand-made file, durably. See `Backups.keep_edit`."""
        return Backups(self._fs, self._folder.parent, 0).keep_edit(self._folder.name, file, lsn)

    def versions(self, session_id: str, behind: int, current: int) -> list[BackupInfo]:
        """The versions of a session, the newest first.

        Args:
            session_id: The session.
            behind: Those up to that number are of one that was removed.
            current: The number of the version that is in force; it is no backup.
        """
        return [
            BackupInfo.of(session_id, r.generation, r.updated_at, slot.size, path)
            for slot, path in self._versions(session_id, behind, current)
            for r in (slot.record,)
        ]

    def load(self, session_id: str, generation: int | None, behind: int, current: int) -> Slot:
        """One version of a session; the newest that is whole if none is named.

        Raises:
            NoBackup: Nothing is kept, or not that one.
            BackupsDamaged: What is kept cannot be read.
        """
        for slot, _ in self._versions(session_id, behind, current):
            if generation in (None, slot.record.generation):
                return slot
        damages = list(self._damages(session_id))
        if damages:
            text = "; ".join(damages)
            raise BackupsDamaged(text, session_id=session_id, path=self._folder)
        what = "no backup" if generation is None else f"no backup of generation {generation}"
        raise NoBackup(f"{what} of session {named(session_id)}", session_id=session_id)

    def newest_of(self, wanted: Collection[str | None]) -> list[Slot]:
        """Of each of these sessions the newest version that is whole, if there is one."""
        found: dict[str, Slot] = {}
        for name in reversed(self.names()):
            if all(session_id in found for session_id in wanted):
                break
            for slot in self._contents(self._folder / name).slots:
                if slot.ours and slot.record.session_id in wanted:
                    found.setdefault(slot.record.session_id, slot)
        return list(found.values())

    def newest_whole(self) -> Contents | None:
        """The newest file that is whole."""
        for name in reversed(self.names()):
            contents = self._contents(self._folder / name)
            if contents.whole:
                return contents
        return None

    def strip(
        self,
        unwanted: Mapping[str, int | None],
        new_temporary: Callable[[], Path],
    ) -> tuple[int, int]:
        """Take sessions out of all files, durably.

        Args:
            unwanted: The ids, and below which number their versions go; `EVER`: all of them, and
                with them whatever cannot be read and names them.
            new_temporary: Names a file to write.

        Returns:
            How many versions there were, and their bytes.

        Raises:
            OSError: As the system said; repeating it goes on where it stopped.
        """
        count = size = 0
        for path in self._paths():
            removed = self._strip_one(path, unwanted, new_temporary)
            count += len(removed)
            size += sum(removed)
        self._fs.sync_folder(self._folder)
        return count, size

    def _strip_one(
        self,
        path: Path,
        unwanted: Mapping[str, int | None],
        new_temporary: Callable[[], Path],
    ) -> list[int]:
        data = b"".join(self._fs.read(path)[0])
        # Namespace and id stand apart in there.
        found = [key for key in unwanted if orjson.dumps(id_of(key)) in data]
        if not found and is_kept_file(path.name):
            return []
        try:
            contents = decode_file(data, self._clock.now())
        except NewerVersion as error:
            contents = Contents([], torn=str(error.args[0]))
        unreadable = contents.torn is not None or bool(contents.damaged)
        if unreadable and any(unwanted[session_id] is EVER for session_id in found):
            self._fs.unlink(path)
            return [len(data)]
        gone = [slot for slot in contents.slots if _goes(slot.record, unwanted)]
        if unreadable or not gone:
            return []
        rest = [slot for slot in contents.slots if not _goes(slot.record, unwanted)]
        if rest:
            temporary = new_temporary()
            self._fs.write_new(temporary, encode_file(slot.parts for slot in rest))
            self._fs.replace(temporary, path)
        else:
            self._fs.unlink(path)
        return [slot.size for slot in gone]

    # --- reading ----------------------------------------------------------------------------

    def _versions(self, session_id: str, behind: int, current: int) -> Iterator[_Version]:
        seen = {current}
        for name in reversed(self.names()):
            path = self._folder / name
            slot = self._one_of(path, session_id)
            if slot is not None and slot.record.lsn not in seen:
                seen.add(slot.record.lsn)
                if slot.record.lsn > behind:
                    yield slot, path

    def _one_of(self, path: Path, session_id: str) -> Slot | None:
        try:
            return find_session(b"".join(self._fs.read(path)[0]), session_id)
        except (OSError, CorruptDocument):
            return None

    def _damages(self, session_id: str) -> Iterator[str]:
        """What may have held a version of a session, and why it cannot be read."""
        for name in reversed(self.names()):
            try:
                find_session(b"".join(self._fs.read(self._folder / name)[0]), session_id)
            except (OSError, CorruptDocument) as error:
                yield f"{name}: {error.args[0]}"

    def _contents(self, path: Path) -> Contents:
        try:
            return decode_file(b"".join(self._fs.read(path)[0]), self._clock.now())
        except (OSError, NewerVersion) as error:
            return Contents([], torn=str(error))

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._folder / entry.name for entry in self._fs.entries(self._folder))
        except FileNotFoundError:
            return []

    def _name(self, lsn: int) -> str:
        return f"{lsn:016x}-{self._clock.now():%Y%m%dT%H%M%S%f}Z{SUFFIX}"

    def _trim(self) -> None:
        names = self.names()
        for name in names[: max(0, len(names) - self._limit)]:
            self._fs.unlink(self._folder / name)


def _goes(record: Record, unwanted: Mapping[str, int | None]) -> bool:
    if record.session_id not in unwanted:
        return False
    before = unwanted[record.session_id]
    return before is EVER or record.lsn < before
