"""What can be read off a list of messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

COST_FIELDS = ("total_cost_usd", "cost_usd", "cost")


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
    """
    return math.fsum(_cost_of(message) for message in messages)
