"""Conversations of a customer service with tool calls, made up by counting."""

from __future__ import annotations

import json
from typing import Any

Turn = list[dict[str, Any]]

_NAMES = ("Mia Li", "Omar Diaz", "Aarav Sharma", "Lucía Romero", "Ben Okafor", "陳怡君")
_CITIES = ("Seattle", "Lisbon", "Nairobi", "Osaka", "Montréal", "Zürich")
_WISHES = (
    ("change the date of", "change_flight", {"fee": 0, "status": "changed"}),
    ("cancel", "cancel_reservation", {"refund": 312.4, "status": "cancelled"}),
    ("add a bag to", "update_baggage", {"bags": 2, "charged": 50}),
)
_SYSTEM = (
    "You are an airline agent. List the details of every change and obtain a yes before you "
    "make it. Make one tool call at a time. Deny what is against the policy.\n"
) * 3


def conversation(number: int) -> list[Turn]:
    """The turns of one conversation; each turn is stored by one call.

    Args:
        number: Decides who calls about what.
    """
    name = _NAMES[number % len(_NAMES)]
    city = _CITIES[number // len(_NAMES) % len(_CITIES)]
    wish, tool, outcome = _WISHES[number % len(_WISHES)]
    reservation = f"R{number:06d}"
    return [
        [_said("system", _SYSTEM), _said("user", f"Hi, this is {name}. I want to {wish} my trip.")],
        [_said("assistant", "Gladly. What is the number of your reservation?")],
        [_said("user", f"{reservation}, the flight to {city} — “as soon as you can”, please.")],
        _tool_turn(f"call_{number}_1", "get_reservation", reservation, {"city": city}),
        [_said("assistant", f"I would {wish} {reservation}. Shall I go on?")],
        [_said("user", "Yes.")],
        _tool_turn(f"call_{number}_2", tool, reservation, outcome),
        [_said("assistant", f"Done: {json.dumps(outcome)}. Anything else?")],
        [_said("user", "No, thanks!")],
    ]


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _tool_turn(call_id: str, tool: str, reservation: str, outcome: dict[str, Any]) -> Turn:
    function = {"name": tool, "arguments": json.dumps({"reservation": reservation})}
    call = {"id": call_id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "name": tool, "content": json.dumps(outcome)},
    ]
