"""What is stored: messages like those of an agent with tools, the same in every run."""

from __future__ import annotations

from typing import Any

import orjson

Message = dict[str, Any]

MESSAGE_BYTES = 4096
SESSION_MESSAGES = 10
SESSION_BYTES = 16_000

# Some of them are not ASCII, as in real conversations: encoders treat those differently.
_WORDS = (
    *("refund", "order", "flight", "ticket", "“soon”", "please", "check", "status", "naïve"),
    *("passenger", "booking", "café", "total", "amount", "—", "confirm", "cancel", "window"),
    *("seat", "luggage", "Zürich", "customer", "reservation"),
)


def message(number: int, size: int = MESSAGE_BYTES) -> Message:
    """A message whose compact JSON is exactly `size` bytes long; every fifth calls a tool.

    Args:
        number: Which one; messages of different numbers differ.
        size: Its length in bytes; at least 400.
    """
    if number % 5 == 4:  # noqa: PLR2004 - every fifth
        arguments = {"reservation": f"R{number:07d}", "passengers": [1, 2, 3], "insurance": True}
        made: Message = {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": f"call_{number}",
                    "type": "function",
                    "function": {"name": "update_reservation", "arguments": arguments},
                },
            ],
        }
    else:
        made = {"role": "user" if number % 2 else "assistant", "content": "", "cost": 0.0125}
    room = size - len(orjson.dumps(made))
    made["content"] = _text(number, room)
    assert len(orjson.dumps(made)) == size
    return made


def session(number: int = 0) -> list[Message]:
    """The messages of one session of about `SESSION_BYTES` bytes."""
    size = SESSION_BYTES // SESSION_MESSAGES
    first = number * SESSION_MESSAGES
    return [message(first + offset, size) for offset in range(SESSION_MESSAGES)]


def _text(number: int, size: int) -> str:
    """Words that fill exactly so many bytes of UTF-8."""
    words: list[str] = []
    left = size
    while left > 0:
        word = _WORDS[(number * 31 + len(words) * 7919) % len(_WORDS)] + " "
        if len(word.encode()) > left:
            word = "." * left
        words.append(word)
        left -= len(word.encode())
    return "".join(words)
