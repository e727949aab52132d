"""tag, pin, delete, erase, backups, restore: what they do, say, and leave alone."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.testing import Fault, FaultyFileSystem, Injected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    from sessionkeeper.cli.places import Place

    Run = Callable[..., Result]
    RunProcess = Callable[..., subprocess.CompletedProcess[str]]

CHANGING = (
    ["tag", "refund", "--add", "x"],
    ["pin", "refund"],
    ["unpin", "refund"],
    ["delete", "refund"],
    ["undelete", "refund"],
    ["erase", "refund", "--yes"],
    ["restore", "refund"],
    ["cleanup"],
)


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def tags_of(folder: Path, session_id: str) -> tuple[str, ...]:
    with SessionStore.open(folder, read_only=True) as store:
        return store.load_session(session_id).tags


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        (["--add", "x"], ["a", "support", "x"]),
        (["--remove", "a"], ["support"]),
        (["--add", "x", "--add", "y", "--remove", "support"], ["a", "x", "y"]),
        (["--replace", "z", "--replace", "a"], ["z", "a"]),
        (["--clear"], []),
        (["--add", "a"], ["a", "support"]),
    ],
)
def test_tags_are_changed_at_once(
    run: Run, filled: Path, options: list[str], tags: list[str]
) -> None:
    (done,) = objects(run("--path", filled, "tag", "refund", *options, "--json").stdout)

    assert done["tags"] == tags
    assert tags_of(filled, "refund") == tuple(tags)
    # One change, or none where there is nothing to change.
    assert done["generation"] == (1 if options == ["--add", "a"] else 2)


@pytest.mark.parametrize(
    "options",
    [[], ["--add", "x", "--clear"], ["--replace", "x", "--remove", "a"]],
)
def test_how_tags_are_to_change_must_be_said_once(
    run: Run,
    filled: Path,
    options: list[str],
) -> None:
    result = run("--path", filled, "tag", "refund", *options)

    assert result.exit_code == 2
    assert "either --add and --remove, or --replace, or --clear" in result.stderr
    assert "Usage: sessionkeeper tag" in result.stderr
    assert tags_of(filled, "refund") == ("a", "support")


def test_a_session_is_pinned_and_let_go(run: Run, filled: Path) -> None:
    assert run("--path", filled, "pin", "refund").stdout == "refund\t2\n"
    with SessionStore.open(filled, read_only=True) as store:
        assert store.load_session("refund").pinned
    assert run("--path", filled, "unpin", "refund").stdout == "refund\t3\n"
    with SessionStore.open(filled, read_only=True) as store:
        assert not store.load_session("refund").pinned


def test_a_deleted_session_comes_back(run: Run, filled: Path) -> None:
    assert run("--path", filled, "delete", "refund").stdout == "refund\t7.0\n"
    assert "refund" not in run("--path", filled, "list").stdout

    again = run("--path", filled, "delete", "refund")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "there is no session 'refund'" in again.stderr

    (line,) = run("--path", filled, "trash").stdout.splitlines()
    session_id, removed_at, reason = line.split("\t")
    assert (session_id, reason) == ("refund", "deleted")
    assert objects(run("--path", filled, "trash", "--json").stdout) == [
        {"session_id": "refund", "removed_at": removed_at, "reason": "deleted"},
    ]
    assert run("--path", filled, "undelete", "refund").stdout == "refund\t2\t4\n"
    assert run("--path", filled, "trash").stdout == ""
    taken = run("--path", filled, "undelete", "refund")
    assert taken.exit_code == 1
    assert "hint: " in taken.stderr


def test_one_session_that_is_not_there_keeps_no_other_from_its_change(
    run: Run,
    filled: Path,
) -> None:
    result = run("--path", filled, "pin", "refund", "absent", "../x", "empty", "refund", "--json")

    assert result.exit_code == 1
    assert [done["session_id"] for done in objects(result.stdout)] == ["refund", "empty"]
    assert "there is no session 'absent'" in result.stderr
    assert "contains a path separator" in result.stderr


def test_a_session_is_erased_with_all_there_is_of_it(run: Run, filled: Path) -> None:
    run("--path", filled, "pin", "refund")

    (done,) = objects(run("--path", filled, "erase", "refund", "--yes", "--json").stdout)

    assert done["session_id"] == "refund"
    assert done["files"] >= 2  # itself and its backup
    assert done["bytes"] > 0
    for path in filled.rglob("*"):
        if path.is_file():
            assert b"Please." not in path.read_bytes(), path


def test_nothing_is_erased_where_nobody_can_be_asked(run: Run, filled: Path) -> None:
    result = run("--path", filled, "erase", "refund")

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert (filled / "refund.json").exists()


def answered(folder: Path, answers: str, *arguments: str) -> tuple[int, str]:
    """What a command prints, and how it ends, for somebody who types the answers."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli", "--path", str(folder), *arguments],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(slave)
        os.write(master, answers.encode())
        assert process.stdout is not None
        shown = process.stdout.read().decode()
        status = process.wait(60)
    os.close(master)
    return status, shown


