"""Reads conversations that really took place, for their replay."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.payloads import Message

_GZIP = b"\x1f\x8b"


class UnreadableInput(Exception):
    """There are no conversations in a file."""


def conversations(path: Path, keys: Sequence[str]) -> list[list[Message]]:
    """The messages of each conversation that has any.

    Args:
        path: A JSON array of objects, or one object a line; also compressed by gzip.
        keys: Where the messages stand in an object; the first that is there counts.

    Raises:
        UnreadableInput: It is something else; the error names the item.
        OSError: The file cannot be read.
    """
    found = [
        _messages(item, number, keys, path) for number, item in enumerate(_items(path), start=1)
    ]
    kept = [messages for messages in found if messages]
    if not kept:
        raise UnreadableInput(f"{path}: there is no message in it")
    return kept


def _items(path: Path) -> list[Any]:
    data = path.read_bytes()
    try:
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        if data.lstrip().startswith(b"["):
            items: list[Any] = orjson.loads(data)
            return items
        return [orjson.loads(line) for line in data.splitlines() if line.strip()]
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UnreadableInput(f"{path}: {error}") from error


def _messages(item: Any, number: int, keys: Sequence[str], path: Path) -> list[Message]:
    if not isinstance(item, dict):
        raise UnreadableInput(f"{path}: item {number} is no object")
    for key in keys:
        if key in item:
            messages = item[key]
            break
    else:
        raise UnreadableInput(f"{path}: item {number} has no {' or '.join(keys)}")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise UnreadableInput(f"{path}: item {number}: {key} is no list of objects")
    return messages
