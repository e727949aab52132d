"""A session folder of which memory holds a part: the rest is looked up in the index.

A session leaves memory once the index says of it what memory says: its version, its file, and
that file's signature. So whatever is not in memory was published, and is as the index has it
unless a person has changed the file; that is found where it always is, by comparing signatures.
What memory holds is newer than the index, and counts. That a session is gone, or was never there,
is noted in memory too, until the index has no row of it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionkeeper.events import logger
from sessionkeeper.keys import SEPARATOR
from sessionkeeper.layout import SUFFIX, hashed_stem, is_namespace, plain_stem
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.known import known_of
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.storage.shelf import in_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.index import Entry
    from sessionkeeper.storage.platform import FileSystem, Signature
    from sessionkeeper.storage.room import Room


@dataclass(slots=True)
class Held:
    """Sessions that were brought into memory.

    Attributes:
        records: Their newest versions; None for those that are not there.
        suspects: Names of files that are not as last published.
    """

    records: dict[str, Record | None] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)


class ShelvedFolder(FolderReader):
    """The read side of a folder of which memory holds a part.

    Args:
        layout: The folders.
        fs: The file system.
        clock: For the times of hand-made files.
        room: How many sessions memory holds, and where the others are looked up; None: all are
            in memory.
    """

    def __init__(
        self,
        layout: Layout,
        fs: FileSystem,
        clock: Clock,
        room: Room | None = None,
    ) -> None:
        super().__init__(layout, fs, clock)
        self._room = room

    @property
    def is_shelved(self) -> bool:
        """Whether memory may hold a part only."""
        return self._files.shelf is not None

    def _shelve(self, room: Room) -> None:
        """From now on what is not in memory is looked up."""
        self._files.shelf = self._names.shelf = room.shelf

    # --- for the actor ----------------------------------------------------------------------

    def hold(self, session_ids: Iterable[str]) -> Held:
        """Bring into memory what is known of sessions, before they are changed.

        Raises:
            IndexFailed: The index cannot be read: all is to be looked at anew.
        """
        held = Held()
        for some in in_pages(session_ids):
            for session_id, entry in self._fetch(some).items():
                known = known_of(entry)
                if entry is None or known is None:
                    held.records[session_id] = None
                    names = (plain_stem(session_id), hashed_stem(session_id))
                    paths = [self._path(stem) for stem in names if stem not in self._blocked]
                    found = [path for path in paths if not self._is_as(path, None)]
                    held.suspects += map(self._name_at, found)
                    continue
                held.records[session_id] = known.record
                if not self._is_as(self._path(str(entry.stem)), known.signature):
                    held.suspects.append(f"{entry.stem}{SUFFIX}")
        return held

    def _fetch(self, session_ids: Iterable[str]) -> dict[str, Entry | None]:
        """Bring the names and files of sessions into memory, of those that are not there."""
        shelf = self._names.shelf
        if shelf is None:
            return {}
        missing = [each for each in dict.fromkeys(session_ids) if not self._names.knows(each)]
        found = shelf.of_keys(missing)
        for session_id, entry in found.items():
            known = known_of(entry)
            if entry.stem is None or known is None:
                continue
            self._names.bind(session_id, entry.stem)
            if not self._files.knows(entry.stem):
                self._files[entry.stem] = known
        absent = [each for each in missing if not self._names.knows(each)]
        stems = {each: plain_stem(each) for each in absent}
        taken = {stem.casefold() for stem in shelf.of_stems(stems.values())}
        for session_id, stem in stems.items():
            self._names.note_absent(session_id, is_free=stem.casefold() not in taken)
        return {session_id: found.get(session_id) for session_id in missing}

    def let_go(self, records: Mapping[str, Record | None]) -> list[str]:
        """Let go of sessions of which the index says what memory says.

        Args:
            records: Their versions as memory has them; None for those that are gone.

        Returns:
            Those that were let go of.

        Raises:
            IndexFailed: The index cannot be read now; nothing is let go of.
        """
        room = self._room
        if room is None:
            return []
        asked = [session_id for session_id in records if not self._is_needed(session_id)]
        entries = room.shelf.of_keys(asked)
        gone = [
            session_id
            for session_id in asked
            if self._says(entries.get(session_id), records[session_id])
        ]
        if gone:
            self._shelve(room)
        for session_id in gone:
            stems = {plain_stem(session_id), hashed_stem(session_id)}
            if session_id in entries:
                stems.add(str(entries[session_id].stem))
            for stem in stems:
                known = self._files.in_memory(stem)
                if known is None or known.record.session_id == session_id:
                    self._files.drop(stem)
            self._names.drop(session_id)
        return gone

    def _is_needed(self, session_id: str) -> bool:
        """Whether the files do not hold all of it."""
        return session_id in self._pending or session_id in self._unmoved

    def _says(self, entry: Entry | None, record: Record | None) -> bool:
        if record is None or entry is None:
            return record is None and entry is None
        published = self.published(record)
        return published == (entry.stem, entry.signature) and entry.record.lsn == record.lsn

    # --- for readers ------------------------------------------------------------------------

    def shelved(self, session_id: str) -> Record | None:
        """The version of a session that is not in memory; None if it has no file.

        Raises:
            IndexFailed: The index cannot be read: all is to be looked at anew.
        """
        if self._room is None:
            return None
        entry = self._room.shelf.of_keys([session_id]).get(session_id)
        if entry is None or entry.stem is None or self._is_as(self._path(entry.stem), None):
            return None
        return entry.record

    def indexed(self, session_ids: Iterable[str]) -> dict[str, Record | None]:
        """The versions of sessions as the index has them; None where it has none.

        Raises:
            IndexFailed: It cannot be read.
        """
        wanted = list(session_ids)
        if self._room is None or not wanted:
            return {}
        entries = self._room.shelf.of_keys(wanted)
        return {key: entries[key].record if key in entries else None for key in wanted}

    def _read_file(self, session_id: str) -> Document | None:
        document = super()._read_file(session_id)
        if document is not None or not self.is_shelved or self._names.find(session_id) is not None:
            return document
        # An index that has lost a row does not decide what there is: whoever asks for it has the
        # actor look at the file.
        path = self._path(plain_stem(session_id))
        with contextlib.suppress(OSError):
            document = self._decode(self._fs.read(path)[0], path, session_id)
        return document if document and document.record.session_id == session_id else None

    def keys(self) -> Iterator[str]:
        """The ids of all sessions."""
        ids = dict.fromkeys(super().keys())
        yield from ids
        shelf = self._names.shelf
        if shelf is None:
            return
        for entries in shelf.entries():
            for entry in entries:
                if not self._names.knows(entry.record.session_id):
                    yield entry.record.session_id

    # --- comparing --------------------------------------------------------------------------

    def suspects(self) -> list[str]:
        """Names of files that are not as last published; called from any thread."""
        if not self.is_shelved:
            return super().suspects()
        suspects: list[str] = []
        try:
            for some in self.find_suspects():
                suspects += some
        except IndexFailed as error:  # whoever needs it has it made anew
            logger.warning("the folder was not compared to its end: %s", error)
        return suspects

    def find_suspects(self) -> Iterator[list[str]]:
        """Names of files that are not as last published, some at a time; from any thread."""
        stems = [stem for stem, _ in self._files.all_in_memory()]
        held = list(dict.fromkeys((*stems, *dict(self._blocked))))
        for some in in_pages(stem + SUFFIX for stem in held):
            yield self.changed(some)
        shelf = self._names.shelf
        if shelf is None:
            return
        there = sum(self._stands(stem) for stem in held)
        for files in shelf.files():
            cold = [(stem, signature) for stem, signature in files if not self._files.knows(stem)]
            suspects = [s for s, signature in cold if not self._is_as(self._path(s), signature)]
            there += len(cold) - len(suspects) + sum(map(self._stands, suspects))
            yield [stem + SUFFIX for stem in suspects]
        if sum(1 for _ in self._present()) == there:
            return  # there is no file of which nothing is known
        # Whoever goes through them may leave off: no folder stays open meanwhile.
        for some in in_pages(list(self._present())):
            yield self.changed(some)

    def _stands(self, stem: str) -> bool:
        """Whether there is anything under that name."""
        return not self._is_as(self._path(stem), None)

    def _present(self) -> Iterator[str]:
        """The names of all session files."""
        folders = [""]
        for entry in self._fs.entries(self._layout.sessions):
            if entry.name.endswith(SUFFIX):
                if not entry.name.startswith("."):
                    yield entry.name
            elif is_namespace(entry.name) and entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
        for namespace in folders[1:]:
            try:
                for entry in self._fs.entries(self._layout.folder_of(namespace)):
                    if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                        yield f"{namespace}{SEPARATOR}{entry.name}"
            except OSError as error:
                folder = self._layout.folder_of(namespace)
                logger.warning("%s cannot be read and is left alone: %s", folder, error)

    def changed(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose files are not as last published; from any thread."""
        if not self.is_shelved:
            return super().changed(names)
        suspects: list[str] = []
        for paths in in_pages(map(self._name_at, self._reconcilable(names))):
            try:
                suspects += self._changed_of(paths)
            except IndexFailed:
                suspects += paths  # the actor looks into it, and at the index
        return suspects

    def _changed_of(self, names: list[str]) -> list[str]:
        stems = [name[: -len(SUFFIX)] for name in names]
        shelf = self._files.shelf
        unknown = [stem for stem in stems if not self._files.knows(stem)]
        filed = shelf.of_stems(unknown) if shelf is not None and unknown else {}
        suspects: list[str] = []
        for stem in stems:
            known = self._files.in_memory(stem) or known_of(filed.get(stem))
            stop = self._blocked.get(stem)
            expected: Signature | None = known.signature if known else stop[0] if stop else None
            if not self._is_as(self._path(stem), expected):
                suspects.append(stem + SUFFIX)
        return suspects
