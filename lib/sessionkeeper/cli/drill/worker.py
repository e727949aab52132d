"""The process that is killed: `python -m sessionkeeper.cli.drill.worker FOLDER THREADS`.

It writes one line for each change, after the store has acknowledged it, and goes on until it is
killed, or until its standard input ends because its parent has.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from sessionkeeper.cli.drill.count import Mark
from sessionkeeper.cli.drill.writers import Crew
from sessionkeeper.store import SessionStore

if TYPE_CHECKING:
    from collections.abc import Sequence

_STDOUT = 1
_last_words = threading.Lock()


def encode_line(session_id: str, marks: Sequence[Mark]) -> bytes:
    """One acknowledgement; far below the size up to which a pipe takes it in one piece."""
    return json.dumps([session_id, marks]).encode() + b"\n"


def decode_line(line: bytes) -> tuple[str, list[Mark]]:
    """What `encode_line` wrote."""
    session_id, marks = json.loads(line)
    return session_id, [Mark(*mark) for mark in marks]


def _acknowledge(session_id: str, marks: Sequence[Mark]) -> None:
    # Not through a buffer: what the parent has read is what the store has promised.
    os.write(_STDOUT, encode_line(session_id, marks))


def _give_up(error: BaseException) -> None:
    # The parent shows the last line, and waits for nothing more; so the first one has the word.
    with _last_words:
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


def main(folder: str, threads: str) -> None:
    """Write until the end."""
    with (
        SessionStore.open(Path(folder)) as store,
        Crew(store, int(threads), _acknowledge, _give_up),
    ):
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
