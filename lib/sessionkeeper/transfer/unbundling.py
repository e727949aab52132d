"""Taking the sessions of a bundle: all of it is checked before any of it is stored."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from sessionkeeper.errors import CorruptDocument, ImportRefused
from sessionkeeper.storage.codec import StrictError, decode_strict, encode
from sessionkeeper.transfer.archive import Archive, Entry
from sessionkeeper.transfer.conflicts import Before, IdSet, check_on_conflict, plan
from sessionkeeper.transfer.documents import check_checksum
from sessionkeeper.transfer.importer import Imported, imported, write_all
from sessionkeeper.transfer.manifest import MANIFEST, Line, check_manifest, document_name
from sessionkeeper.transfer.mapping import FieldMapping, is_own
from sessionkeeper.transfer.parsing import refusal
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES, is_gzip, opened
from sessionkeeper.transfer.staging import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sessionkeeper.changing import Changing
    from sessionkeeper.transfer.conflicts import OnConflict
    from sessionkeeper.transfer.staging import Progress
    from sessionkeeper.transfer.whole import PreparedWhole

MAX_BUNDLE_BYTES: Final = 64 * 1024**3
"""Bundles with more content than this are refused."""

_IN_MEMORY: Final = 16 * 1024 * 1024
_WRONG_ORDER: Final = "`sessions/00000001.json` and so on, then `manifest.jsonl`"


def import_bundle(
    store: Changing,
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
    store: Changing,
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
    store: Changing,
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
        return _lines(self._found)

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


def _lines(found: IO[bytes]) -> Iterator[tuple[Line, int]]:
    found.seek(0)
    for line in found:
        *fields, messages = decode_strict(line)
        yield Line(*fields), messages


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
        if sessions is not None or entry.name not in (document_name(number), MANIFEST):
            reason = f"entry {number} is {entry.name[:80]!r}; a bundle holds {_WRONG_ORDER}"
            raise refusal(path, "", reason)
        if entry.name == MANIFEST:
            sessions = number - 1
            check_manifest(path, entry, sessions, (line for line, _ in _lines(found)))
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
