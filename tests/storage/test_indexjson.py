"""The list of sessions for other programs: what it says, and when it is written."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from sessionkeeper.layout import Layout
from sessionkeeper.storage import indexjson
from sessionkeeper.storage.folder import prepare_folders
from sessionkeeper.storage.indexjson import IndexJson, encode_listing
from sessionkeeper.testing import Fault, FaultyFileSystem
from sessionkeeper.testing.conformance import NOW, _document

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper import Event
    from sessionkeeper.storage.documents import Record


class Bench:
    def __init__(self, folder: Path) -> None:
        self.fs = FaultyFileSystem()
        self.layout = Layout.of(folder, "flat")
        prepare_folders(self.fs, self.layout)
        self.events: list[Event] = []
        self.listing = IndexJson(self.fs, self.layout, self.events.append)
        self.path = folder / ".sessionkeeper" / "index.json"

    def writes(self) -> int:
        return self.fs.calls.count("write_new")


@pytest.fixture
def bench(folder: Path) -> Bench:
    return Bench(folder)


def records(count: int) -> list[Record]:
    return [
        replace(_document(f"s{n}", n + 1).record, updated_at=NOW + timedelta(seconds=n))
        for n in range(count)
    ]


def test_it_says_what_sessions_there_are_the_newest_first(bench: Bench) -> None:
    bench.listing.write(records(3))
    found = json.loads(bench.path.read_bytes())
    assert found["version"] == 1
    assert [session["session_id"] for session in found["sessions"]] == ["s2", "s1", "s0"]
    assert found["sessions"][2] == {
        "session_id": "s0",
        "namespace": "",
        "title": "A title",
        "status": "active",
        "created_at": "2025-01-01T12:00:00.000000Z",
        "updated_at": "2025-01-01T12:00:00.000000Z",
        "completed_at": None,
        "tags": ["one", "two"],
        "message_count": 1,
        "total_cost": 1.5,
        "metadata": {"a": 1},
    }
    assert bench.path.stat().st_mode & 0o777 == 0o600
    assert bench.path.read_bytes().count(b"\n") == 5, "one session a line"


def test_no_sessions_are_a_list_too(bench: Bench) -> None:
    bench.listing.write([])
    assert json.loads(bench.path.read_bytes()) == {"version": 1, "sessions": []}
    done = replace(records(1)[0], completed_at=NOW)
    assert json.loads(encode_listing([done]))["sessions"][0]["completed_at"] is not None


def test_it_is_only_written_when_it_differs(bench: Bench) -> None:
    bench.listing.write(records(2))
    assert bench.writes() == 1
    bench.listing.write(records(2))
    assert bench.writes() == 1
    bench.path.write_bytes(b"{")
    bench.listing.write(records(2))
    assert bench.writes() == 2
    assert bench.path.read_bytes() == encode_listing(records(2))


def test_a_write_that_fails_leaves_the_file_before(bench: Bench) -> None:
    bench.listing.write(records(1))
    before = bench.path.read_bytes()
    for operation in ("write_new", "replace"):
        bench.fs.fail(Fault(operation, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(OSError, match="No space"):
            bench.listing.write(records(2))
        assert bench.path.read_bytes() == before
    assert list(bench.layout.temporaries.iterdir()) == []


def test_above_its_bound_there_is_none_and_that_is_said_once(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert indexjson.MAX_SESSIONS == 10_000
    monkeypatch.setattr(indexjson, "MAX_SESSIONS", 2)
    bench.listing.write(records(2))
    for _ in range(3):
        bench.listing.write(records(3))
        assert not bench.path.exists(), "one that is not kept up to date would lie"
    assert [event.kind for event in bench.events] == ["ignored"]
    bench.listing.write(records(2))
    assert bench.path.exists()
    bench.listing.write(records(3))
    assert len(bench.events) == 2
