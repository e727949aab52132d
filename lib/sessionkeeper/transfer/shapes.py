"""Which sessions a decoded file holds: several, one, or the messages of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.transfer.mapping import MESSAGES_FIELD, FieldMapping, is_own
from sessionkeeper.transfer.parsing import Item, Parsed, refusal
from sessionkeeper.transfer.template import FieldError, lookup

if TYPE_CHECKING:
    from pathlib import Path

# One of these makes an object a message: without it, records of some other kind, whose mapping
# was forgotten, would be taken for the messages of one session.
_MESSAGE_FIELDS: Final = frozenset({"role", "type", "content", "text"})
_SUFFIXES: Final = (".gz", ".json", ".jsonl", ".ndjson")


def sessions_of(parsed: Parsed, mapping: FieldMapping) -> list[Item]:
    """The items of a file that are sessions; a list of messages becomes the one session it is.

    That session's id is the file's name without suffixes, unless the mapping says otherwise.

    Raises:
        ImportRefused: A list of things that are neither.
    """
    items = parsed.items
    if not parsed.listed or not items or mapping.messages is not None:
        return items
    if any(_is_session(item.value) for item in items):
        return items
    for item in items:
        problem = _no_message(item.value)
        if problem:
            raise refusal(parsed.path, item.place, problem)
    messages = [item.value for item in items]
    return [Item("", {"session_id": _stem(parsed.path), MESSAGES_FIELD: messages})]


def _is_session(value: Any) -> bool:
    try:
        return is_own(value) or isinstance(lookup(value, MESSAGES_FIELD), list)
    except FieldError:
        return False


def _no_message(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"{type(value).__name__} is neither a session nor a message"
    if "session_id" in value:
        return "it has `session_id` and no `messages` (--messages names another field)"
    if _MESSAGE_FIELDS.isdisjoint(value):
        return (
            "neither a session, without `messages` (--messages names another field), "
            "nor a message, without `role`, `type`, `content` and `text`"
        )
    return None


def _stem(path: Path) -> str:
    name = path.name
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
        name = path.name
    return name
