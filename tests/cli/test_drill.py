"""The drill: it really crashes, it really kills, and it says so when something is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import OutcomeUnknown, SessionNotFound, SessionStore
from sessionkeeper.cli.drill import crashing, killing, part
from sessionkeeper.cli.drill.conversations import conversation
from sessionkeeper.cli.drill.count import Count, Mark, count
from sessionkeeper.cli.drill.crashing import crash_part
from sessionkeeper.cli.drill.killing import kill_part
from sessionkeeper.cli.drill.ledger import Ledger
from sessionkeeper.cli.drill.part import DrillError, Part, Plan, marks_found
from sessionkeeper.cli.drill.worker import decode_line, encode_line
from sessionkeeper.cli.drill.writers import Crew
from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]
    RunProcess = Callable[..., subprocess.CompletedProcess[str]]

SHORT = Plan(threads=4, crashes=2, seconds=0.3)


def unexpected(error: BaseException) -> None:
    """The writer's error is raised where the crew is left; there is nothing else to do."""


def ignore(share: float, total: int) -> None:
    """Watch nothing."""


# --- its parts ----------------------------------------------------------------------------


def test_a_ledger_is_waited_for() -> None:
    ledger = Ledger()
    thread = threading.Thread(target=ledger.note, args=("s", [Mark(1, 1), Mark(1, 2)]))
    thread.start()

    assert ledger.wait_for(2, timeout=20)
    assert not ledger.wait_for(3, timeout=0)
    assert ledger.total == 2
    assert ledger.acknowledged() == {"s": [Mark(1, 1), Mark(1, 2)]}
    thread.join()


def test_nobody_waits_for_a_ledger_that_is_closed() -> None:
    ledger = Ledger()
    thread = threading.Thread(target=ledger.close)
    thread.start()

    assert not ledger.wait_for(1, timeout=60)
    thread.join()


