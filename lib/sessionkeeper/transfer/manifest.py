"""What is in a bundle, as its manifest says.

A bundle is a gzipped tar archive: `sessions/00000001.json` and so on, each the document of one
session, and at the end `manifest.jsonl`. Its first line says the format, the version and the
number of sessions; each further line the name, id, SHA-256 and size of one of them, in order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.storage.codec import StrictError, decode_strict, encode
from sessionkeeper.transfer.parsing import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sessionkeeper.transfer.archive import Entry

FORMAT: Final = "sessionkeeper-bundle"
VERSION: Final = 1
MANIFEST: Final = "manifest.jsonl"

# One id, escaped in the longest way, and the other fields.
_MAX_LINE: Final = 64 * 1024


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


def document_name(number: int) -> str:
    """The name of the document of one session, counted from 1."""
    return f"sessions/{number:08}.json"


def encode_head(count: int) -> bytes:
    """The first line of a manifest."""
    return encode({"format": FORMAT, "version": VERSION, "count": count}) + b"\n"


def encode_line(line: Line) -> bytes:
    """The line of one session."""
    return encode(asdict(line)) + b"\n"


def check_manifest(path: Path, entry: Entry, sessions: int, found: Iterable[Line]) -> None:
    """Check that a manifest says what there is.

    Args:
        path: The bundle, for errors.
        entry: The manifest in it.
        sessions: How many sessions there are.
        found: What is known of each of them.

    Raises:
        ImportRefused: It says something else.
    """
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
    for line in found:
        if next(lines, None) != asdict(line):
            raise refusal(path, line.file, "it is not what the manifest says it is")
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
