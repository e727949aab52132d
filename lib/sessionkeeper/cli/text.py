"""What others wrote, made harmless for a terminal and for lines."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

# Controls, marks that reorder text, lone surrogates, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners: emoji and several scripts need them, and they move nothing.
_JOINERS = frozenset({"\u200c", "\u200d"})


def escaped(text: str, *, lines: bool = False) -> str:
    r"""The text with control characters and terminal escapes written out, as `\x1b`.

    Args:
        text: Anything.
        lines: Whether line breaks stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        character if _is_safe(character) or (lines and character == "\n") else _code(character)
        for character in text
    )


def _is_safe(character: str) -> bool:
    return unicodedata.category(character) not in _UNSAFE or character in _JOINERS


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def as_json(value: Any) -> str:
    """JSON on one line, in ASCII: safe in every terminal, pipe and encoding."""
    return json.dumps(value, separators=(",", ":"))


def iso(moment: datetime) -> str:
    """An aware instant as ISO 8601 in UTC, with microseconds and `Z`."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def iso_or_none(moment: datetime | None) -> str | None:
    """The same, or None."""
    return None if moment is None else iso(moment)


def speaker_and_text(message: Any) -> tuple[str, str]:
    """Who says what, of a message of any shape; nothing in it is left out."""
    if not isinstance(message, dict):
        return "", message if isinstance(message, str) else _readable(message)
    rest = dict(message)
    name = next((n for n in ("role", "type") if isinstance(rest.get(n), str)), None)
    speaker = rest.pop(name) if name is not None else ""
    parts: list[str] = []
    if isinstance(rest.get("content"), str):
        parts.append(rest.pop("content"))
    elif rest.get("content", KeyError) is None:
        del rest["content"]
    if rest:
        parts.append(_readable(rest))
    return speaker, "\n".join(parts)


def _readable(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def count_of(number: int, noun: str) -> str:
    """`1 session`, `5,308 messages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
