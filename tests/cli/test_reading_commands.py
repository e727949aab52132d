"""list, search, show and stats: what they print, and that they change nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


READING = (["list"], ["show", "refund"], ["search"], ["stats"])


def ids(output: str) -> list[str]:
    return [line.split("\t")[0] for line in output.splitlines()]


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if name.startswith("index.db"):
                continue  # the owner's indexer follows in its own time
            status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - as os.walk gives it
            found[f"{parent}/{name}"] = (status.st_ino, status.st_mtime_ns)
    return found


# --- list ---------------------------------------------------------------------------------


def test_a_list_has_one_line_for_each_session_newest_change_first(run: Run, filled: Path) -> None:
    result = run("--path", filled, "list")

    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [line[0] for line in lines] == ["refund", "empty", "greeting"]
    assert lines[0][1].endswith("Z")
    assert lines[0][2:] == ["4", "0.5", "completed", "a,support", "A refund"]
    assert lines[2][2:] == ["1", "0", "", "a,b", ""]


def test_a_list_as_json_has_all_metadata(run: Run, filled: Path) -> None:
    first, *others = objects(run("--path", filled, "list", "--json").stdout)

    assert len(others) == 2
    assert first["session_id"] == "refund"
    assert first["metadata"] == {"user": "mia"}
    assert first["tags"] == ["a", "support"]
    assert first["message_count"] == 4
    assert first["updated_at"] == first["completed_at"]
    assert first["updated_at"].endswith("Z")
    assert others[0]["completed_at"] is None
    with SessionStore.open(filled, read_only=True) as store:
        info = store.list_sessions()[0]
    assert set(first) == set(info.__slots__)


def test_pages_follow_each_other(run: Run, filled: Path) -> None:
    first = run("--path", filled, "list", "--limit", 2)
    assert ids(first.stdout) == ["refund", "empty"]
    cursor = first.stderr.split("--cursor ")[1].strip()

    second = run("--path", filled, "list", "--limit", 2, "--cursor", cursor)

    assert ids(second.stdout) == ["greeting"]
    assert second.stderr == ""


@pytest.mark.parametrize("command", ["list", "search"])
def test_they_can_be_sorted(run: Run, filled: Path, command: str) -> None:
    by_length = run("--path", filled, command, "--sort", "-messages", "--limit", 2)
    assert ids(by_length.stdout) == ["refund", "greeting"]
    cursor = by_length.stderr.split("--cursor ")[1].strip()
    rest = run("--path", filled, command, "--sort=-messages", "--cursor", cursor)
    assert ids(rest.stdout) == ["empty"]
    assert ids(run("--path", filled, command, "--sort", "id").stdout) == sorted(
        ["empty", "greeting", "refund"],
    )
    assert run("--path", filled, command, "--sort", "id", "--cursor", cursor).exit_code == 1
    refused = run("--path", filled, command, "--sort", "colour")
    assert refused.exit_code == 2
    assert "messages" in refused.stderr


def test_a_limit_of_nothing_shows_nothing_and_one_below_is_refused(run: Run, filled: Path) -> None:
    assert run("--path", filled, "list", "--limit", 0).stdout == ""
    assert run("--path", filled, "list", "--limit", -1).exit_code == 2


# --- search -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ["refund", "empty", "greeting"]),
        (["--tag", "b", "--tag", "support"], ["refund", "greeting"]),
        (["--all-tag", "a", "--all-tags", "support"], ["refund"]),
        (["--min-cost", "0.5"], ["refund", "empty"]),
        (["--max-cost", "0.5"], ["refund", "greeting"]),
        (["--min-cost", "0.1", "--max-cost", "1"], ["refund"]),
        (["--status", "active"], ["empty"]),
        (["--limit", "1"], ["refund"]),
        (["--after", "2020-01-01"], ["refund", "empty", "greeting"]),
        (["--after", "2920-01-01T00:00:00Z"], []),
        (["--before", "2020-01-01"], []),
        (["--before", "2920-01-01T00:00:00+02:00"], ["refund", "empty", "greeting"]),
        (["--tag", "nobody"], []),
        (["--text", "refund pleas*"], ["refund"]),
        (["--text", "HI"], ["greeting"]),
        (["--text", '"that is"', "--tag", "b"], []),
        (["--text", "assistant", "--status", "completed"], ["refund"]),
    ],
)
def test_sessions_are_found(
    run: Run,
    filled: Path,
    conditions: list[str],
    expected: list[str],
) -> None:
    result = run("--path", filled, "search", *conditions)

    assert result.exit_code == 0
    assert ids(result.stdout) == expected


def test_what_is_found_can_be_json_and_goes_on(run: Run, filled: Path) -> None:
    first = run("--path", filled, "search", "--tag", "a", "--limit", 1, "--json")
    cursor = first.stderr.split("--cursor ")[1].strip()
    second = run("--path", filled, "search", "--tag", "a", "--cursor", cursor, "--json")

    assert [found["session_id"] for found in objects(first.stdout)] == ["refund"]
    assert [found["session_id"] for found in objects(second.stdout)] == ["greeting"]


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("yesterday", "neither a date"),
        ("2025-13-01", "neither a date"),
        ("2025-01-31T12:00:00", "no time zone"),
    ],
)
@pytest.mark.parametrize("option", ["--after", "--before"])
def test_a_time_that_is_none_is_refused(
    run: Run,
    filled: Path,
    option: str,
    when: str,
    reason: str,
) -> None:
    result = run("--path", filled, "search", option, when)

    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--cursor", "mine"], ["--min-cost", "nan"], ["--tag", " "], ["--text", '"open']],
)
def test_what_the_library_refuses_is_said_without_a_traceback(
    run: Run,
    filled: Path,
    arguments: list[str],
) -> None:
    result = run("--path", filled, "search", *arguments)

    assert result.exit_code == 1
    assert result.stderr.startswith("sessionkeeper: ")
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


# --- show ---------------------------------------------------------------------------------


def test_a_session_is_shown_with_its_metadata_and_its_messages(run: Run, filled: Path) -> None:
    result = run("--path", filled, "show", "refund")

    head, _, body = result.stdout.partition("\n\n")
    pairs = dict(line.split("\t") for line in head.splitlines())
    assert pairs["session_id"] == "refund"
    assert pairs["tags"] == '["a","support"]'
    assert pairs["summary"] == ""
    assert body.splitlines() == [
        "1\tuser\tRefund?\\nPlease.",
        '2\tassistant\t{"tool_calls": [{"id": "c1"}]}',
        "3\ttool\tok",
        "4\t\tThat is all.",
    ]


def test_only_the_last_messages_are_shown_with_their_numbers(run: Run, filled: Path) -> None:
    body = run("--path", filled, "show", "refund", "--last", 2).stdout.partition("\n\n")[2]

    assert body.splitlines() == ["3\ttool\tok", "4\t\tThat is all."]
    assert not run("--path", filled, "show", "refund", "--last", 0).stdout.partition("\n\n")[2]


def test_a_whole_session_as_json(run: Run, filled: Path) -> None:
    (shown,) = objects(run("--path", filled, "show", "refund", "--json").stdout)

    assert shown["state"] == {"step": 2}
    assert shown["messages"][0] == {"role": "user", "content": "Refund?\nPlease."}
    assert len(shown["messages"]) == 4
    (last,) = objects(run("--path", filled, "show", "refund", "--json", "--last", 1).stdout)
    assert last["messages"] == ["That is all."]


@pytest.mark.parametrize("session_id", ["absent", "../refund", ""])
def test_a_session_that_is_not_there(run: Run, filled: Path, session_id: str) -> None:
    result = run("--path", filled, "show", session_id)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


# --- stats --------------------------------------------------------------------------------


def test_a_store_is_counted(run: Run, filled: Path) -> None:
    with SessionStore.open(filled, watch=False) as store:
        store.create_session("gone", ["x" * 1000])
        store.delete_session("gone")
    (filled / "broken.json").write_text("{")
    (filled / "notes.txt").write_text("not a session")
    quarantine = filled / ".sessionkeeper" / "quarantine"
    (quarantine / "old.json").write_bytes(b"x" * 77)

    (stats,) = objects(run("--path", filled, "stats", "--json").stdout)

    assert (stats["sessions"], stats["messages"], stats["total_cost"]) == (3, 5, 2.5)
    assert stats["oldest"] < stats["newest"]
    sizes = [path.stat().st_size for path in filled.glob("*.json")]
    assert stats["storage"]["session_size"] == sum(sizes)
    assert stats["storage"]["trash_size"] > 1000
    assert stats["storage"]["backup_size"] == 0
    assert stats["storage"]["quarantine_size"] == 77
    (problem,) = stats["problems"]
    assert (problem["kind"], problem["file"]) == ("corrupt", "broken.json")


def test_counts_as_lines(run: Run, filled: Path) -> None:
    (filled / "broken.json").write_text("{")

    result = run("--path", filled, "stats")

    pairs = [line.split("\t") for line in result.stdout.splitlines()]
    assert ["sessions", "3"] in pairs
    assert ["problems", "1"] in pairs
    assert pairs[-1][0] == "problem"
    assert pairs[-1][1].startswith("corrupt: broken.json: ")


def test_an_empty_store_has_no_oldest_session(run: Run, folder: Path) -> None:
    with SessionStore.open(folder, watch=False):
        pass

    (stats,) = objects(run("--path", folder, "stats", "--json").stdout)

    assert (stats["sessions"], stats["oldest"], stats["newest"]) == (0, None, None)


# --- what they have in common -------------------------------------------------------------


@pytest.mark.parametrize("command", READING)
def test_reading_creates_nothing_where_no_store_is(
    run: Run,
    folder: Path,
    command: list[str],
) -> None:
    result = run("--path", folder, *command)

    assert result.exit_code == 2
    assert "there is no store at" in result.stderr
    assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize("command", READING)
def test_reading_changes_nothing_and_works_beside_a_live_owner(
    run: Run,
    filled: Path,
    command: list[str],
) -> None:
    (filled / "broken.json").write_text("{")
    with SessionStore.open(filled, watch=False) as owner:
        owner.append("refund", ["of the owner"])
        (filled / "rot.json").write_text("also broken")
        owner.checkpoint()  # none goes on while the tree is compared
        owner.append("refund", ["still in the journal"])
        catalog = owner._view._catalog
        assert catalog is not None
        wait_until(lambda: catalog.after("", 1) is not None)  # nor does the index go on
        before = tree(filled)

        result = run("--path", filled, *command)

        assert result.exit_code == 0
        assert tree(filled) == before
        assert owner.append("refund", ["goes on"]).message_count == 7


@pytest.mark.parametrize(
    "command",
    [
        *READING,
        ["tail", "refund", "--no-follow"],
        ["doctor"],
        ["export", "refund", "-o", "refund.out"],
        ["backups", "refund"],
        ["config"],
        ["cleanup", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
def test_reading_beside_an_owner_says_so_and_alone_it_does_not(
    run: Run,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with SessionStore.open(filled, watch=False):
        beside = run("--path", filled, *command)

    assert beside.exit_code == 0
    assert beside.stderr.count("has the store open; it is only read") == 1
    (tmp_path / "refund.out").unlink(missing_ok=True)
    alone = run("--path", filled, *command)
    assert (alone.exit_code, alone.stderr) == (0, "")


def test_reading_sees_what_the_owner_has_saved(run: Run, filled: Path) -> None:
    with SessionStore.open(filled, watch=False) as owner:
        owner.append("greeting", ["of the owner"])

        assert ids(run("--path", filled, "list").stdout)[0] == "greeting"
        assert run("--path", filled, "show", "greeting").stdout.endswith("2\t\tof the owner\n")


def test_a_store_with_sessions_in_a_folder_of_their_own_is_read_and_written(
    run: Run,
    folder: Path,
    tmp_path: Path,
) -> None:
    with SessionStore.open(folder, layout="rooted", watch=False) as store:
        store.save_session("s1", [])
    new = tmp_path / "new.json"
    new.write_text('{"id": "s2", "messages": []}')

    assert run("--path", folder, "import", new).exit_code == 0

    assert ids(run("--path", folder, "list").stdout) == ["s2", "s1"]
    (stats,) = objects(run("--path", folder, "stats", "--json").stdout)
    assert stats["sessions"] == 2
    assert stats["storage"]["session_size"] > 0
    assert sorted(path.name for path in (folder / "sessions").iterdir()) == ["s1.json", "s2.json"]


HOSTILE = "\x1b]0;owned\x07\x1b[31m[red]a\tb\nc\u202e[/red]"


@pytest.fixture
def hostile(folder: Path) -> Path:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(
            "s\u202e1",
            [{"role": HOSTILE, "content": HOSTILE}],
            title=HOSTILE,
            tags=[HOSTILE],
            status=HOSTILE,
            metadata={HOSTILE: HOSTILE},
        )
    (folder / "bro\x1bken.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    "command",
    [["list"], ["search"], ["show", "s\u202e1"], ["stats"], ["show", "\x1b[31m"]],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_escape_of_others_reaches_the_output(
    run: Run,
    hostile: Path,
    command: list[str],
    form: list[str],
) -> None:
    result = run("--path", hostile, *command, *form)

    assert result.output
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(result.output)
    if command == ["list"] and not form:
        assert len(result.stdout.splitlines()) == 1
        assert result.stdout.count("\t") == 6
        assert r"\x1b]0;owned\x07\x1b[31m[red]a\tb\nc\u202e[/red]" in result.stdout
        assert r"bro\x1bken.json" in result.stderr


def test_warnings_are_shown_once_and_only_while_a_command_runs(run: Run, filled: Path) -> None:
    (filled / "broken.json").write_text("{")

    for _ in range(2):
        result = run("--path", filled, "list")
        assert result.stderr.count("broken.json") == 1
        assert result.stderr.startswith("sessionkeeper: corrupt: ")
