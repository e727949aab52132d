from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import orjson
import pytest

from bench import payloads, workloads
from bench.__main__ import main
from bench.machine import file_system
from bench.measure import Job, Outcome, Plan, Round, WorkNotDone, measure, run_round
from bench.peers import SESSION_PEERS, PeerSpec
from bench.results import rows_of
from bench.runner import run
from bench.workloads import AppendTrial, Entrant, SaveTrial, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Trial
    from bench.peers import SessionPeer

ROOT = Path(__file__).parents[2]
TINY = Plan(rounds=2, seconds=0.01, max_operations=100, warm_up=0.001)
NAMES = ["ask", "tell", "save", "append", "load", "handle"]


class Counting:
    """A trial that counts what it did."""

    def __init__(self, operate: Callable[[], object] = lambda: None) -> None:
        self.operate = operate
        self.verified: list[int] = []
        self.workers = 0

    @contextmanager
    def worker(self, number: int) -> Iterator[Job]:
        del number
        self.workers += 1
        yield Job(self.operate)

    def verify(self, operations: int) -> None:
        self.verified.append(operations)


# --- measuring ----------------------------------------------------------------------------


def test_a_round_ends_after_its_number_of_operations() -> None:
    done = run_round(Counting(), threads=4, seconds=60.0, max_operations=40)
    assert done.operations == 40
    assert 0 < done.seconds < 60


def test_a_round_ends_after_its_time() -> None:
    done = run_round(Counting(lambda: sleep(0.005)), 2, 0.03, 10_000)
    assert 2 <= done.operations <= 14
    assert done.seconds >= 0.03


def test_settling_counts_as_part_of_the_round() -> None:
    class Settling(Counting):
        @contextmanager
        def worker(self, number: int) -> Iterator[Job]:
            del number
            yield Job(lambda: None, lambda: sleep(0.05))

    assert run_round(Settling(), 1, 0.001, 10).seconds >= 0.05


def test_rounds_are_interleaved_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    trials: dict[str, Trial] = {
        name: Counting(lambda name=name: order.append(name))  # type: ignore[misc]
        for name in ("a", "b", "c")
    }
    plan = Plan(rounds=2, seconds=1.0, max_operations=1, warm_up=1.0)
    outcomes = measure(trials, 1, plan)
    assert order == [*"abc", *"bca", *"cab"]
    assert [len(outcome.rounds) for outcome in outcomes.values()] == [2, 2, 2]


def test_every_round_is_verified_with_the_operations_of_all_so_far() -> None:
    trial = Counting()
    measure({"a": trial}, 2, Plan(rounds=2, seconds=1.0, max_operations=10, warm_up=1.0))
    assert trial.verified == [10, 20, 30]


def test_a_worker_that_raises_is_a_failure_and_the_others_go_on() -> None:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    outcomes = measure({"bad": Counting(fail), "good": Counting()}, 8, TINY)
    assert outcomes["bad"].failure == "ZeroDivisionError: on purpose"
    assert outcomes["bad"].rounds == []
    assert outcomes["good"].failure is None
    assert len(outcomes["good"].rounds) == 2


def test_a_worker_that_cannot_begin_calls_the_others_off() -> None:
    class Late(Counting):
        @contextmanager
        def worker(self, number: int) -> Iterator[Job]:
            if number == 0:
                raise ConnectionError("no connection")
            yield Job(self.operate)

    with pytest.raises(ConnectionError, match="no connection"):
        run_round(Late(), 8, 60.0, 10**9)


def test_work_that_was_not_done_is_a_failure() -> None:
    class Lazy(Counting):
        def verify(self, operations: int) -> None:
            raise WorkNotDone(f"0 sessions are there, not {operations}")

    outcome = measure({"lazy": Lazy()}, 1, TINY)["lazy"]
    assert outcome.failure is not None
    assert outcome.failure.startswith("WorkNotDone")
    assert outcome.rounds == []


@pytest.mark.parametrize("trial", [SaveTrial, AppendTrial])
def test_a_store_that_forgets_is_found_out(
    tmp_path: Path,
    trial: Callable[[SessionPeer], Trial],
) -> None:
    class Forgetful:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        @contextmanager
        def client(self) -> Iterator[Forgetful]:
            yield self

        def save(self, session_id: str, messages: object) -> None:
            pass

        def append(self, session_id: str, message: object) -> None:
            pass

        def load(self, session_id: str) -> list[object]:
            raise KeyError(session_id)

        def count_sessions(self) -> int:
            return 0

        def count_messages(self) -> int:
            return 0

    outcome = measure({"it": trial(Forgetful(tmp_path))}, 2, TINY)["it"]  # type: ignore[arg-type]
    assert outcome.failure is not None
    assert "are there, not" in outcome.failure


# --- figures ------------------------------------------------------------------------------


def outcome(*rates: int) -> Outcome:
    return Outcome([Round(rate, 1.0) for rate in rates])


@contextmanager
def never(folder: Path) -> Iterator[Trial]:
    raise AssertionError(folder)
    yield  # type: ignore[unreachable]


def compared(*names: str) -> Workload:
    return Workload("save", "it", names[0], tuple(Entrant(name, never) for name in names))


