"""What a file's bytes say: one JSON value, or JSON Lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.errors import ImportRefused
from sessionkeeper.storage.codec import StrictError, decode_strict

if TYPE_CHECKING:
    from pathlib import Path

_SPACE: Final = b" \t\r\n"
_LINE_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True, slots=True)
class Item:
    """One decoded value and where it stands.

    Attributes:
        place: `item 3` of a list, `line 3` of JSON Lines; empty if it is the whole file.
        value: The value.
    """

    place: str
    value: Any


@dataclass(frozen=True, slots=True)
class Parsed:
    """A decoded file.

    Attributes:
        path: The file.
        items: Its values.
        listed: Whether it is a list, of whatever length; else it is the one value.
    """

    path: Path
    items: list[Item]
    listed: bool


def parse(content: bytes, path: Path) -> Parsed:
    """Decode the content of a file strictly.

    Args:
        content: Its bytes, decompressed.
        path: Its name, for errors; a name for JSON Lines decides where the content does not.

    Raises:
        ImportRefused: It is not JSON, or JSON that two programs could understand differently.
    """
    if _is_lines(content, path):
        return Parsed(path, _parse_lines(content, path), listed=True)
    value = _decode(content, path, "")
    if isinstance(value, list):
        items = [Item(f"item {number}", item) for number, item in enumerate(value, 1)]
        return Parsed(path, items, listed=True)
    return Parsed(path, [Item("", value)], listed=False)


def refusal(path: Path, place: str, reason: object) -> ImportRefused:
    """The error for one item of a file: path, place, reason."""
    return ImportRefused(f"{path}: {place}: {reason}" if place else f"{path}: {reason}", path=path)


def _is_lines(content: bytes, path: Path) -> bool:
    """Whether each line is a value of its own.

    A first line that is a whole object with more behind it cannot be anything else.
    """
    start = len(content) - len(content.lstrip(_SPACE))
    if content[start : start + 1] != b"{":
        return False
    if not _LINE_SUFFIXES.isdisjoint(path.suffixes):
        return True
    end = content.find(b"\n", start)
    if end < 0 or not content[end:].strip(_SPACE):
        return False
    try:
        decode_strict(content[start:end])
    except StrictError:
        return False
    return True


def _parse_lines(content: bytes, path: Path) -> list[Item]:
    items: list[Item] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip(_SPACE):
            place = f"line {number}"
            items.append(Item(place, _decode(line, path, place)))
    return items


def _decode(encoded: bytes, path: Path, place: str) -> Any:
    try:
        return decode_strict(encoded)
    except StrictError as error:
        where = "" if error.offset is None else f" at byte {error.offset}"
        raise refusal(path, place, f"{error}{where}") from error
