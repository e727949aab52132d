"""What five kinds of application keep, each in its own words, comes back as it was given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from pathlib import Path

APPLICATIONS: dict[str, dict[str, Any]] = {
    "capture of HL7 messages": {
        "messages": [{"raw": "MSH|^~\\&|LAB\rPID|1\r", "at": 1735732800000, "ack": None}],
        "metadata": {"device": "analyser-2", "elements": {"SB": 1, "EB": 2}},
        "status": "completed",
    },
    "messages of an agent": {
        "messages": [
            {"type": "system", "session_id": "s1"},
            {"type": "assistant", "content": [{"type": "tool_use", "input": {"path": "a/b"}}]},
            {"type": "result", "total_cost_usd": 0.25},
        ],
        "tags": ["code-review", "security"],
        "summary": "two findings",
    },
    "choices made in a web page or a terminal": {
        "title": "Which database?",
        "status": "submitted",
        "metadata": {"interface": "web", "url": "http://localhost:9999/choice/s1"},
        "state": {
            "prompt": "Pick one",
            "selection_mode": "single",
            # One option says that it is recommended, one that it is not, one says nothing.
            "options": [
                {"id": "opt1", "description": "SQLite", "recommended": True},
                {"id": "opt2", "description": "files"},
                {"id": "opt3", "description": "none", "recommended": False},
            ],
            "result": {
                "action_status": "selected",
                "selected_indices": [0],
                "option_annotations": {"0": "fast"},
                "global_annotation": None,
            },
        },
    },
    "a choice that is not made yet": {
        "title": "Which one?",
        "status": "active",
        "state": {"prompt": "Pick", "selection_mode": "multi", "options": []},
    },
    "a chat with one sender": {
        "messages": ["hi", "hello"],
        "state": {"lastActivity": "2025-01-01T12:00:00.000Z", "pendingInput": None},
        "metadata": {"senderId": "+49 170 555", "sdkSessionId": "abc"},
    },
    "a record of commands": {
        "title": "Install the database",
        "status": "paused",
        "state": {
            "id": "d-1",
            "commands": [{"line": "apt install", "status": 0}],
            "stats": {"total_commands": 1, "failed_commands": 0},
        },
    },
    "words that the file uses itself": {
        "messages": [{"session_id": "../x", "version": 99, "checksum": "0", "messages": []}],
        "state": {"format": "mine", "version": "1.0.0", "_metadata": {}, "persistedUntil": 0},
        "metadata": {"session_id": "other", "generation": -1, "state": None, "requests": []},
    },
}


@pytest.mark.parametrize("layout", ["flat", "single"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_the_records_of_an_application_come_back_equal(
    application: str,
    layout: str,
    folder: Path,
) -> None:
    fields = APPLICATIONS[application]
    with SessionStore.open(folder, watch=False, layout=layout) as store:
        store.save_session("s1", **fields)
        store.save_session("neighbour", ["kept"])
    with SessionStore.open(folder, watch=False, layout=layout) as store:
        session = store.load_session("s1")
        for name, value in fields.items():
            found = getattr(session, name)
            expected = tuple(value) if name == "tags" else value
            assert found == expected, name
            # Equal also where Python is lenient: an absent key is no False, a 1 is no True.
            assert json.dumps(found) == json.dumps(expected), name
        assert (session.session_id, session.generation) == ("s1", 1)
        info = store.list_sessions()[1]
        assert (info.session_id, info.status) == ("s1", fields.get("status"))
        assert (info.title, info.metadata) == (fields.get("title"), fields.get("metadata", {}))


def test_sessions_of_different_applications_live_side_by_side(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for name, fields in APPLICATIONS.items():
            store.save_session(name, **fields)
    with SessionStore.open(folder, watch=False) as store:
        assert {session.session_id for session in store.load_all()} == set(APPLICATIONS)
        assert [i.session_id for i in store.search(status="submitted")] == [
            "choices made in a web page or a terminal"
        ]
