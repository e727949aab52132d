"""What a file from outside is, by looking into it; its name decides nothing."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final, Literal

from sessionkeeper.storage.codec import StrictError, decode_strict
from sessionkeeper.transfer.archive import MAGIC, MAGIC_AT
from sessionkeeper.transfer.reading import is_gzip, opened

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

Kind = Literal["bundle", "transcripts", "sessions"]
"""A bundle, transcripts of Claude Code, or anything that `stage_file` takes."""

_MAX_FILE: Final = 2**63 - 1
_LONGEST: Final = 8 * 1024 * 1024
_LINES: Final = 20
_EMPTY: Final = b"\0 \t\r\n"


def kind_of(path: Path) -> Kind:
    """What a file or folder is; a folder can only hold transcripts.

    Raises:
        ImportRefused: It cannot be read, or is no regular file.
    """
    if path.is_dir():
        return "transcripts"
    with opened(path, _MAX_FILE) as file:
        if is_gzip(file):
            return "bundle" if _is_archive(file) else "sessions"
        return "transcripts" if _has_records(file) else "sessions"


def _is_archive(file: BufferedReader) -> bool:
    with gzip.GzipFile(fileobj=file) as unzipped:
        start = unzipped.read(MAGIC_AT + len(MAGIC))
    return start[MAGIC_AT:] == MAGIC


def _has_records(file: BufferedReader) -> bool:
    """Whether the first lines are objects, and one of them a record of a transcript.

    A document of ours, or a list of records, has records on lines of its own as well, but not on
    the first.
    """
    for _ in range(_LINES):
        line = file.readline(_LONGEST)
        if line and not line.strip(_EMPTY):
            continue
        try:
            value = decode_strict(line)
        except StrictError:
            return False
        if not isinstance(value, dict):
            return False
        if isinstance(value.get("sessionId"), str) and "uuid" in value and "type" in value:
            return True
        if value.get("type") == "summary" and "leafUuid" in value:
            return True
    return False
