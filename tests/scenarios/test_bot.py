"""A service that keeps its sessions in one file, and does not wait for it."""

from __future__ import annotations

import json
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from running import Program

from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from pathlib import Path

SENDERS = 10
BURST = 1000
TEXT = "x" * 1000


def talk(port: int, sender: int, count: int) -> None:
    """Send so many messages without waiting, then read as many answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        lines = [f"sender-{sender} {number} {TEXT}\n" for number in range(count)]
        connection.sendall("".join(lines).encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile().readlines() == ["got it\n"] * count


def burst(port: int) -> None:
    """A thousand messages from ten senders at once, every one of them answered."""
    crew = [
        threading.Thread(target=talk, args=(port, sender, BURST // SENDERS))
        for sender in range(SENDERS)
    ]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def in_the_file(path: Path) -> dict[str, list[Any]]:
    """What any program reads in it: the numbers of each sender's messages."""
    sessions = json.loads(path.read_bytes())["sessions"]
    return {
        session["session_id"]: [int(m["text"].split()[0]) for m in session["messages"]]
        for session in sessions
    }


def everything() -> dict[str, list[int]]:
    return {f"sender-{sender}": [*range(BURST // SENDERS)] for sender in range(SENDERS)}


def test_a_burst_is_answered_at_once_and_saved_before_the_service_ends(project: Path) -> None:
    with Program("bot_service", folder=project) as service:
        port = service.expect("listening")["port"]
        service.do("hold")
        talk(port, 99, 1)
        service.do("stalled")
        burst(port)  # all are answered, and not one of them is saved
        service.signal(signal.SIGTERM)
        service.expect("closing")
        service.send("release")
        assert service.end() == 0
        assert "unsaved" not in [told["event"] for told in service.rest()]
    assert in_the_file(project / ".sessions.json") == {**everything(), "sender-99": [0]}

    with Program("bot_service", folder=project) as service:
        assert service.expect("opened")["sessions"] == {
            **dict.fromkeys(everything(), BURST // SENDERS),
            "sender-99": 1,
        }


def test_a_kill_takes_nothing_that_was_saved(project: Path) -> None:
    with Program("bot_service", folder=project) as service:
        port = service.expect("listening")["port"]
        burst(port)
        service.do("flush")
        talk(port, 99, 500)
        service.kill()
    found = in_the_file(project / ".sessions.json")
    late = found.pop("sender-99", [])
    assert found == everything()
    assert late == [*range(len(late))], "what was saved later is in order, without gaps"
    with SessionStore.open(preset="bot", watch=False) as store:
        assert not store.last_recovery.problems
        kept = {info.session_id: info.message_count for info in store.list_sessions()}
        assert kept.pop("sender-99", 0) == len(late)
        assert kept == dict.fromkeys(found, BURST // SENDERS)


def test_no_save_fails_in_silence(project: Path) -> None:
    path = project / "service.json"
    environment = {"SESSION_STORE_PATH": str(path)}
    with Program("bot_service", 300_000, folder=project, environment=environment) as service:
        burst(service.expect("listening")["port"])
        service.signal(signal.SIGTERM)
        failures = service.expect("unsaved")["failures"]
        assert service.end() == 1
        log = service.errors.read_text()
    found = in_the_file(path)
    saved = sum(map(len, found.values()))
    assert 200 < saved < 300, "as much as there is room for"
    assert saved + len(failures) == BURST
    assert log.count("ERROR sessionkeeper a command sent with tell() failed") == len(failures)
    assert all("File too large" in failure for failure in failures)

    environment = {"SESSION_STORE_PATH": "", "SESSIONKEEPER_PATH": str(path)}
    with Program("bot_service", folder=project, environment=environment) as service:
        sessions = service.expect("opened")["sessions"]
        assert sessions == {session_id: len(numbers) for session_id, numbers in found.items()}
