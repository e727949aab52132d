"""A process that writes until it is killed: `worker.py FOLDER ACKS THREADS ROUNDS`.

Each acknowledged change is noted in a file of its own before the next is sent; what was sent last
by each thread may have happened or not.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import TYPE_CHECKING

from sessionkeeper import SessionKeeperError, SessionScope, SessionStore

if TYPE_CHECKING:
    from collections.abc import Sequence


def note(descriptor: int, words: Sequence[str]) -> None:
    os.write(descriptor, (" ".join(words) + "\n").encode())


def work(store: SessionStore, acks: int, thread: int, rounds: int) -> None:
    rng = random.Random(thread)
    # Every other thread has the same ids in a namespace.
    view: SessionStore | SessionScope = store.scope("team") if thread % 2 else store
    before = "team/" if thread % 2 else ""
    for turn in range(rounds):
        text = f"{thread}.{turn}"
        padding = "x" * rng.choice([0, 0, 500, 70_000])
        try:
            view.append("shared", [text])
            note(acks, ["shared", f"{before}shared", text])
            if turn % 3 == 2:
                view.save_session(f"own-{thread}", [text + ":" + padding])
                note(acks, ["saved", f"{before}own-{thread}", text])
            else:
                view.append(f"own-{thread}", [text + ":" + padding])
                note(acks, ["added", f"{before}own-{thread}", text])
            view.save_session(f"brief-{text}", [text])
            view.delete_session(f"brief-{text}")
            note(acks, ["gone", f"{before}brief-{text}"])
        except SessionKeeperError:
            continue  # refused or unknown: not noted


def main(folder: str, path: str, threads: str, rounds: str) -> None:
    acks = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    note(acks, ["begun"])
    with SessionStore.open(folder, watch=False, checkpoint_bytes=100_000) as store:
        crew = [
            threading.Thread(target=work, args=(store, acks, number, int(rounds)))
            for number in range(int(threads))
        ]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    note(acks, ["ended"])


if __name__ == "__main__":
    main(*sys.argv[1:])
