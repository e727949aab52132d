"""A check of a whole folder: every problem there is, as values, and nothing is changed.

It works on a folder that nobody has open and beside a live owner. It reads everything, so it
finds what no recovery looks at: backups, the trash, what was left over.
"""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import orjson

from sessionkeeper.clock import SystemClock
from sessionkeeper.errors import CorruptDocument, NewerVersion, StoreNotFound
from sessionkeeper.keys import named
from sessionkeeper.layout import (
    FILE_MODE,
    FOLDER_MODE,
    SUFFIX,
    Layout,
    belongs,
    hashed_stem,
    is_namespace,
    plain_stem,
    stem_of_aside,
)
from sessionkeeper.storage import trash
from sessionkeeper.storage.backend import Problem
from sessionkeeper.storage.backups import is_backup
from sessionkeeper.storage.documents import decode_document
from sessionkeeper.storage.examine import Valid, examine
from sessionkeeper.storage.frames import BLOCK, HEADER, frames_in, journal_id_of, looks_begun
from sessionkeeper.storage.journal import Journal, segment_paths
from sessionkeeper.storage.keptfiles import is_kept_file
from sessionkeeper.storage.lock import read_holder
from sessionkeeper.storage.onefile import decode_file
from sessionkeeper.storage.platform import FileSystem, NotRegularError, Signature
from sessionkeeper.storage.replay import Entries, Hands, replay
from sessionkeeper.storage.trash import TrashFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sessionkeeper.clock import Clock
    from sessionkeeper.storage.backend import Trash
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.entries import ReferenceEntry, TrashEntry
    from sessionkeeper.storage.frames import Frame
    from sessionkeeper.storage.journal import Log
    from sessionkeeper.storage.onefile import Contents
    from sessionkeeper.storage.pending import Pending

FindingKind = Literal[
    "corrupt",  # it cannot be read as what it should be
    "changed",  # it can be read, and is not as it was written: by hand, or by the medium
    "unreadable",  # permission, or input/output error
    "not-a-file",  # a folder, link, pipe, socket or device where a file should be
    "newer-version",  # a newer version of this library wrote it
    "id-mismatch",  # it belongs to another session than its name says
    "duplicate",  # two files say that they are one session
    "journal",  # part of the journal is damaged, or has nothing to stand on
    "torn",  # the journal ends with a frame that was never finished, and never acknowledged
    "rot",  # bytes that should be zero are not; nothing was lost
    "left-over",  # of something that was interrupted; the next owner clears it away
    "quarantined",  # an owner set it aside
    "permissions",  # others could read or change it
    "missing",  # a folder that every store has
    "holder",  # what the last owner left of itself
]
Severity = Literal["damage", "notice"]

# Beside a live owner the journal may change while it is read; then it is read again.
_ATTEMPTS: Final = 5

