"""Bundles: many sessions in one file, with a manifest that tells whether all of it is there."""

from __future__ import annotations

import gzip
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

from sessionkeeper.storage.lines import weight
from sessionkeeper.transfer.archive import write_end, write_entry
from sessionkeeper.transfer.documents import Exported, document_of, refuse_inside
from sessionkeeper.transfer.files import new_file
from sessionkeeper.transfer.manifest import (
    MANIFEST,
    Line,
    document_name,
    encode_head,
    encode_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sessionkeeper.changing import Changing
    from sessionkeeper.session import Session
    from sessionkeeper.storage.platform import FileSystem
    from sessionkeeper.transfer.staging import Progress

_IN_MEMORY: Final = 16 * 1024 * 1024
_STEP: Final = 64 * 1024
_LEVEL: Final = 6


def export_bundle(
    store: Changing,
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
            line = _write_session(file, document_name(count), session, time)
            lines.write(encode_line(line))
            progress(count, max(count, total))
        head = encode_head(count)
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
    while chunk := lines.read(_STEP):
        yield chunk
