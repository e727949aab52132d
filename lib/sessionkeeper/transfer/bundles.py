"""Bundles: many sessions in one file, with a manifest that tells whether all of it is there.

A bundle is a gzipped tar archive: `sessions/00000001.json` and so on, each the document of one
session, and at the end `manifest.jsonl`. Its first line says the format, the version and the
number of sessions; each further line the name, id, SHA-256 and size of one of them, in order.
"""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

from sessionkeeper.errors import CorruptDocument, ImportRefused
from sessionkeeper.storage.codec import StrictError, decode_strict, encode
from sessionkeeper.storage.lines import weight
from sessionkeeper.transfer.archive import Archive, Entry, write_end, write_entry
from sessionkeeper.transfer.conflicts import Before, IdSet, check_on_conflict, plan
from sessionkeeper.transfer.documents import (
    Exported,
    check_checksum,
    document_of,
    refuse_inside,
)
from sessionkeeper.transfer.files import new_file
from sessionkeeper.transfer.importer import Imported, imported, write_all
from sessionkeeper.transfer.mapping import FieldMapping, is_own
from sessionkeeper.transfer.parsing import refusal
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES, is_gzip, opened
from sessionkeeper.transfer.staging import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sessionkeeper.session import Session
    from sessionkeeper.storage.platform import FileSystem
    from sessionkeeper.store import SessionStore
    from sessionkeeper.transfer.conflicts import OnConflict
    from sessionkeeper.transfer.staging import Progress
    from sessionkeeper.transfer.whole import PreparedWhole

FORMAT: Final = "sessionkeeper-bundle"
VERSION: Final = 1
MANIFEST: Final = "manifest.jsonl"

MAX_BUNDLE_BYTES: Final = 64 * 1024**3
"""Bundles with more content than this are refused."""

# One id, escaped in the longest way, and the other fields.
_MAX_LINE: Final = 64 * 1024
_IN_MEMORY: Final = 16 * 1024 * 1024
_LEVEL: Final = 6
_WRONG_ORDER: Final = "`sessions/00000001.json` and so on, then `manifest.jsonl`"


@dataclass(frozen=True, slots=True)
class Line:
    """What a manifest says of one session.

    Attributes:
        file: The name of its document.
        session_id: Its id.
        sha256: The digest of the document.
        bytes: Its size.
    """

    file: str
    session_id: str
    sha256: str
    bytes: int


def _line(fields: dict[str, Any]) -> bytes:
    return encode(fields) + b"\n"


def _name(number: int) -> str:
    return f"sessions/{number:08}.json"


# --- export -------------------------------------------------------------------------------


def export_bundle(
    store: SessionStore,
    path: Path,
    session_ids: Iterable[str] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
    fs: FileSystem | None = None,
) -> Exported:
    """Write many sessions into one file, one at a time.

    The file is there whole and durable, or not at all. Each session is as it is when its turn
    comes.

    Args:
        store: Where from; it may be open for reading only.
        path: The file; readable by its owner only.
        session_ids: Which; None for all there are. One named twice is written once.
        overwrite: Replace a file of that name; else that is refused.
        progress: Called with how many sessions are written, and how many there are.
        fs: A replacement of the file system, for tests.

    Raises:
        SessionNotFound: One of `session_ids` is not there.
        PathBlocked: Something stands there, or the path lies in the store's own folder.
        OSError: As the system said; nothing has changed.
    """
    refuse_inside(store, path)
    ids = None if session_ids is None else list(dict.fromkeys(session_ids))
    total = len(store) if ids is None else len(ids)
    sessions = store.load_all() if ids is None else map(store.load_session, ids)
    with new_file(path, overwrite=overwrite, fs=fs) as file:
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as zipped:
            count, messages = _write(cast("BinaryIO", zipped), sessions, total, progress)
        size = file.tell()
    return Exported(path, count, messages, size)


def _write(
    file: BinaryIO,
    sessions: Iterable[Session],
    total: int,
    progress: Progress,
) -> tuple[int, int]:
    count = messages = 0
    latest = 0.0
    with SpooledTemporaryFile(_IN_MEMORY) as lines:
        for session in sessions:
            count += 1
            messages += session.info.message_count
            time = session.updated_at.timestamp()
            latest = max(latest, time)
            lines.write(_line(asdict(_write_session(file, _name(count), session, time))))
            progress(count, max(count, total))
        head = _line({"format": FORMAT, "version": VERSION, "count": count})
        size = len(head) + lines.tell()
        lines.seek(0)
        write_entry(file, MANIFEST, size, _chunks(head, lines), latest)
    write_end(file)
    return count, messages