# Where a document ends with a checksum of ours, however somebody laid it out anew.
_TAIL: Final = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a store's folder that is not as it should be.

    Attributes:
        kind: What it is.
        path: The file or folder.
        session_id: The session concerned, if it is known; outside the default namespace with
            that and a `/` before the id.
        detail: What is wrong, in words.
        severity: `damage`: something that was stored cannot be read, or cannot be trusted.
            `notice`: nothing is lost.
    """

    kind: FindingKind
    path: Path
    session_id: str | None
    detail: str
    severity: Severity


def check_store(
    path: str | os.PathLike[str],
    *,
    progress: Callable[[Path], object] | None = None,
) -> Iterator[Finding]:
    """Look at every file of a store and report every problem; changes nothing.

    It takes no lock and works beside a live owner.

    Args:
        path: The store's folder.
        progress: Called with each file before it is read.

    Returns:
        The findings, each as soon as it is found; none if all is well.

    Raises:
        StoreNotFound: There is no store.
    """
    root = Path(path).expanduser().resolve()
    layout = Layout.of(root, Layout.found_in(root) or "flat")
    if not layout.private.is_dir():
        raise StoreNotFound(f"there is no store at {root}", path=root)
    fs = FileSystem() if progress is None else _Telling(progress)
    return check(layout, fs, SystemClock())


class _Telling(FileSystem):
    """Tells of each file that is read."""

    def __init__(self, progress: Callable[[Path], object]) -> None:
        super().__init__()
        self._progress = progress

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        self._progress(path)
        return super().read(path)


def check(layout: Layout, fs: FileSystem, clock: Clock) -> Iterator[Finding]:
    """Look at every file of a folder. See `check_store`.

    The journal is read before the files: what a checkpoint brings into them meanwhile is seen
    twice rather than not at all.

    Args:
        layout: The folders.
        fs: The file system; nothing is written.
        clock: For the times that a hand-made file does not name.
    """
    yield from _Check(layout, fs, clock).findings()


class _Check:
    def __init__(self, layout: Layout, fs: FileSystem, clock: Clock) -> None:
        self._layout = layout
        self._fs = fs
        self._clock = clock
        self._trash = TrashFolder(fs, layout.trash)
        self._entries = Entries()
        # The files of the sessions that the journal speaks of; all others are let go of.
        self._filed: dict[str, Record] = {}

    def findings(self) -> Iterator[Finding]:
        yield from self._check_folders()
        yield from self._check_owner()
        if self._layout.file is not None:
            yield from self._check_file_of_many(self._layout.file)
            yield from self._check_kept_files()
        else:
            yield from self._check_journal()
            yield from self._check_sessions("")
            for namespace in self._namespaces():
                yield from self._check_mode(self._layout.folder_of(namespace))
                yield from self._check_sessions(namespace)
            yield from self._check_replay()
            yield from self._check_backups()
        yield from self._check_trash()
        yield from self._check_temporaries()
        yield from self._check_quarantine()

    # --- folders and the owner --------------------------------------------------------------

    def _check_folders(self) -> Iterator[Finding]:
        for folder in dict.fromkeys(self._layout.folders()):
            status = self._fs.status(folder)
            if status is None:
                yield _notice("missing", folder, "every store has this folder")
            elif not stat.S_ISDIR(status.st_mode):
                yield _damage("not-a-file", folder, "it should be a folder")
            else:
                yield from self._check_mode(folder)

    def _check_owner(self) -> Iterator[Finding]:
        for path in (self._layout.lock, self._layout.holder):
            status = self._fs.status(path)
            if status is not None and not stat.S_ISREG(status.st_mode):
                yield _damage("not-a-file", path, "it keeps everybody from opening the store")
            elif status is not None:
                yield from self._check_mode(path)
        if self._fs.status(self._layout.holder) is None:
            return
        holder = read_holder(self._layout)
        if not holder:
            yield _notice("holder", self._layout.holder, "it does not say who the owner is")
        elif holder["host"] == socket.gethostname() and not _is_alive(holder["pid"]):
            detail = f"process {holder['pid']} did not close the store"
            yield _notice("holder", self._layout.holder, detail)

    # --- the journal ------------------------------------------------------------------------

    def _check_journal(self) -> Iterator[Finding]:
        try:
            log, contents = self._read_journal()
        except OSError as error:
            yield _damage("unreadable", self._layout.journal, error.strerror or str(error))
            return
        for path in contents:
            yield from self._check_mode(path)
        for damage in log.damage:
            yield _damage("journal", damage.path, damage.detail)
        if log.torn:
            detail = "its last frame was never finished, and never acknowledged"
            yield _notice("torn", self._layout.journal, detail)
        yield from _check_segments(contents)
        self._entries = Entries.of(log.records)
        for _, reason in self._entries.unreadable:
            yield _damage("journal", self._layout.journal, reason)

    def _read_journal(self) -> tuple[Log, dict[Path, bytes]]:
        for attempt in range(_ATTEMPTS):
            before = self._segment_signatures()
            once = _Once(self._fs)
            log = Journal(once, self._layout.journal).read()
            quiet = before == self._segment_signatures()
            if quiet or not log.damage or attempt == _ATTEMPTS - 1:
                break
        return log, once.contents

    def _segment_signatures(self) -> dict[Path, Signature]:
        paths = segment_paths(self._fs, self._layout.journal)
        found = {path: self._fs.status(path) for path in paths}
        return {path: Signature.of(status) for path, status in found.items() if status is not None}

    def _check_replay(self) -> Iterator[Finding]:
        """What the journal adds to the files must have something to stand on."""
        for session_id, own in self._entries.by_session.items():
            hands = Hands(self._load_reference, _leave, self._is_removed)
            for detail in replay(own, self._filed.get(session_id), hands).problems:
                path = self._layout.sessions / (self._stem_of(session_id) + SUFFIX)
                yield _damage("journal", path, detail, session_id)

    def _is_removed(self, entry: TrashEntry) -> bool:
        return self._trash.holds(entry.lsn, self._stem_of(entry.session_id), entry.base_lsn)

    def _stem_of(self, session_id: str) -> str:
        hashed = hashed_stem(session_id)
        there = self._fs.status(self._layout.sessions / (hashed + SUFFIX)) is not None
        return hashed if there else plain_stem(session_id)

    def _load_reference(self, entry: ReferenceEntry) -> Document | None:
        try:
            return decode_document(self._fs.read(self._layout.temporaries / entry.temporary)[0])
        except (OSError, CorruptDocument, NewerVersion):
            return None

    # --- documents --------------------------------------------------------------------------

    def _namespaces(self) -> list[str]:
        """Those that the store has made or taken; other folders may be anybody's."""
        marked = (path.name for path in self._paths_in(self._layout.namespaces))
        return sorted(filter(is_namespace, marked))

    def _check_sessions(self, namespace: str) -> Iterator[Finding]:
        for path in self._paths_in(self._layout.folder_of(namespace)):
            if path.name.endswith(SUFFIX) and not path.name.startswith("."):
                yield from self._check_session(path)

    def _check_session(self, path: Path) -> Iterator[Finding]:
        stem = self._layout.stem_at(path)
        found = yield from self._check_document(path, stem)
        if found is None:
            return
        record = found.record
        if record.session_id in self._entries.by_session:
            known = self._filed.get(record.session_id)
            if known is None or known.generation < record.generation:
                self._filed[record.session_id] = record
        plain = plain_stem(record.session_id)
        if stem != plain:
            yield from self._check_twin(path, record, self._layout.sessions / (plain + SUFFIX))

    def _check_twin(self, path: Path, record: Record, plain: Path) -> Iterator[Finding]:
        """A session in its second name: the first may say that it is the same session."""
        try:
            other = examine(self._fs, plain, None, self._clock.now(), self._layout.stem_at(plain))
        except FileNotFoundError:
            return
        if isinstance(other, Problem) or other.document.record.session_id != record.session_id:
            return
        ours, theirs = record.generation, other.document.record.generation
        older, newer = (path, plain) if ours <= theirs else (plain, path)
        detail = f"{newer.name} holds generation {max(ours, theirs)} of the same session"
        yield _damage("duplicate", older, detail, record.session_id)

    def _check_document(self, path: Path, stem: str) -> Generator[Finding, None, Document | None]:
        """Report what is wrong with a document; returns it if it can be used."""
        yield from self._check_mode(path)
        try:
            found = examine(self._fs, path, None, self._clock.now(), stem)
            changed = isinstance(found, Valid) and not found.ours and self._was_ours(path, found)
        except FileNotFoundError:
            return None  # replaced or moved meanwhile
        if isinstance(found, Problem):
            severity: Severity = "notice" if found.kind in _LEFT_ALONE else "damage"
            yield Finding(_KINDS[found.kind], path, None, found.detail, severity)
            return None
        if changed:
            detail = "it is not as it was written: edited by hand, or changed by the medium"
            yield _damage("changed", path, detail, found.document.record.session_id)
        return found.document

    def _was_ours(self, path: Path, found: Valid) -> bool:
        """Whether the store wrote it once: a hand-made file has neither number nor checksum."""
        numbered = found.document.record.lsn > 0
        return numbered or b'"checksum"' in b"".join(self._fs.read(path)[0])[-_TAIL:]

    def _check_file_of_many(self, path: Path) -> Iterator[Finding]:
        """Report what is wrong with a file of the layout `single`."""
        yield from self._check_mode(path)
        try:
            contents = decode_file(b"".join(self._fs.read(path)[0]), self._clock.now())
        except FileNotFoundError:
            return  # nothing was saved yet, or it was removed meanwhile
        except NotRegularError as error:
            yield _notice("not-a-file", path, error.strerror or str(error))
            return
        except OSError as error:
            yield _damage("unreadable", path, error.strerror or str(error))
            return
        except NewerVersion as error:
            yield _notice("newer-version", path, str(error.args[0]))
            return
        yield from self._check_contents(path, contents)

    def _check_contents(self, path: Path, contents: Contents) -> Iterator[Finding]:
        if contents.torn is not None:
            yield _damage("corrupt", path, contents.torn)
        for damage in contents.damaged:
            if damage.newer:
                yield Finding("newer-version", path, damage.session_id, damage.detail, "notice")
            else:
                yield _damage("corrupt", path, damage.detail, damage.session_id)
        seen: set[str] = set()
        for slot in contents.slots:
            session_id = slot.record.session_id
            if session_id in seen:
                yield _damage("duplicate", path, "it is there twice", session_id)
            seen.add(session_id)
            if not slot.ours and slot.record.lsn > 0:
                detail = "it is not as it was written: edited by hand, or changed by the medium"
                yield _damage("changed", path, detail, session_id)

    def _check_kept_files(self) -> Iterator[Finding]:
        for path in sorted(self._paths_in(self._layout.backups)):
            if is_kept_file(path.name):
                yield from self._check_file_of_many(path)
            else:
                yield from self._check_mode(path)  # as a person left it: anything is right

    def _check_backups(self) -> Iterator[Finding]:
        for folder in self._paths_in(self._layout.backups):
            yield from self._check_backups_in(folder, stem_of_aside(folder.name))

    def _check_backups_in(self, folder: Path, stem: str) -> Iterator[Finding]:
        yield from self._check_mode(folder)
        for path in sorted(self._paths_in(folder)):
            if is_backup(path.name):
                yield from self._check_document(path, stem)
            else:
                yield from self._check_mode(path)  # as a person left it: anything is right

    # --- the rest ---------------------------------------------------------------------------

    def _check_trash(self) -> Iterator[Finding]:
        for folder in sorted(self._paths_in(self._layout.trash)):
            yield from self._check_removal(folder)

    def _check_removal(self, folder: Path) -> Iterator[Finding]:
        stem = trash.stem_of(folder)
        yield from self._check_mode(folder)
        session = folder / trash.SESSION
        if self._fs.status(session) is None:
            if self._fs.status(folder) is not None:
                yield _notice("left-over", folder, "a removal that never happened")
            return
        found = yield from self._check_document(session, stem)
        manifest = folder / trash.MANIFEST
        yield from self._check_mode(manifest)
        removal = trash.read_removal(self._fs, folder)
        if removal is None:
            detail = "it does not say when its session was removed, which is kept for ever"
            yield _damage("corrupt", manifest, detail)
        elif not belongs(stem, removal.session_id):
            detail = f"it says it is {named(removal.session_id)}"
            yield _damage("id-mismatch", manifest, detail)
        elif found is not None and found.record.session_id != removal.session_id:
            detail = f"it is not of {named(removal.session_id)}, which was removed"
            yield _damage("id-mismatch", session, detail, found.record.session_id)
        if self._fs.status(folder / trash.BACKUPS) is not None:
            yield from self._check_backups_in(folder / trash.BACKUPS, stem)

    def _check_temporaries(self) -> Iterator[Finding]:
        named = self._entries.temporaries()
        for path in sorted(self._paths_in(self._layout.temporaries)):
            yield from self._check_mode(path)
            if path.name not in named and self._fs.status(path) is not None:
                yield _notice("left-over", path, "it was not published, or not yet")

    def _check_quarantine(self) -> Iterator[Finding]:
        for path in sorted(self._paths_in(self._layout.quarantine)):
            yield from self._check_mode(path)
            if not path.name.endswith(_WHY):
                yield _notice("quarantined", path, self._reason(path.with_suffix(_WHY)))

    def _reason(self, note: Path) -> str:
        try:
            why = orjson.loads(b"".join(self._fs.read(note)[0]))
            return f"{why['kind']}: {why['detail']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "the note that says why cannot be read"

    def _check_mode(self, path: Path) -> Iterator[Finding]:
        status = self._fs.status(path)
        if status is None or stat.S_ISLNK(status.st_mode):
            return
        mode = stat.S_IMODE(status.st_mode)
        expected = FOLDER_MODE if stat.S_ISDIR(status.st_mode) else FILE_MODE
        if mode != expected:
            yield _notice("permissions", path, f"its mode is {mode:04o}, not {expected:04o}")

    def _paths_in(self, folder: Path) -> Iterator[Path]:
        try:
            for entry in self._fs.entries(folder):
                yield folder / entry.name
        except OSError:
            return  # no folder, which is reported, or one that was moved meanwhile


