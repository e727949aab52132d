"""How the programs of this folder speak with the tests that run them: a line of JSON an event."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_lock = threading.Lock()


def tell(event: str, **fields: Any) -> None:
    """Say that something has happened."""
    line = json.dumps({"event": event, **fields}) + "\n"
    with _lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def listen(commands: Mapping[str, Callable[[], object]]) -> None:
    """Do in a thread what each line of the standard input says, and say so once it is done."""

    def run() -> None:
        for line in sys.stdin:
            commands[line.strip()]()
            tell(line.strip())

    threading.Thread(target=run, daemon=True, name="commands").start()
