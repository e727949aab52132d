"""tail and watch: what others change is shown as it comes, beside them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.cli import following
from sessionkeeper.cli.following import Follower
from sessionkeeper.layout import Layout
from sessionkeeper.storage.reader import FolderReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

    from sessionkeeper import RecoveryReport

    Run = Callable[..., Result]
    Steps = Callable[..., None]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Has something done each time a command waits; then Ctrl-C is pressed."""

    def do(*actions: Callable[[], object]) -> None:
        waiting = iter(actions)

        def wait(seconds: float) -> None:
            assert seconds > 0
            action = next(waiting, None)
            if action is None:
                raise KeyboardInterrupt
            action()

        monkeypatch.setattr(following, "wait", wait)
        # Every look counts: what was done may have left the same times.
        monkeypatch.setattr(following, "UNSETTLED", 10**12)

    return do


@pytest.fixture(params=["flat", "rooted", "single"])
def owner(folder: Path, request: pytest.FixtureRequest) -> Iterator[SessionStore]:
    with SessionStore.open(folder, layout=request.param, watch=False) as store:
        store.save_session("s1", [{"role": "user", "content": f"m{n}"} for n in range(1, 4)])
        yield store


def say(store: SessionStore, text: str) -> Callable[[], object]:
    return lambda: store.append("s1", [{"role": "user", "content": text}])


def texts(result: Result) -> list[str]:
    return [line.split("\t")[-1] for line in result.stdout.splitlines()]


# --- tail ---------------------------------------------------------------------------------


def test_messages_come_as_they_are_added_beside_their_owner(
    run: Run,
    owner: SessionStore,
    steps: Steps,
) -> None:
    steps(say(owner, "m4"), lambda: None, owner.checkpoint, say(owner, "m5"))

    result = run("--path", owner.path, "tail", "s1", "--last", 1)

    assert result.exit_code == 130
    assert result.stdout.splitlines() == ["3\tuser\tm3", "4\tuser\tm4", "5\tuser\tm5"]
    assert "has the store open" in result.stderr


def test_messages_as_json_and_only_those_there_are(run: Run, owner: SessionStore) -> None:
    result = run("--path", owner.path, "tail", "s1", "--no-follow", "--json")

    assert result.exit_code == 0
    assert [json.loads(line)["number"] for line in result.stdout.splitlines()] == [1, 2, 3]
    assert json.loads(result.stdout.splitlines()[0]) == {
        "session_id": "s1",
        "number": 1,
        "message": {"role": "user", "content": "m1"},
    }


def test_it_ends_when_the_session_has_a_status(
    run: Run,
    owner: SessionStore,
    steps: Steps,
) -> None:
    steps(say(owner, "m4"), lambda: owner.save_session("s1", status="completed"))

    result = run("--path", owner.path, "tail", "s1", "--last", 0, "--until", "completed")

    assert (result.exit_code, texts(result)) == (0, ["m4"])
    again = run("--path", owner.path, "tail", "s1", "--last", 0, "--until", "completed")
    assert again.exit_code == 0


def test_messages_that_were_replaced_are_told_from_new_ones(
    run: Run,
    owner: SessionStore,
    steps: Steps,
) -> None:
    steps(
        lambda: owner.rewind("s1", message=2),
        say(owner, "other"),
        lambda: owner.save_session("s1", ["all", "new"]),
    )

    result = run("--path", owner.path, "tail", "s1", "--last", 0)

    assert texts(result) == ["other", "all", "new"]
    assert "s1 was changed from message 3 on" in result.stderr
    assert "s1 was changed from message 1 on" in result.stderr


def test_a_session_that_goes_away_ends_it(run: Run, owner: SessionStore, steps: Steps) -> None:
    steps(lambda: owner.delete_session("s1"))

    result = run("--path", owner.path, "tail", "s1", "--last", 0)

    assert result.exit_code == 1
    assert "s1 is gone" in result.stderr


def test_a_session_that_is_not_there_cannot_be_followed(run: Run, owner: SessionStore) -> None:
    result = run("--path", owner.path, "tail", "absent")

    assert result.exit_code == 1
    assert "there is no session 'absent'" in result.stderr


# --- watch --------------------------------------------------------------------------------


def changes(result: Result) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return [(row[1], row[2]) for row in rows]


def test_every_kind_of_change_is_shown(run: Run, owner: SessionStore, steps: Steps) -> None:
    steps(
        lambda: owner.save_session("s2", [], status="active"),
        say(owner, "m4"),
        lambda: None,
        lambda: owner.delete_session("s1"),
    )

    result = run("--path", owner.path, "watch")

    assert result.exit_code == 130
    assert changes(result) == [("created", "s2"), ("changed", "s1"), ("gone", "s1")]
    assert result.stderr.count("has the store open; it is only read") == 1
    assert result.stdout.splitlines()[0].split("\t")[3:] == ["1", "0", "active"]
    assert result.stdout.splitlines()[1].split("\t")[3:] == ["2", "4", ""]