class _Once(FileSystem):
    """Reads through another file system, and remembers what it read."""

    def __init__(self, inner: FileSystem) -> None:
        self._inner = inner
        self.contents: dict[Path, bytes] = {}

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        """See `FileSystem`."""
        pieces, signature = self._inner.read(path)
        self.contents[path] = b"".join(pieces)
        return pieces, signature


_WHY: Final = ".why.json"

_LEFT_ALONE: Final = frozenset({"newer-version", "not-a-file"})

_KINDS: Final[dict[str, FindingKind]] = {
    "corrupt": "corrupt",
    "rot": "corrupt",
    "unreadable": "unreadable",
    "not-a-file": "not-a-file",
    "newer-version": "newer-version",
    "id-mismatch": "id-mismatch",
}


def _check_segments(contents: dict[Path, bytes]) -> Iterator[Finding]:
    """What no crc covers, or looks like the end of the journal and may be none."""
    newest: dict[bytes, tuple[Path, Frame]] = {}
    for path, data in contents.items():
        journal_id = journal_id_of(data)
        if journal_id is None:
            continue
        if data[BLOCK - _UNUSED : BLOCK].strip(b"\0"):
            yield _notice("rot", path, "the unused part of its head is not blank")
        for frame in frames_in(data, journal_id):
            if not frame.damaged and _padding(data, frame).strip(b"\0"):
                yield _notice(
                    "rot", path, f"the unused part of frame {frame.sequence} is not blank"
                )
            if journal_id not in newest or newest[journal_id][1].sequence < frame.sequence:
                newest[journal_id] = (path, frame)
    for journal_id, (path, frame) in newest.items():
        if looks_begun(contents[path], frame.end, journal_id):
            detail = "behind its last frame another was begun; its head is torn, or damaged"
            yield _notice("torn", path, detail)


# Of the first block of a segment, behind its magic, id and crc.
_UNUSED: Final = BLOCK - 28


def _padding(data: bytes, frame: Frame) -> bytes:
    used = HEADER + sum(8 + len(record) for record in frame.records)
    return data[frame.end - frame.length + used : frame.end]


def _leave(change: Trash, pending: Pending | None) -> None:
    """A removal that its owner has not moved yet: nothing is wrong with it."""
    del change, pending


def _is_alive(pid: object) -> bool:
    if type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _damage(
    kind: FindingKind,
    path: Path,
    detail: str,
    session_id: str | None = None,
) -> Finding:
    return Finding(kind, path, session_id, detail, "damage")


def _notice(kind: FindingKind, path: Path, detail: str) -> Finding:
    return Finding(kind, path, None, detail, "notice")
