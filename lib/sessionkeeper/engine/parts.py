"""Parts of the messages of a session: what is not asked for is not decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkeeper.session import decode_in_steps
from sessionkeeper.storage.lines import lines_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessionkeeper.storage.documents import Document


def check_bounds(start: int, stop: int | None) -> slice:
    """Which messages are asked for.

    Raises:
        ValueError: One of the two is no whole number.
    """
    for name, value in (("start", start), ("stop", stop)):
        if type(value) is not int and not (name == "stop" and value is None):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
    return slice(start, stop)


def messages_in_steps(
    document: Document,
    part: slice,
    revive: Callable[[Any], Any] | None,
) -> Iterator[list[Any]]:
    """Some messages of one version of a session, oldest first, about 64 KiB of them at a time.

    Args:
        document: The version.
        part: Which, as in a slice of a list.
        revive: Makes values what they were before they were encoded.
    """
    count = document.record.message_count
    start, stop, _ = part.indices(count)
    for messages in decode_in_steps(lines_between(document.chunks, count, start, stop)):
        yield messages if revive is None else [revive(message) for message in messages]
