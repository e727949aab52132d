"""A whole file checked and encoded, before anything of it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sessionkeeper.errors import CorruptDocument, SessionKeeperError
from sessionkeeper.transfer.documents import check_checksum
from sessionkeeper.transfer.mapping import FieldMapping, is_own, notes_of
from sessionkeeper.transfer.parsing import Parsed, parse, refusal
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES, read_content
from sessionkeeper.transfer.shapes import sessions_of
from sessionkeeper.transfer.template import FieldError
from sessionkeeper.transfer.whole import PreparedWhole

if TYPE_CHECKING:
    from pathlib import Path

Progress = Callable[[int, int], object]
"""Told how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that is acceptable, ready to be written.

    Attributes:
        path: The file.
        commands: One for each session, encoded; the ids are all different.
        message_count: Messages in all sessions.
    """

    path: Path
    commands: tuple[PreparedWhole, ...]
    message_count: int


def stage_file(
    path: Path,
    mapping: FieldMapping | None = None,
    *,
    max_bytes: int = MAX_IMPORT_BYTES,
    progress: Progress = lambda _done, _total: None,
) -> StagedFile:
    """Read a file from outside and check all of it.

    Args:
        path: JSON or JSON Lines, gzipped or not: a list of sessions, a list of messages (one
            session), or one session.
        mapping: Where its items keep what a session consists of.
        max_bytes: The bound of its content.
        progress: Called with how many sessions are checked, and how many there are.

    Raises:
        ImportRefused: Something in it is not acceptable; the text says what, and where.
    """
    content = read_content(path, max_bytes)
    mapping = mapping or FieldMapping()
    items = sessions_of(_parsed(content, path), mapping)
    commands: list[PreparedWhole] = []
    places: dict[str, str] = {}
    for number, item in enumerate(items, 1):
        command = prepare(path, item.place, item.value, mapping)
        first = places.setdefault(command.session_id, item.place)
        if len(places) < number:
            reason = f"the id {command.session_id[:80]!r} is that of {first} already"
            raise refusal(path, item.place, reason)
        commands.append(command)
        progress(number, len(items))
    count = sum(command.fields.message_count for command in commands)
    return StagedFile(path, tuple(commands), count)


def _parsed(content: bytes, path: Path) -> Parsed:
    parsed = parse(content, path)
    if not parsed.listed and is_own(parsed.items[0].value) and "checksum" in parsed.items[0].value:
        try:
            check_checksum(content)
        except CorruptDocument as error:
            raise refusal(path, "", error.args[0]) from error
    return parsed


def prepare(path: Path, place: str, value: Any, mapping: FieldMapping) -> PreparedWhole:
    """Check and encode one item of a file.

    Raises:
        ImportRefused: It is not acceptable; the text says why, and where it stands.
    """
    try:
        return PreparedWhole.of(mapping.command(value).prepare(), *notes_of(value))
    except (SessionKeeperError, FieldError) as error:
        raise refusal(path, place, error.args[0]) from error