def test_people_are_told_of_a_change_in_words(
    run: Run,
    owner: SessionStore,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessionkeeper.cli.commands.watch.is_terminal", lambda: True)
    steps(
        lambda: owner.save_session("s2", ["one"], status="paused"),
        lambda: owner.delete_session("s2"),
    )

    shown = run("--path", owner.path, "watch").stdout.splitlines()

    assert shown[0].split("  ")[1:] == ["created", "s2", "1 message", "paused"]
    assert shown[1].split("  ")[1:] == ["gone", "s2"]


def test_only_some_sessions_and_so_many_changes(
    run: Run,
    owner: SessionStore,
    steps: Steps,
) -> None:
    steps(
        lambda: owner.save_session("s2", []),
        lambda: owner.save_session("s3", []),
        say(owner, "m4"),
    )

    result = run("--path", owner.path, "watch", "s1", "s3", "--count", 2, "--json")

    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [(f["change"], f["session_id"]) for f in found] == [("created", "s3"), ("changed", "s1")]
    assert found[1]["info"]["message_count"] == 4
    assert found[1]["at"] == found[1]["info"]["updated_at"]


def test_a_hand_edit_in_a_store_that_nobody_owns_is_a_change(
    run: Run,
    filled: Path,
    steps: Steps,
) -> None:
    def edit() -> None:
        path = filled / "refund.json"
        path.write_text(path.read_text().replace("A refund", "Another"))

    steps(edit, lambda: (filled / "empty.json").write_text("{"))

    result = run("--path", filled, "watch", "--json")

    (first, *rest) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (first["change"], first["info"]["title"]) == ("changed", "Another")
    assert [(change["change"], change["session_id"]) for change in rest] == [("gone", "empty")]
    assert result.stderr.count("corrupt: ") == 1


@pytest.mark.parametrize("command", [["watch"], ["tail", "s1"]])
def test_there_must_be_a_store_to_follow(run: Run, folder: Path, command: list[str]) -> None:
    result = run("--path", folder, *command)

    assert result.exit_code == 2
    assert "there is no store at" in result.stderr
    assert not folder.exists()


# --- how it looks -------------------------------------------------------------------------


def test_a_folder_that_rests_is_not_looked_through(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [])
    monkeypatch.setattr(following, "UNSETTLED", 0)
    follower = Follower(Layout.of(folder, "flat"), 1.0)
    looks: list[int] = []
    real = follower._reader.recover

    def recover() -> RecoveryReport:
        looks.append(1)
        return real()

    monkeypatch.setattr(follower._reader, "recover", recover)

    for _ in range(following.WHOLE_LOOK - 2):
        assert follower.look() == []
    assert looks == []
    follower.look()
    assert looks == [1], "now and then all of it is, for what no folder's time shows"


def test_a_file_that_has_not_changed_is_not_read_again(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [])
        store.save_session("s2", [])
        monkeypatch.setattr(following, "UNSETTLED", 10**12)
        follower = Follower(Layout.of(folder, "flat"), 1.0)
        scanned: list[str] = []
        assert isinstance(follower._reader, FolderReader)
        real = follower._reader._scan

        def scan(path: Path, *rest: Any) -> Any:
            scanned.append(path.name)
            return real(path, *rest)

        monkeypatch.setattr(follower._reader, "_scan", scan)
        store.save_session("s2", [1])
        (change,) = follower.look()

    assert (change.session_id, change.kind) == ("s2", "changed")
    assert scanned == ["s2.json"]


def test_a_look_that_shows_less_than_the_one_before_is_repeated(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["saved"])
        monkeypatch.setattr(following, "UNSETTLED", 10**12)
        follower = Follower(Layout.of(folder, "flat"), 1.0)
        old = follower._reader.recover()
        store.append("s1", ["appended"])
        (change,) = follower.look()
        assert change.info is not None
        assert change.info.message_count == 2
        reports = [old, old]
        real = follower._reader.recover
        monkeypatch.setattr(
            follower._reader, "recover", lambda: reports.pop() if reports else real()
        )

        assert follower.look() == []
        assert reports == []


def test_through_a_pipe_each_message_comes_at_once_and_ctrl_c_ends_it(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "sessionkeeper.cli", "--path", str(folder)),
                *("tail", "s1", "--interval", "0.01"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "1\t\tfirst\n"
            store.append("s1", ["second"])
            assert process.stdout.readline() == "2\t\tsecond\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == ""
            complaints = process.stderr.read()

    assert process.returncode == 130
    assert complaints.startswith(f"sessionkeeper: process {os.getpid()} on ")
    assert "Traceback" not in complaints
