"""Runs `worker.py`, and compares the folder it leaves with what it was told."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from oracle import Lost, at

from sessionkeeper import SessionStore
from sessionkeeper.storage.documents import decode_document

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKER = Path(__file__).with_name("worker.py")


def run(
    folder: Path,
    acks: Path,
    threads: int,
    rounds: int,
    environment: Mapping[str, str],
) -> int:
    """Run the worker to its end, whatever that is; returns its exit status."""
    command = [sys.executable, str(WORKER), str(folder), str(acks), str(threads), str(rounds)]
    done = subprocess.run(
        command,
        env={**environment},
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode


def acknowledged(acks: Path) -> list[list[str]]:
    """What the worker was told, in order."""
    return [line.split() for line in acks.read_text().splitlines()]


def compare(folder: Path, told: list[list[str]]) -> int:  # noqa: C901 - one look at each kind
    """Open the store and look for all that was acknowledged.

    Returns:
        How many acknowledged changes were found.

    Raises:
        Lost: One is missing, or is there twice.
    """
    own: dict[str, list[str]] = {}
    shared: dict[str, list[str]] = {}
    gone = []
    for words in told:
        match words:
            case ["shared", session_id, text]:
                shared.setdefault(session_id, []).append(text)
            case ["saved", session_id, text]:
                own[session_id] = [text]
            case ["added", session_id, text]:
                own.setdefault(session_id, []).append(text)
            case ["gone", session_id]:
                gone.append(session_id)
    with SessionStore.open(folder, watch=False) as store:
        problems = [p for p in store.last_recovery.problems if p.kind == "journal"]
        if problems:
            raise Lost(f"damage after a crash: {problems[0].detail}")
        for session_id, texts in shared.items():
            found = Counter(_messages(store, session_id))
            missing = [text for text in texts if text not in found]
            if missing or max(found.values()) > 1:
                raise Lost(f"{session_id}: {missing} missing, {found.most_common(1)} there")
        for session_id, texts in own.items():
            _compare_own(store, session_id, texts)
        back = [key for key in gone for view, name in [at(store, key)] if name in view]
        if back:
            raise Lost(f"deleted sessions came back: {back}")
    for path in (*folder.glob("*.json"), *folder.glob("team/*.json")):
        if decode_document([path.read_bytes()]) is None:
            raise Lost(f"{path.name} is torn")
    return len(told)


def _compare_own(store: SessionStore, session_id: str, texts: list[str]) -> None:
    found = [message.split(":")[0] for message in _messages(store, session_id)]
    # One more change may have happened: an append, or a save that replaced everything.
    turn = int(texts[-1].split(".")[1])
    following = [f"{session_id.rpartition('own-')[2]}.{turn + 1}"]
    if found not in (texts, texts + following, following):
        raise Lost(f"{session_id} holds {found}, was told {texts}")


def _messages(store: SessionStore, key: str) -> list[str]:
    view, name = at(store, key)
    return view.load_session(name).messages