def test_conversations_are_of_a_customer_service_with_tool_calls() -> None:
    turns = conversation(5)
    messages = [message for turn in turns for message in turn]

    assert [message["role"] for message in messages[:3]] == ["system", "user", "assistant"]
    calls = [m["tool_calls"][0]["id"] for m in messages if "tool_calls" in m]
    assert calls == [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert len(calls) == 2
    assert json.loads(json.dumps(turns)) == turns
    assert conversation(6) != turns


def test_a_line_of_the_worker_fits_into_a_pipe_in_one_piece() -> None:
    longest = max(len(turn) for n in range(20) for turn in conversation(n))
    marks = [Mark(256, 10**12 + n) for n in range(longest)]

    line = encode_line("case-256-9999999", marks)

    assert len(line) < 512  # POSIX's least PIPE_BUF
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_line(line) == ("case-256-9999999", marks)


def test_only_what_was_acknowledged_is_noted(store: SessionStore) -> None:
    ledger = Ledger()
    refused = threading.Event()
    append = store.append

    def unsure(session_id: str, messages: list[Any], **options: Any) -> object:
        saved = append(session_id, messages, **options)
        if session_id.startswith("desk"):
            refused.set()
            raise OutcomeUnknown("it may have happened")
        return saved

    store.append = unsure  # type: ignore[assignment,method-assign]
    with Crew(store, 2, ledger.note, unexpected):
        assert refused.wait(20)
        assert ledger.wait_for(ledger.total + 20, timeout=20)

    assert not any(session_id.startswith("desk") for session_id in ledger.acknowledged())
    result = count(ledger.acknowledged(), marks_found(store))
    assert result.passed
    assert result.unacknowledged > 0


def work_with_a_failing_writer(store: SessionStore, consequence: BaseException | None) -> None:
    failed = threading.Event()

    def fail(session_id: str, marks: object) -> None:
        raise ValueError("no ledger")

    with Crew(store, 2, fail, lambda _: failed.set()):
        assert failed.wait(20)
        if consequence is not None:
            raise consequence


@pytest.mark.parametrize("consequence", [None, DrillError("nothing was stored")])
def test_a_writer_that_fails_is_not_passed_over(
    store: SessionStore,
    consequence: BaseException | None,
) -> None:
    with pytest.raises(ValueError, match="no ledger"):
        work_with_a_failing_writer(store, consequence)


def test_an_interrupt_is_not_hidden_by_a_writer_that_failed(store: SessionStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        work_with_a_failing_writer(store, KeyboardInterrupt())


def forgetful(store: SessionStore, session_id: str) -> object:
    raise SessionNotFound("it was acknowledged and is gone", session_id=session_id)


def test_a_writer_that_misses_what_it_wrote_ends_part_1_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "PATIENCE", 10_000.0)
    monkeypatch.setattr(SessionStore, "load_session", forgetful)

    with pytest.raises(SessionNotFound, match="acknowledged and is gone"):
        crash_part(tmp_path / "s", SHORT, ignore)


# --- part 1 -------------------------------------------------------------------------------


def test_the_actor_is_crashed_and_nothing_is_lost(tmp_path: Path) -> None:
    shares: list[float] = []

    result = crash_part(tmp_path / "s", SHORT, lambda share, _: shares.append(share))

    assert result.passed
    assert result.count.acknowledged > 0
    assert (result.restarts, result.planned, len(result.ready)) == (2, 2, 2)
    assert all(seconds > 0 for seconds in result.ready)
    assert result.sessions == len(list((tmp_path / "s").glob("*.json")))
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert 2 / 3 <= shares[-1] < 1


def test_both_ways_to_crash_are_used(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crash_part(tmp_path / "s", SHORT, ignore)

    crashes = [r.exc_text or "" for r in caplog.records if "crashed in incarnation" in r.message]
    assert len(crashes) == 2
    assert "InjectedCrash: injected" in crashes[0]
    assert "InjectedCrash: behind a commit" in crashes[1]


@pytest.mark.parametrize("module", [crashing, killing], ids=["crashed", "killed"])
@pytest.mark.parametrize("harm", ["lose", "double"])
def test_harm_between_writing_and_counting_shows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    harm: str,
) -> None:
    folder = tmp_path / "s"

    def harmed(store: SessionStore) -> dict[str, list[Mark]]:
        with SessionStore.open(tmp_path / "copy", watch=False) as copy:
            for session in store.load_all():
                copy.save_session(session.session_id, session.messages)
            if harm == "lose":
                copy.delete_session("case-1-00001")
            else:
                copy.append("case-1-00001", copy.load_session("case-1-00001").messages[:1])
            return part.marks_found(copy)

    monkeypatch.setattr(module, "marks_found", harmed)
    carry_out = crash_part if module is crashing else kill_part

    result = carry_out(folder, SHORT, ignore)

    assert not result.passed
    if harm == "lose":
        assert {session_id for session_id, _ in result.count.lost} == {"case-1-00001"}
        assert result.count.doubled == ()
    else:
        assert result.count.doubled == (Mark(1, 1),)
        assert result.count.lost == ()


def test_writers_that_stand_still_end_the_drill(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "PATIENCE", 0.0)
    monkeypatch.setattr(Crew, "__enter__", lambda self: self)
    monkeypatch.setattr(Crew, "__exit__", lambda *_: None)

    with pytest.raises(DrillError, match="only 0 of 4 messages"):
        crash_part(tmp_path / "s", SHORT, ignore)


# --- part 2 -------------------------------------------------------------------------------


def test_a_process_is_killed_and_nothing_is_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Remembered(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Remembered)

    result = kill_part(tmp_path / "s", SHORT, ignore)

    (process,) = started
    assert process.returncode == -9
    assert process.pid != os.getpid()
    assert result.passed
    assert result.count.acknowledged >= SHORT.threads * 10
    # Each writer had one change on its way at most, of two messages at most.
    assert result.count.unacknowledged <= SHORT.threads * 2
    assert (result.restarts, result.planned, len(result.ready)) == (1, 1, 1)


def test_a_process_that_ends_by_itself_is_reported_with_what_it_said(tmp_path: Path) -> None:
    in_the_way = tmp_path / "s"
    in_the_way.write_text("")

    with pytest.raises(DrillError, match="wrote nothing: NotADirectoryError"):
        kill_part(in_the_way, SHORT, ignore)


def test_a_writer_that_fails_in_the_process_ends_it_and_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Site hooks run before the worker's own module: there is no conversation to be had.
    (tmp_path / "sitecustomize.py").write_text(
        "import sessionkeeper.cli.drill.conversations as c\n"
        "def conversation(number): raise ValueError('nobody calls')\n"
        "c.conversation = conversation\n",
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    with pytest.raises(DrillError, match="wrote nothing: ValueError: nobody calls"):
        kill_part(tmp_path / "s", SHORT, ignore)


def test_a_process_that_was_not_killed_is_no_drill(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It acknowledges enough and ends in order before it can be killed.
    program = "for n in range(1, 1000): print('[\"s\", [[1, %d]]]' % n)"
    ended: list[int] = []

    class Other(subprocess.Popen[bytes]):
        def __init__(self, _command: list[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", program], **options)

        def kill(self) -> None:
            ended.append(self.wait())

    monkeypatch.setattr(subprocess, "Popen", Other)
    monkeypatch.setattr(Ledger, "wait_for", lambda *_: True)

    with pytest.raises(DrillError, match="ended by itself: it said nothing"):
        kill_part(tmp_path / "s", SHORT, ignore)
    assert ended[0] == 0


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli.drill.worker", str(folder), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def counted(folder: Path, lines: list[bytes]) -> Count:
    acknowledged: dict[str, list[Mark]] = {}
    for line in lines:
        session_id, marks = decode_line(line)
        acknowledged.setdefault(session_id, []).extend(marks)
    with SessionStore.open(folder, read_only=True) as store:
        return count(acknowledged, marks_found(store))


def test_the_worker_ends_when_its_parent_has(folder: Path) -> None:
    with start_worker(folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = process.stdout.readline()
        process.stdin.close()
        lines = [first, *process.stdout]

    assert process.returncode == 0
    result = counted(folder, lines)
    assert result.passed
    assert result.unacknowledged == 0


def test_the_worker_says_at_once_what_is_acknowledged(folder: Path) -> None:
    with start_worker(folder) as process:
        assert process.stdout is not None
        wait_until(lambda: len(list(folder.glob("case-*.json"))) >= 5, timeout=30)
        process.kill()
        lines = list(process.stdout)

    result = counted(folder, lines)
    assert result.passed
    # For each writer one change of two messages at most was on its way.
    assert result.unacknowledged <= 2 * 2


# --- the command --------------------------------------------------------------------------

QUICK = ("--threads", "3", "--crashes", "1", "--seconds", "0.2")


def test_the_demo_passes_and_leaves_nothing_behind(
    run_process: RunProcess,
    tmp_path: Path,
) -> None:
    result = run_process("demo", *QUICK, "--json", env={"TMPDIR": str(tmp_path)})

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["passed"] is True
    crashed, killed = report["parts"]
    assert (crashed["part"], crashed["restarts"]) == ("actor crashed", 1)
    assert (killed["part"], killed["restarts"]) == ("process killed (SIGKILL)", 1)
    for found in (crashed, killed):
        assert found["acknowledged"] == found["found"] > 0
        assert found["lost"] == found["doubled"] == found["out_of_order"] == []
        assert len(found["ready_seconds"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_demo_with_a_path_keeps_its_folder(run: Run, folder: Path) -> None:
    result = run("demo", *QUICK, "--tree", "--path", folder)

    assert result.exit_code == 0
    tree, _, table = result.stdout.partition("part ")
    assert [line.split(":")[0].strip("├─└ ") for line in tree.splitlines()] == [
        "supervisor",
        "store",
        "checkpointer",
        "indexer",
        "texts",
        "watcher",
    ]
    assert "ready, epoch 2, 1 restarts" in tree
    assert "InjectedCrash" in tree
    lines = table.splitlines()
    for title in ("acknowledged", "found", "lost", "restarts", "time to ready"):
        assert title in lines[0]
    rows = [re.split(r" {2,}", line) for line in lines[2:4]]
    assert [row[0] for row in rows] == ["actor crashed", "process killed (SIGKILL)"]
    assert [row[1] == row[2] for row in rows] == [True, True]
    assert [row[3:6] for row in rows] == [["0", "0", "0"]] * 2
    assert "Every acknowledged message is there" in result.stdout
    for name in ("crashed", "killed"):
        with SessionStore.open(folder / name, read_only=True) as store:
            assert len(store) > 0


@pytest.mark.parametrize("before", [True, False])
def test_a_folder_that_holds_something_is_refused(
    run: Run,
    tmp_path: Path,
    before: bool,  # noqa: FBT001
) -> None:
    (tmp_path / "precious").write_text("")
    path = ("--path", tmp_path)

    result = run(*path, "demo") if before else run("demo", *path)

    assert result.exit_code == 2
    assert "empty or new folder" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious"]


def test_the_demo_does_not_touch_the_store_of_the_environment(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    filled: Path,
) -> None:
    folders: list[Path] = []

    def note(folder: Path, plan: Plan, watch: object) -> Part:
        folders.append(folder)
        passed = count({"s": [Mark(1, 1)]}, {"s": [Mark(1, 1)]})
        return Part("nothing", passed, 1, 0, 0, ())

    monkeypatch.setattr("sessionkeeper.cli.commands.demo.crash_part", note)
    monkeypatch.setattr("sessionkeeper.cli.commands.demo.kill_part", note)

    result = run("demo", env={"SESSIONKEEPER_PATH": str(filled)})

    assert result.exit_code == 0
    assert len(folders) == 2
    assert not any(folder.is_relative_to(filled) for folder in folders)


FINE = {"s": [Mark(1, 1), Mark(1, 2)]}


@pytest.mark.parametrize(
    ("found", "restarts", "ready", "status"),
    [
        (FINE, 2, (0.1, 0.2), 0),
        ({"s": [Mark(1, 1)]}, 2, (0.1, 0.2), 1),
        ({"s": [*FINE["s"], Mark(1, 2)]}, 2, (0.1, 0.2), 1),
        ({"s": FINE["s"][::-1]}, 2, (0.1, 0.2), 1),
        (FINE, 1, (0.1,), 1),
    ],
    ids=["fine", "lost", "doubled", "out of order", "not crashed as planned"],
)
def test_the_exit_status_tells_whether_all_was_there(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, list[Mark]],
    restarts: int,
    ready: tuple[float, ...],
    status: int,
) -> None:
    def fine(_folder: Path, _plan: Plan, _watch: object) -> Part:
        return Part("first", count(FINE, FINE), 1, 2, 2, (0.1, 0.1))

    def second(_folder: Path, _plan: Plan, _watch: object) -> Part:
        return Part("second", count(FINE, found), 1, restarts, 2, ready)

    monkeypatch.setattr("sessionkeeper.cli.commands.demo.crash_part", fine)
    monkeypatch.setattr("sessionkeeper.cli.commands.demo.kill_part", second)

    result = run("demo", "--json")

    assert result.exit_code == status
    report = json.loads(result.stdout)
    assert report["passed"] is (status == 0)
    assert [one["passed"] for one in report["parts"]] == [True, status == 0]


def test_a_drill_that_could_not_be_carried_out_is_a_failure(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_folder: Path, _plan: Plan, _watch: object) -> Part:
        raise DrillError("the actor was not back")

    monkeypatch.setattr("sessionkeeper.cli.commands.demo.crash_part", fail)

    result = run("demo")

    assert result.exit_code == 1
    assert "the actor was not back" in result.stderr
    assert result.stdout == ""
