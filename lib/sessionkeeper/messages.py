"""What can be read off a list of messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sessionkeeper.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable

COST_FIELDS = ("total_cost_usd", "cost_usd", "cost")


def _kind_of(message: Any) -> object:
    """What a message is: its `type`, or else its `role`."""
    if not isinstance(message, dict):
        return None
    return message.get("type") or message.get("role")


def extract_session_id(messages: Iterable[Any]) -> str | None:
    """Find the id that the first system message carries which carries one.

    Args:
        messages: Decoded messages. A system message is a mapping whose `type` (or, without one,
            `role`) is `system`; its id is the text in `session_id`, in the message itself or in
            its `data`.

    Returns:
        The id as it stands there, not checked for use as an id of this store; None if there is
        none.
    """
    for message in messages:
        if _kind_of(message) != "system":
            continue
        for holder in (message, message.get("data")):
            found = holder.get("session_id") if isinstance(holder, dict) else None
            if isinstance(found, str) and found:
                return found
    return None


def count_turns(messages: Iterable[Any]) -> int:
    """Count the messages of the assistant.

    Args:
        messages: Decoded messages. One of the assistant is a mapping whose `type` (or, without
            one, `role`) is `assistant`.
    """
    return sum(_kind_of(message) == "assistant" for message in messages)


def _cost_of(message: Any) -> float:
    if not isinstance(message, dict) or message.get("type") != "result":
        return 0.0
    for holder in (message, message.get("data")):
        if not isinstance(holder, dict):
            continue
        for field in COST_FIELDS:
            cost = holder.get(field)
            if isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost):
                return float(cost)
    return 0.0


def calculate_cost(messages: Iterable[Any]) -> float:
    """Add up what the result messages say they cost.

    A session of several turns holds one result message for each, so all of them count.

    Args:
        messages: Decoded messages. A result message is a mapping whose `type` is `result`; its
            cost is the first of `total_cost_usd`, `cost_usd` and `cost` that is a finite
            number, in the message itself or in its `data`.

    Returns:
        The sum, in the unit the messages use; 0.0 if there is no result message.

    Raises:
        InvalidValue: The sum is larger than a number can be.
    """
    try:
        return math.fsum(_cost_of(message) for message in messages)
    except OverflowError as error:
        raise InvalidValue("the costs of the messages have no finite sum") from error
