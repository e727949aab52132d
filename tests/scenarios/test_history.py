"""Servers that show what was done last: one after the other on a folder, and beside live ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from running import Program

from sessionkeeper import SessionStore
from sessionkeeper.testing import EventLog, FakeClock, Injected, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# What another program does that knows nothing of the store but the file.
READER = """
import json, sys
with open(sys.argv[1]) as file:
    listing = json.load(file)
assert listing["version"] == 1
for each in listing["sessions"]:
    print(each["session_id"], each["status"], each["metadata"]["url"], each["title"], sep="|")
"""


class Browser:
    """Speaks to a server as a page would."""

    def __init__(self, server: Program) -> None:
        self._root = f"http://127.0.0.1:{server.expect('listening')['port']}"

    def post(self, action: str, session_id: str = "", body: Any = None) -> None:
        data = json.dumps(body).encode()
        address = f"{self._root}/{action}/{session_id}"
        with urllib.request.urlopen(address, data, timeout=10) as answer:  # noqa: S310 - our own
            assert json.load(answer) == {"done": action}

    def recent(self) -> list[tuple[str, bool]]:
        """Ids, and whether they are live; what changed last comes first."""
        with urllib.request.urlopen(f"{self._root}/", timeout=10) as answer:  # noqa: S310
            return [(each["session_id"], each["live"]) for each in json.load(answer)]


def listed(folder: Path) -> list[str]:
    """What the other program reads from the list; nothing while there is none."""
    path = folder / ".sessionkeeper" / "index.json"
    command = [sys.executable, "-I", "-c", READER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.splitlines()


def test_what_was_chosen_outlives_the_server(folder: Path, tmp_path: Path) -> None:
    result = {"action_status": "selected", "selected_indices": ["opt1"]}
    with Program("history_server", folder, folder=tmp_path) as server:
        browser = Browser(server)
        for name in ("first", "second"):
            browser.post("begin", name)
        assert browser.recent() == [("second", True), ("first", True)]
        browser.post("choose", "first", result)
        assert browser.recent() == [("second", True), ("first", True)], "no doubles"
        browser.post("forget", "first")
        assert browser.recent() == [("first", False), ("second", True)]

        with Program("history_server", folder, folder=tmp_path) as beside:
            told = beside.expect("locked")
            assert beside.end() == 0
        assert f"owned by process {server.pid} " in told["error"]
        assert told["stored"] == ["first"]

        server.signal(signal.SIGTERM)
        assert server.end() == 0

    with Program("history_server", folder, folder=tmp_path) as server:
        browser = Browser(server)
        assert browser.recent() == [("first", False)]
        browser.post("choose", "third", result)
        browser.post("begin", "first")
        assert browser.recent() == [("first", True), ("third", False)]
        expected = ["third|submitted|/choice/third|Choose an option"]
        expected += ["first|submitted|/choice/first|Choose an option"]
        wait_until(lambda: listed(folder) == expected, timeout=10)
        server.kill()

    with SessionStore.open(folder, preset="history", watch=False) as store:
        assert store.load_session("third").state["result"] == result
        assert [info.session_id for info in store.get_recent()] == ["third", "first"]


def test_settings_are_changed_while_it_serves(folder: Path, tmp_path: Path) -> None:
    with Program("history_server", folder, folder=tmp_path) as server:
        browser = Browser(server)
        for number in range(6):
            browser.post("choose", f"choice-{number}", {"action_status": "selected"})
        assert len(browser.recent()) == 6
        browser.post("configure", body={"max_sessions": 2})
        wait_until(lambda: browser.recent() == [("choice-5", False), ("choice-4", False)])
        browser.post("choose", "choice-6", {"action_status": "selected"})
        wait_until(lambda: browser.recent() == [("choice-6", False), ("choice-5", False)])
        browser.post("configure", body={"max_sessions": None})
        browser.post("choose", "choice-7", {"action_status": "selected"})
        assert len(browser.recent()) == 3
        server.signal(signal.SIGTERM)
        assert server.end() == 0


def test_what_is_not_to_be_stored_is_not(folder: Path, tmp_path: Path) -> None:
    def files() -> set[str]:
        return {path.name for path in folder.glob("*.json")}

    with Program("history_server", folder, folder=tmp_path) as server:
        browser = Browser(server)
        browser.post("choose", "before", {"action_status": "selected"})
        browser.post("configure", body={"persistence": False})
        browser.post("choose", "private", {"action_status": "selected"})
        assert browser.recent() == [("private", False), ("before", False)]
        assert files() == {"before.json"}

        browser.post("configure", body={"persistence": True})
        assert files() == {"before.json", "private.json"}

        browser.post("configure", body={"persistence": False})
        browser.post("choose", "secret", {"action_status": "selected"})
        server.kill()

    with Program("history_server", folder, folder=tmp_path) as server:
        assert Browser(server).recent() == [("private", False), ("before", False)]
        server.signal(signal.SIGTERM)
        assert server.end() == 0
    assert files() == {"before.json", "private.json"}


def test_no_more_than_100_and_none_older_than_3_days(folder: Path, clock: FakeClock) -> None:
    injected = Injected(clock=clock)
    with (
        SessionStore.open(folder, preset="history", watch=False, inject=injected) as store,
        EventLog(store) as log,
    ):
        for number in range(101):
            store.save_session(f"choice-{number:03}", status="submitted")
        log.wait_for("trashed", 1)
        assert len(store) == 100
        assert "choice-000" not in store

        clock.advance(days=2.9)
        store.save_session("new", status="submitted")
        before = len(log.of_kind("trashed"))
        clock.advance(days=0.1, seconds=3600)
        log.wait_for("trashed", before + 99)
        assert [info.session_id for info in store.list_sessions()] == ["new"]
