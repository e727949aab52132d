"""The index.json: what sessions there are, for other programs. The store never goes by it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from sessionkeeper.events import Event
from sessionkeeper.keys import split_key
from sessionkeeper.session import iso_text
from sessionkeeper.storage.codec import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.platform import FileSystem

VERSION: Final = 1
MAX_SESSIONS: Final = 10_000


class IndexJson:
    """Writes the index.json of one store, whole each time.

    Args:
        fs: The file system.
        layout: The folders.
        tell: Where it is said that there are too many sessions for it.
    """

    def __init__(self, fs: FileSystem, layout: Layout, tell: Callable[[Event], None]) -> None:
        self._fs = fs
        self._temporaries = layout.temporaries
        self._path = layout.index_json
        self._tell = tell
        self._too_many = False

    def write(self, records: Collection[Record]) -> None:
        """Make it say what sessions there are; it is left alone if it does.

        Nobody's data is in it alone, so it is not synced.

        Raises:
            OSError: As the system said; the file before stands.
        """
        if len(records) > MAX_SESSIONS:
            self.leave_out(len(records))
            return
        self._too_many = False
        content = encode_listing(records)
        if self._holds(content):
            return
        temporary = self._temporaries / f"index-{secrets.token_hex(6)}.tmp"
        self._fs.write_unsynced(temporary, [content])
        try:
            self._fs.replace(temporary, self._path)
        except OSError:
            with contextlib.suppress(OSError):  # the next recovery sweeps it away
                self._fs.unlink(temporary)
            raise

    def leave_out(self, count: int) -> None:
        """Take it away, for there are too many sessions, and say so once.

        Raises:
            OSError: As the system said.
        """
        self.remove()
        if not self._too_many:
            detail = f"{count} sessions are more than {MAX_SESSIONS}; none is listed"
            self._tell(Event("ignored", None, detail, self._path))
        self._too_many = True

    def remove(self) -> None:
        """Take it away: one that nobody keeps up to date is of no use.

        Raises:
            OSError: As the system said.
        """
        if self._fs.status(self._path) is not None:
            self._fs.unlink(self._path)

    def _holds(self, content: bytes) -> bool:
        # Also somebody else may have written in it.
        return self._fs.status(self._path) is not None and content == _read(self._fs, self._path)


def encode_listing(records: Collection[Record]) -> bytes:
    """The content of the file: one session a line, the one changed last first."""
    newest_first = sorted(records, key=lambda r: (r.updated_at, r.session_id), reverse=True)
    lines = b",\n".join(map(_line, newest_first))
    return b'{"version":%d,"sessions":[\n%s\n]}\n' % (VERSION, lines)


def _line(record: Record) -> bytes:
    namespace, session_id = split_key(record.session_id)
    fields = {
        "session_id": session_id,
        "namespace": namespace,
        "title": record.title,
        "status": record.status,
        "created_at": iso_text(record.created_at),
        "updated_at": iso_text(record.updated_at),
        "completed_at": None if record.completed_at is None else iso_text(record.completed_at),
        "tags": list(record.tags),
        "message_count": record.message_count,
        "total_cost": record.total_cost,
    }
    return encode(fields)[:-1] + b',"metadata":' + record.metadata + b"}"


def _read(fs: FileSystem, path: Path) -> bytes | None:
    try:
        return b"".join(fs.read(path)[0])
    except OSError:
        return None  # whatever stands there is written over