def test_erasing_asks_for_each_session_and_takes_no_for_an_answer(filled: Path) -> None:
    status, shown = answered(filled, "n\ny\n", "erase", "refund", "greeting")

    assert status == 1
    assert "Erase refund (4 messages) for good? [y/N]" in shown
    assert "refund is left as it is" in shown
    assert "greeting\t" in shown
    assert (filled / "refund.json").exists()
    assert not (filled / "greeting.json").exists()


def test_nobody_is_asked_about_a_store_that_somebody_owns(filled: Path) -> None:
    with SessionStore.open(filled, watch=False):
        status, shown = answered(filled, "y\n", "erase", "refund")

    assert status == 75
    assert "Erase" not in shown
    assert f"pid {os.getpid()}" in shown


def test_a_version_that_was_replaced_is_listed_and_brought_back(run: Run, filled: Path) -> None:
    run("--path", filled, "tag", "refund", "--clear")
    run("--path", filled, "pin", "refund")

    kept = objects(run("--path", filled, "backups", "refund", "--json").stdout)
    assert [backup["generation"] for backup in kept] == [2, 1]
    rows = run("--path", filled, "backups", "refund").stdout.splitlines()
    assert rows[1].split("\t") == [
        "1",
        kept[1]["updated_at"],
        str(kept[1]["size"]),
        kept[1]["path"],
    ]

    assert run("--path", filled, "restore", "refund", "--generation", 1).stdout == "refund\t4\t4\n"
    assert tags_of(filled, "refund") == ("a", "support")

    absent = run("--path", filled, "restore", "refund", "--generation", 77)
    assert absent.exit_code == 1
    assert "`sessionkeeper backups`" in absent.stderr


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_changing_creates_no_store(run: Run, folder: Path, command: list[str]) -> None:
    result = run("--path", folder, *command)

    assert result.exit_code == 2
    assert "there is no store at" in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: command[0])
def test_changing_beside_an_owner_names_it_and_changes_nothing(
    run_process: RunProcess,
    filled: Path,
    command: list[str],
) -> None:
    with SessionStore.open(filled, watch=False) as owner:
        before = [info.generation for info in owner.list_sessions()]
        result = run_process("--path", filled, *command)
        assert [info.generation for info in owner.list_sessions()] == before

    assert result.returncode == 75
    assert result.stdout == ""
    assert f"pid {os.getpid()}" in result.stderr
    assert "hint: Try again when it has ended" in result.stderr


def test_a_change_brings_no_cleanup_with_it(run: Run, filled: Path) -> None:
    (filled / ".sessionkeeper" / "config.json").write_text('{"max_sessions": 1}')

    assert run("--path", filled, "tag", "refund", "--add", "x").exit_code == 0

    assert len(run("--path", filled, "list").stdout.splitlines()) == 3


def test_a_store_that_takes_no_change_is_asked_for_one_only(
    run: Run,
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fs = FaultyFileSystem()

    def opened(place: Place) -> SessionStore:
        store = SessionStore.open(place.path, watch=False, inject=Injected(fs=fs))
        fs.fail(Fault("write_new", OSError(errno.ENOSPC, "No space left on device")))
        return store

    monkeypatch.setattr("sessionkeeper.cli.changes.open_for_changing", opened)

    result = run("--path", filled, "pin", "refund", "empty")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("No space left on device") == 1
