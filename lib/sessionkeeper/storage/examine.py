"""What a file in the sessions folder is: one of ours, a person's, or nothing to be read."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.errors import CorruptDocument, NewerVersion
from sessionkeeper.fixed import fixed
from sessionkeeper.keys import named, namespace_of
from sessionkeeper.layout import belongs
from sessionkeeper.storage.backend import Problem
from sessionkeeper.storage.documents import decode_document, decode_foreign
from sessionkeeper.storage.platform import NotRegularError, Signature

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.platform import FileSystem


@fixed
class Known:
    """A session file as it was last published or taken.

    Attributes:
        record: The version that it holds.
        signature: Of the file.
        edited: Whether a person has changed it since: then it only has the number of that version.
    """

    record: Record
    signature: Signature
    edited: bool = False


@dataclass(frozen=True, slots=True)
class Valid:
    """A file that holds a session.

    Attributes:
        document: What it holds.
        signature: Of the file read.
        ours: Whether it carries our checksum and lies where it was written; else a person, or
            another program, wrote it, or put it there.
    """

    document: Document
    signature: Signature
    ours: bool


def examine(  # noqa: PLR0911 - one return for each finding
    fs: FileSystem,
    path: Path,
    known: Known | None,
    now: datetime,
    stem: str,
) -> Valid | Problem:
    """Read one file and say what it is; changes nothing.

    Args:
        fs: The file system.
        path: A file that stands in the sessions folder.
        known: What was last published there, if anything; tells rot from a hand edit.
        now: What absent times of a hand-made file become.
        stem: Of the session that it should hold. The folder in it is the namespace, whatever the
            file says: somebody who copies or moves a file to another folder means that.

    Raises:
        FileNotFoundError: There is no such file any more.
    """
    status = fs.status(path)
    if status is None:
        raise FileNotFoundError(path)
    if not stat.S_ISREG(status.st_mode):
        return Problem("not-a-file", path, _kind_of(status.st_mode))
    try:
        pieces, signature = fs.read(path)
    except FileNotFoundError:
        raise
    except NotRegularError as error:
        return Problem("not-a-file", path, error.strerror or str(error))
    except OSError as error:
        return Problem("unreadable", path, error.strerror or str(error))
    try:
        document = decode_document(pieces)
        ours = document is not None
        if document is None and known is not None and known.signature == signature:
            return Problem("rot", path, "its bytes changed, its size and time did not")
        document = document or decode_foreign(b"".join(pieces), now)
    except NewerVersion as error:
        return Problem("newer-version", path, str(error.args[0]))
    except CorruptDocument as error:
        where = "" if error.offset is None else f" at byte {error.offset}"
        return Problem("corrupt", path, f"{error.args[0]}{where}")
    placed = document.placed(namespace_of(stem))
    key = placed.record.session_id
    if not belongs(stem, key):
        return Problem("id-mismatch", path, f"it says it is {named(key)}")
    return Valid(placed, signature, ours and placed is document)


def _kind_of(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return "a device"
