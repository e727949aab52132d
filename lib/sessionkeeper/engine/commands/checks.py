"""Checks of what callers hand in, done before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.errors import InvalidValue
from sessionkeeper.messages import calculate_cost
from sessionkeeper.session import KEEP, Keep
from sessionkeeper.storage.codec import encode
from sessionkeeper.storage.lines import encode_lines

if TYPE_CHECKING:
    from sessionkeeper.session import Chunk

MAX_TEXT: Final = 64 * 1024
MAX_KEY: Final = 256
MAX_REASON: Final = 1000


def check_messages(messages: object) -> tuple[tuple[Chunk, ...] | Keep, int, float]:
    """What `encode_messages` makes of messages; KEEP is let through."""
    return (KEEP, 0, 0.0) if isinstance(messages, Keep) else encode_messages(messages)


def encode_messages(messages: object) -> tuple[tuple[Chunk, ...], int, float]:
    """The messages encoded, how many they are, and what they say they cost."""
    listed = list_messages(messages)
    return encode_lines(listed), len(listed), calculate_cost(listed)


def list_messages(messages: object) -> list[Any]:
    """The messages as a list of its own."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise TypeError(f"messages must be a sequence of messages, not {type(messages).__name__}")
    return list(messages)


def check_metadata(metadata: object) -> bytes:
    """The metadata encoded."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    encoded = encode(metadata, where="metadata")
    if len(encoded) > MAX_TEXT:
        raise InvalidValue(f"metadata of {len(encoded)} bytes is larger than {MAX_TEXT}")
    return encoded


def check_text(name: str, text: object) -> str | Keep | None:
    """A text that JSON gives back as it was, and not too long; None and KEEP are let through."""
    if text is None or isinstance(text, Keep):
        return text
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or None, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidValue(f"{name} of {len(text)} characters is longer than {MAX_TEXT}")
    encode(text, where=name)
    return str(text)


def check_reason(reason: object) -> str:
    """A reason in words."""
    checked = check_text("reason", reason)
    if not isinstance(checked, str):
        raise TypeError("reason must be a str")
    if not checked.strip() or len(checked) > MAX_REASON:
        raise InvalidValue(f"a reason has 1 to {MAX_REASON} characters, not only blanks")
    return checked


def check_kind(kind: object) -> str:
    """A word for what something is."""
    if not isinstance(kind, str):
        raise TypeError(f"kind must be a str, not {type(kind).__name__}")
    if not kind.strip() or len(kind) > MAX_KEY:
        raise InvalidValue(f"a kind has 1 to {MAX_KEY} characters, not only blanks")
    encode(kind, where="kind")
    return str(kind)


def check_key(key: object) -> str | None:
    """An idempotency key, or None."""
    checked = check_text("key", key)
    if isinstance(checked, str) and not 0 < len(checked) <= MAX_KEY:
        raise InvalidValue(f"an idempotency key has 1 to {MAX_KEY} characters")
    return checked if isinstance(checked, str) else None


def check_generation(generation: object) -> int | None:
    """An expected generation, or None."""
    if generation is None:
        return None
    if type(generation) is not int or generation < 0:
        raise TypeError(f"expected_generation must be a whole number, not {generation!r}")
    return generation


def check_cost(cost: object) -> float:
    """A finite number."""
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
        raise InvalidValue(f"total_cost must be a finite number, not {cost!r}")
    return float(cost)


def check_count(name: str, count: object) -> int:
    """A whole number that is not negative."""
    if type(count) is not int:
        raise TypeError(f"{name} must be a whole number, not {type(count).__name__}")
    if count < 0:
        raise InvalidValue(f"{name} must be 0 or more, not {count}")
    return count