def _write_session(file: BinaryIO, name: str, session: Session, time: float) -> Line:
    chunks = document_of(session)
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    size = weight(chunks)
    write_entry(file, name, size, chunks, time)
    return Line(name, session.session_id, digest.hexdigest(), size)


def _chunks(head: bytes, lines: IO[bytes]) -> Iterator[bytes]:
    yield head
    while chunk := lines.read(_MAX_LINE):
        yield chunk


# --- import -------------------------------------------------------------------------------


def import_bundle(
    store: SessionStore,
    path: Path,
    *,
    on_conflict: OnConflict = "refuse",
    max_bytes: int = MAX_BUNDLE_BYTES,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Import all sessions of a bundle, or none: all of it is checked before anything is stored.

    Args:
        store: Where to.
        path: See `staged_bundle`.
        on_conflict: What to do about sessions that exist.
        max_bytes: The bound of its content.
        progress: Called with how many sessions are stored, and how many will be.

    Raises:
        ImportRefused: It is not acceptable, a session exists, or storing failed half-way and
            what had been stored was taken back; the text says so.
    """
    check_on_conflict(on_conflict)
    with staged_bundle(path, max_bytes=max_bytes) as staged:
        return write_bundle(store, staged, on_conflict=on_conflict, progress=progress)


@contextmanager
def staged_bundle(
    path: Path,
    *,
    max_bytes: int = MAX_BUNDLE_BYTES,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[StagedBundle]:
    """Read a bundle and check all of it: every entry, every document, the manifest.

    Args:
        path: The file.
        max_bytes: The bound of its content; that of one session is `MAX_IMPORT_BYTES`.
        progress: Called with how many bytes of the file are checked, and how many there are.

    Yields:
        What is known of it, for `write_bundle`.

    Raises:
        ImportRefused: Something in it is not acceptable; the text says what, and where.
    """
    with SpooledTemporaryFile(_IN_MEMORY) as found:
        sessions, messages = _check(path, max_bytes, found, progress)
        yield StagedBundle(path, sessions, messages, max_bytes, found)


def write_bundle(
    store: SessionStore,
    staged: StagedBundle,
    *,
    on_conflict: OnConflict = "refuse",
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Store all sessions of a bundle that was checked, or none.

    Args:
        store: Where to.
        staged: What `staged_bundle` gave.
        on_conflict: What to do about sessions that exist.
        progress: Called with how many sessions are stored, and how many will be.

    Raises:
        ImportRefused: See `import_bundle`; also if the file has changed since it was checked.
    """
    ids = (line.session_id for line, _ in staged.lines())
    with Before() as before:
        made = plan(store, staged.path, ids, check_on_conflict(on_conflict), before)
        return write_all(store, staged.commands(), staged.sessions, made, progress)


def planned_bundle(
    store: SessionStore,
    staged: StagedBundle,
    *,
    on_conflict: OnConflict = "refuse",
) -> Imported:
    """What `write_bundle` would store; nothing is written. Arguments and errors are the same."""
    ids = (line.session_id for line, _ in staged.lines())
    with Before() as before:
        made = plan(store, staged.path, ids, check_on_conflict(on_conflict), before)
        left_out = sum(count for line, count in staged.lines() if line.session_id in made.skipped)
        return imported(staged.sessions - len(made.skipped), staged.messages - left_out, made)


class StagedBundle:
    """A bundle that is acceptable.

    Attributes:
        path: The file.
        sessions: How many sessions it holds.
        messages: How many messages in them.
    """

    def __init__(
        self,
        path: Path,
        sessions: int,
        messages: int,
        max_bytes: int,
        found: IO[bytes],
    ) -> None:
        self.path = path
        self.sessions = sessions
        self.messages = messages
        self._max_bytes = max_bytes
        self._found = found

    def lines(self) -> Iterator[tuple[Line, int]]:
        """What is known of each session, and the number of its messages."""
        self._found.seek(0)
        for line in self._found:
            *fields, messages = decode_strict(line)
            yield Line(*fields), messages

    def commands(self) -> Iterator[PreparedWhole]:
        """What stores each session.

        Raises:
            ImportRefused: The file is not the one that was checked.
        """
        lines = self.lines()
        for number, entry in _entries(self.path, self._max_bytes, lambda _done, _total: None):
            if number > self.sessions:
                return
            line, _ = next(lines)
            content = _content(self.path, entry)
            if sha256(content).hexdigest() != line.sha256:
                raise ImportRefused(f"{self.path}: changed since it was checked", path=self.path)
            yield _prepared(self.path, entry.name, content)


def _check(
    path: Path,
    max_bytes: int,
    found: IO[bytes],
    progress: Progress,
) -> tuple[int, int]:
    ids = IdSet()
    messages = 0
    sessions = None
    for number, entry in _entries(path, max_bytes, progress):
        if sessions is not None or entry.name not in (_name(number), MANIFEST):
            reason = f"entry {number} is {entry.name[:80]!r}; a bundle holds {_WRONG_ORDER}"
            raise refusal(path, "", reason)
        if entry.name == MANIFEST:
            sessions = number - 1
            _check_manifest(path, entry, sessions, found)
            continue
        content = _content(path, entry)
        command = _prepared(path, entry.name, content)
        if not ids.add(command.session_id):
            raise refusal(path, entry.name, f"the id {command.session_id[:80]!r} comes twice")
        digest = sha256(content).hexdigest()
        count = command.fields.message_count
        messages += count
        found.write(encode([entry.name, command.session_id, digest, len(content), count]) + b"\n")
    if sessions is None:
        raise refusal(path, "", f"it has no {MANIFEST}: it is no bundle, or cut off")
    return sessions, messages


def _entries(
    path: Path,
    max_bytes: int,
    progress: Progress,
) -> Iterator[tuple[int, Entry]]:
    with opened(path, max_bytes) as file:
        total = file.seek(0, 2)
        file.seek(0)
        if not is_gzip(file):
            raise refusal(path, "", "it is no bundle: not gzipped")
        with gzip.GzipFile(fileobj=file) as unzipped:
            for number, entry in enumerate(Archive(unzipped, path, max_bytes), 1):
                yield number, entry
                progress(min(file.tell(), total), total)


def _content(path: Path, entry: Entry) -> bytes:
    if entry.size > MAX_IMPORT_BYTES:
        raise refusal(path, entry.name, f"more than {MAX_IMPORT_BYTES} bytes")
    # In steps: what a header says of a size is not to be believed before it is seen.
    content = bytearray()
    while chunk := entry.read(_IN_MEMORY):
        content += chunk
    return bytes(content)


def _prepared(path: Path, place: str, content: bytes) -> PreparedWhole:
    try:
        check_checksum(content)
        value = decode_strict(content)
    except CorruptDocument as error:
        raise refusal(path, place, error.args[0]) from error
    except StrictError as error:
        where = "" if error.offset is None else f" at byte {error.offset}"
        raise refusal(path, place, f"{error}{where}") from error
    if not is_own(value):
        raise refusal(path, place, "it is no session document")
    return prepare(path, place, value, FieldMapping())


def _check_manifest(path: Path, entry: Entry, sessions: int, found: IO[bytes]) -> None:
    lines = _lines_of(path, entry)
    head = next(lines, None)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise refusal(path, MANIFEST, f"its format is not {FORMAT!r}")
    version = head.get("version")
    if type(version) is not int or version < 1:
        raise refusal(path, MANIFEST, "its version is not a whole number above 0")
    if version > VERSION:
        raise refusal(path, MANIFEST, f"version {version} is newer than {VERSION}")
    if head.get("count") != sessions:
        reason = f"it speaks of {head.get('count')!r} sessions, and there are {sessions}"
        raise refusal(path, MANIFEST, reason)
    found.seek(0)
    for line in found:
        *fields, _ = decode_strict(line)
        expected = Line(*fields)
        said = next(lines, None)
        if said != asdict(expected):
            raise refusal(path, expected.file, "it is not what the manifest says it is")
    if next(lines, None) is not None:
        raise refusal(path, MANIFEST, "it has more lines than there are sessions")


def _lines_of(path: Path, entry: Entry) -> Iterator[Any]:
    rest = b""
    while entry.left:
        *lines, rest = (rest + entry.read(_MAX_LINE)).split(b"\n")
        if len(rest) > _MAX_LINE:
            raise refusal(path, MANIFEST, "a line of it is too long")
        for line in lines:
            try:
                yield decode_strict(line)
            except StrictError as error:
                raise refusal(path, MANIFEST, error) from error
    if rest:
        raise refusal(path, MANIFEST, "its last line has no end")