def test_medians_spreads_and_ratios() -> None:
    outcomes = {"ours": outcome(300, 100, 200), "peer": outcome(10, 70, 40, 60)}
    ours, peer = rows_of(compared("ours", "peer"), 8, outcomes)
    assert (ours.rate, ours.slowest, ours.fastest) == (200, 100, 300)
    assert (peer.rate, peer.slowest, peer.fastest) == (50, 10, 70)
    assert (ours.ratio, peer.ratio) == (None, 4.0)
    assert ours.micros == pytest.approx(40_000)
    assert (ours.operations, peer.rounds) == (600, (10, 70, 40, 60))


def test_a_failed_peer_has_no_figures_but_the_reason() -> None:
    failed = Outcome([Round(5, 1.0)], failure="OSError: full")
    ours, peer = rows_of(compared("ours", "peer"), 1, {"ours": outcome(10), "peer": failed})
    assert (peer.rate, peer.ratio, peer.failure) == (None, None, "OSError: full")
    assert ours.rate == 10


def test_without_the_subject_there_are_no_ratios() -> None:
    rows = rows_of(compared("ours", "peer"), 1, {"peer": outcome(10)})
    assert [row.ratio for row in rows] == [None, None]


# --- peers and workloads ------------------------------------------------------------------


@pytest.mark.parametrize("size", [400, 1600, 4096])
@pytest.mark.parametrize("number", range(6))
def test_messages_have_their_size(number: int, size: int) -> None:
    assert len(orjson.dumps(payloads.message(number, size))) == size


@pytest.mark.parametrize("spec", SESSION_PEERS, ids=lambda spec: spec.name)
def test_every_store_keeps_what_it_is_given(spec: PeerSpec, tmp_path: Path) -> None:
    if spec.missing:
        pytest.skip(f"{spec.missing} is not installed")
    peer = spec.open(tmp_path)
    try:
        with peer.client() as client:
            client.save("a", payloads.session())
            client.save("a", payloads.session(1))
            assert client.load("a") == payloads.session(1)
        assert peer.count_sessions() == 1
    finally:
        peer.close()


@pytest.mark.parametrize("workload", workloads.workloads(), ids=lambda workload: workload.name)
def test_every_workload_is_done_by_all(workload: Workload, tmp_path: Path) -> None:
    rows = run(workload, 3, TINY, tmp_path)
    assert [row.peer for row in rows] == [entrant.name for entrant in workload.entrants]
    assert workload.subject in [row.peer for row in rows]
    for row in rows:
        assert row.failure is None
        assert row.missing is not None or (row.rate is not None and row.operations > 0)
        assert (row.durable is not None) == workload.writes


def test_an_absent_package_is_a_row_and_no_error(tmp_path: Path) -> None:
    spec = PeerSpec("other", durable=True, open=never, package="no_such_package")  # type: ignore[arg-type]
    assert spec.missing == "no_such_package"
    workload = Workload("save", "it", "other", (Entrant("other", never, missing=spec.missing),))
    [row] = run(workload, 1, TINY, tmp_path)
    assert (row.missing, row.failure, row.rate) == ("no_such_package", None, None)


def test_a_peer_that_does_not_open_is_a_failure(tmp_path: Path) -> None:
    workload = Workload("save", "it", "other", (Entrant("other", never),))
    [row] = run(workload, 1, TINY, tmp_path)
    assert row.failure is not None
    assert row.failure.startswith("AssertionError")


# --- the machine --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "journal", "expected"),
    [
        ("ext4", True, "ext4 with journal"),
        ("ext4", False, "ext4 WITHOUT journal"),
        ("tmpfs", False, "tmpfs"),
    ],
)
def test_the_file_system_is_named(
    point: str,
    journal: bool,  # noqa: FBT001 - a parameter of the test
    expected: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    lines = ["/dev/sdx1 / ext4 rw 0 0\n", f"/dev/sdx9 {escaped} {point} rw 0 0\n"]
    proc = tmp_path / "proc"
    (proc / "fs" / "ext4" / "sdx9").mkdir(parents=True)
    (proc / "fs" / "jbd2" / ("sdx9-8" if journal else "sdx1-8")).mkdir(parents=True)
    (proc / "mounts").write_text("".join(lines), encoding="utf-8")
    assert file_system(folder, proc).startswith(expected)


# --- the command line ---------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--seconds", "0.01"]
    command += ["--only", "load", "--threads", "1", "--path", "work", "--json", "out.json"]
    environment = {"PYTHONPATH": f"{ROOT / 'lib'}:{ROOT}"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert "orjson.loads" in done.stdout
    assert "python -m bench --quick" in done.stdout
    assert not list((tmp_path / "work").iterdir())

    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert set(written) == {"machine", "plans", "results"}
    assert {"date", "command", "cpus", "python", "sqlite", "file_system"} <= set(written["machine"])
    assert {row["workload"] for row in written["results"]} == {"load"}
    assert {row["threads"] for row in written["results"]} == {1}
    for row in written["results"]:
        assert {"peer", "durable", "rate", "slowest", "fastest", "ratio", "versus"} <= set(row)


def test_a_failed_peer_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    broken = Workload("save", "it", "ours", (Entrant("ours", never),))
    monkeypatch.setattr("bench.__main__.workloads", lambda: (broken,))
    assert main(["--path", str(tmp_path), "--threads", "1"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [["--only", "nap"], ["--threads", "0"], ["--threads", "x"], ["--seconds", "0"]],
)
def test_what_makes_no_sense_is_refused(
    wrong: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(wrong)
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err


def test_the_workloads_have_the_names_of_the_documentation() -> None:
    assert [workload.name for workload in workloads.workloads()] == NAMES
