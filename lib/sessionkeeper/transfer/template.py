"""Texts with fields of an item in them: `{task_id}-{trial}`."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

from sessionkeeper.errors import InvalidConfig


class FieldError(ValueError):
    """An item lacks a field that the mapping names, or has something unfit there."""


def lookup(item: Any, path: str) -> Any:
    """The value at a dotted path of names, and of positions in lists: `info.task.user_id`.

    Raises:
        FieldError: There is none; the text names the part that is missing.
    """
    value = item
    walked: list[str] = []
    for name in path.split("."):
        walked.append(name)
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _position(name, len(value)) is not None:
            value = value[int(name)]
        else:
            raise FieldError(f"there is no field `{'.'.join(walked)}`")
    return value


def _position(name: str, length: int) -> int | None:
    if not (name.isascii() and name.isdigit() and len(name) <= len(str(length))):
        return None
    return int(name) if int(name) < length else None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields, filled in for each item.

    Attributes:
        text: The text as it was given.
        parts: A literal text and the dotted path of the field behind it, or None, in turns.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template; `{{` and `}}` stand for braces.

        Raises:
            InvalidConfig: Unbalanced braces, or something else than a dotted path in them.
        """
        try:
            # Only parsed, never formatted: str.format would follow attributes of Python.
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise _unreadable(text, str(error)) from error
        for _, path, form, conversion in parsed:
            if path == "" or form or conversion:
                raise _unreadable(text, "a field is the dotted path of a value, nothing else")
        return cls(text, tuple((literal, path) for literal, path, _, _ in parsed))

    def fill(self, item: Any) -> str:
        """The text for one item.

        Raises:
            FieldError: A field is missing, null, a list or an object.
        """
        return "".join(
            literal if path is None else literal + _as_text(lookup(item, path), path)
            for literal, path in self.parts
        )


def _unreadable(text: str, reason: str) -> InvalidConfig:
    return InvalidConfig(
        f"the template {text!r} cannot be read: {reason}",
        hint="Write fields as {name} or {name.of.part}, and braces as {{ and }}.",
    )


def _as_text(value: Any, path: str) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    kind = "null" if value is None else type(value).__name__
    raise FieldError(f"the field `{path}` is {kind}, which is no text")
