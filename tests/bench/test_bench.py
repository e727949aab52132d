from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from bench import disk, gauges, million, openings, path, payloads, report, stalls, workloads
from bench.__main__ import main
from bench.disk import Here, Image, choose
from bench.floor import FloorTrial
from bench.kinds import Entrant, Figure, Gauge, Target, Workload
from bench.lengths import LengthSampler
from bench.machine import file_system
from bench.measure import Job, Outcome, Plan, Round, WorkNotDone, measure, run_round
from bench.peers import APPENDING, DISKCACHE, LOADING, SAVING, PeerSpec
from bench.restarts import OnPurpose, RestartSampler
from bench.results import Limit, gauge_rows_of, rows_of
from bench.runner import run, run_gauge, whole_round
from bench.trials import AppendTrial, SaveTrial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.measure import Sampler, Trial
    from bench.peers import SessionPeer

ROOT = Path(__file__).parents[2]
TINY = Plan(rounds=2, seconds=0.01, max_operations=100, warm_up=0.001)
NAMES = [
    "ask",
    "pipeline",
    "tell",
    "save",
    "save-sustained",
    "append",
    "load",
    "handle",
    "load-long",
    "load-part",
]
GAUGES = ["restart", "append-length", "open", "recovery", "open-killed", "restart-store"]
GAUGES += ["memory", "busy-load", "busy-search", "stall-save", "stall-load"]

# In the order of the page.
DOCUMENTED = ["ask", "pipeline", "tell", "save", "save-sustained", "append", "load", "handle"]
DOCUMENTED += [
    "load-long",
    "load-part",
    "append-length",
    "open",
    "open-killed",
    "recovery",
    "restart",
]
DOCUMENTED += ["restart-store", "memory", "busy-load", "busy-search", "stall-save", "stall-load"]
DOCUMENTED += ["growth", "replay"]

PEERS = {spec.name: spec for spec in (*APPENDING, *SAVING, *LOADING)}


class Counting:
    """A trial that counts what it did."""

    def __init__(self, operate: Callable[[], object] = lambda: None) -> None:
        self.operate = operate
        self.verified: list[int] = []
        self.workers = 0

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job | None]:
        del number, threads
        self.workers += 1
        yield Job(self.operate)

    def verify(self, operations: int) -> None:
        self.verified.append(operations)


# --- measuring ----------------------------------------------------------------------------


def test_a_round_ends_after_its_number_of_operations() -> None:
    done = run_round(Counting(), threads=4, seconds=60.0, max_operations=40)
    assert done.operations == 40
    assert 0 < done.seconds < 60


def test_one_call_may_make_many_operations() -> None:
    class Batches(Counting):
        @contextmanager
        def worker(self, number: int, threads: int) -> Iterator[Job | None]:
            del number, threads
            yield Job(self.operate, count=10)

    calls: list[int] = []
    done = run_round(Batches(lambda: calls.append(1)), 2, 60.0, 80)
    assert done.operations == 80
    assert len(calls) == 8


def test_a_round_ends_after_its_time() -> None:
    done = run_round(Counting(lambda: sleep(0.005)), 2, 0.03, 10_000)
    assert 2 <= done.operations <= 14
    assert done.seconds >= 0.03


def test_settling_counts_as_part_of_the_round() -> None:
    class Settling(Counting):
        @contextmanager
        def worker(self, number: int, threads: int) -> Iterator[Job | None]:
            del number, threads
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
        def worker(self, number: int, threads: int) -> Iterator[Job | None]:
            del threads
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


def outcome(*rates: int) -> Outcome[Round]:
    return Outcome([Round(rate, 1.0) for rate in rates])


@contextmanager
def never(folder: Path) -> Iterator[Any]:
    raise AssertionError(folder)
    yield  # type: ignore[unreachable]


def compared(*names: str, targets: tuple[Target, ...] = ()) -> Workload:
    entrants: tuple[Entrant[Trial], ...] = tuple(Entrant(name, never) for name in names)
    return Workload("save", "it", names[0], entrants, targets=targets)


def test_medians_spreads_and_ratios() -> None:
    outcomes = {"ours": outcome(300, 105, 200), "peer": outcome(10, 70, 40, 60)}
    ours, peer = rows_of(compared("ours", "peer"), 8, outcomes)
    assert (ours.rate, ours.slowest, ours.fastest) == (200, 105, 300)
    assert (peer.rate, peer.slowest, peer.fastest) == (50, 10, 70)
    # Each round is compared with the one beside it, not with the median of all.
    assert (peer.lowest_ratio, peer.ratio, peer.highest_ratio) == (1.5, 5.0, 30.0)
    assert (ours.ratio, ours.lowest_ratio, ours.highest_ratio) == (None, None, None)
    assert ours.micros == pytest.approx(40_000)
    assert (ours.operations, peer.rounds) == (605, (10, 70, 40, 60))


@pytest.mark.parametrize(
    ("target", "threads", "expected"),
    [
        (Target("peer", 4.9), 8, (4.9, True)),
        (Target("peer", 5.1), 8, (5.1, False)),
        (Target("peer", 4.9, threads=8), 8, (4.9, True)),
        (Target("peer", 4.9, threads=64), 8, (None, None)),
        (Target("other", 4.9), 8, (None, None)),
    ],
)
def test_a_target_is_met_or_not_or_not_concerned(
    target: Target,
    threads: int,
    expected: tuple[float | None, bool | None],
) -> None:
    outcomes = {"ours": outcome(50, 50), "peer": outcome(10, 10)}
    ours, peer = rows_of(compared("ours", "peer", targets=(target,)), threads, outcomes)
    assert (peer.target, peer.met) == expected
    assert (ours.target, ours.met) == (None, None)


def test_a_failed_peer_has_no_figures_but_the_reason() -> None:
    failed = Outcome([Round(5, 1.0)], failure="OSError: full")
    workload = compared("ours", "peer", targets=(Target("peer", 1.0),))
    ours, peer = rows_of(workload, 1, {"ours": outcome(10), "peer": failed})
    assert (peer.rate, peer.ratio, peer.failure) == (None, None, "OSError: full")
    assert (peer.target, peer.met) == (1.0, None)
    assert ours.rate == 10


def test_without_the_subject_there_are_no_ratios() -> None:
    rows = rows_of(compared("ours", "peer"), 1, {"peer": outcome(10)})
    assert [row.ratio for row in rows] == [None, None]


FIGURES = (
    Figure("p50", Limit("less than", 0.005)),
    Figure("p99"),
    Figure("longest", Limit("less than", 0.1)),
)


def delayed(*entrants: Entrant[Sampler]) -> Gauge:
    return Gauge("wait", "it", entrants[0].name, entrants, FIGURES, plan="memory")


def test_a_figure_may_be_compared_with_that_of_the_subject() -> None:
    figure = Figure("p50", Limit("at most times", 1.5), of="long")
    entrants: tuple[Entrant[Sampler], ...] = tuple(
        Entrant(name, never) for name in ("short", "middle", "long")
    )
    gauge = Gauge("wait", "it", "short", entrants, (figure,), plan="memory")

    def told(long: list[list[float]]) -> list[tuple[float | None, bool | None]]:
        samples = {"short": [[1.0], [2.0], [4.0]], "middle": [[1.0]], "long": long}
        rows = gauge_rows_of(gauge, {name: Outcome(list(each)) for name, each in samples.items()})
        return [(row.ratio, row.met) for row in rows]

    assert told([[3.0], [2.0], [6.0]]) == [(None, None), (1.0, None), (1.5, True)]
    assert told([[3.0], [2.0], [6.1]])[-1] == (1.525, False)
    assert told([])[-1] == (None, None)


@pytest.mark.parametrize(("rate", "met"), [(99.0, False), (100.0, True), (101.0, True)])
def test_a_rate_has_a_lower_limit(
    rate: float,
    met: bool,  # noqa: FBT001 - a parameter of the test
    capsys: pytest.CaptureFixture[str],
) -> None:
    figure = Figure("rate", Limit("at least", 100.0), unit="MB/s")
    gauge = Gauge("recovery", "it", "ours", (Entrant("ours", never),), (figure,), plan="memory")
    [row] = gauge_rows_of(gauge, {"ours": Outcome([[rate]])})
    assert row.met is met
    report.print_targets([], [row])
    verdict = "met" if met else "MISSED"
    figures = f"{rate:.2f} MB/s ({rate:.2f} - {rate:.2f})"
    line = f"{verdict}: recovery: ours: rate {figures}, target >= 100 MB/s"
    assert capsys.readouterr().out.splitlines()[-1] == line


def waits(
    *rounds: Sequence[float],
    failure: str | None = None,
) -> dict[str, Outcome[Sequence[float]]]:
    return {"ours": Outcome(list(rounds), failure), "peer": Outcome(list(rounds))}


def test_delays_are_told_by_round_and_only_the_subject_has_limits() -> None:
    workload = delayed(Entrant("ours", never), Entrant("peer", never))
    slow = [0.001] * 150 + [0.002] * 47 + [0.3] * 3
    rows = gauge_rows_of(workload, waits([0.001, 0.003, 0.002], slow, [0.004]))
    ours = {row.figure: row for row in rows if row.peer == "ours"}
    assert (ours["p50"].lowest, ours["p50"].value, ours["p50"].highest) == (0.001, 0.002, 0.004)
    assert ours["p99"].rounds == (0.003, 0.3, 0.004)
    assert ours["longest"].rounds == (0.003, 0.3, 0.004)
    assert ours["p50"].samples == 204
    assert [(row.figure, row.limit and row.limit.value, row.met) for row in rows] == [
        ("p50", 0.005, True),
        ("p99", None, None),
        ("longest", 0.1, True),
        ("p50", None, None),
        ("p99", None, None),
        ("longest", None, None),
    ]
    missed = gauge_rows_of(workload, waits([0.2], [0.2]))
    assert [row.met for row in missed[:3]] == [False, None, False]


def test_delays_of_a_failed_peer_are_no_figures() -> None:
    workload = delayed(Entrant("ours", never), Entrant("peer", never))
    rows = gauge_rows_of(workload, waits([0.001], failure="OSError: full"))
    assert {row.failure for row in rows[:3]} == {"OSError: full"}
    assert [row.met for row in rows[:3]] == [None, None, None]
    assert rows[3].value == 0.001


def test_all_targets_are_told_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    targets = (Target("peer", 4.0), Target("other", 9.0), Target("bad", 2.0))
    outcomes = {"ours": outcome(50, 60), "peer": outcome(10, 10), "other": outcome(10, 10)}
    rows = rows_of(compared("ours", "peer", "other", "bad", targets=targets), 8, outcomes)
    delays = gauge_rows_of(delayed(Entrant("ours", never)), waits([0.007]))
    delays += gauge_rows_of(delayed(Entrant("bad", never)), {})[:1]
    report.print_targets(rows, delays)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "met: save, 8 threads: ours: 5.50 x peer (5.00 - 6.00), target >= 4.0 x peer",
        "MISSED: save, 8 threads: ours: 5.50 x other (5.00 - 6.00), target >= 9.0 x other",
        "NOT MEASURED: save, 8 threads: ours: ?, target >= 2.0 x bad",
        "MISSED: wait: ours: p50 7.00 ms (7.00 - 7.00), target < 5 ms",
        "met: wait: ours: longest 7.00 ms (7.00 - 7.00), target < 100 ms",
        "NOT MEASURED: wait: bad: p50 ?, target < 5 ms",
    ]
    report.print_targets([], [])
    assert capsys.readouterr().out == ""


# --- peers and workloads ------------------------------------------------------------------


@pytest.mark.parametrize("size", [400, 1600, 4096])
@pytest.mark.parametrize("number", range(6))
def test_messages_have_their_size(number: int, size: int) -> None:
    assert len(orjson.dumps(payloads.message(number, size))) == size


@pytest.mark.parametrize("spec", PEERS.values(), ids=lambda spec: spec.name)
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


@pytest.mark.parametrize("spec", APPENDING, ids=lambda spec: spec.name)
def test_every_store_counts_what_is_appended(spec: PeerSpec, tmp_path: Path) -> None:
    if spec.missing:
        pytest.skip(f"{spec.missing} is not installed")
    peer = spec.open(tmp_path)
    try:
        with peer.client() as client:
            for number in range(6):
                client.append(f"s{number % 2}", payloads.message(number))
        assert peer.count_messages() == 6
    finally:
        peer.close()


@pytest.mark.parametrize("workload", workloads.workloads(), ids=lambda workload: workload.name)
def test_every_workload_is_done_by_all(workload: Workload, tmp_path: Path) -> None:
    rows = run(workload, 3, TINY, Here(tmp_path))
    assert [row.peer for row in rows] == [entrant.name for entrant in workload.entrants]
    assert workload.subject in [row.peer for row in rows]
    for row in rows:
        assert row.failure is None
        assert row.missing is not None or (row.rate is not None and row.operations > 0)
        assert (row.durable is not None) == workload.writes


@pytest.mark.parametrize("workload", gauges.gauges(), ids=lambda workload: workload.name)
def test_every_gauge_is_read_for_all(workload: Gauge, tmp_path: Path) -> None:
    rows = run_gauge(workload, TINY, Here(tmp_path))
    assert workload.subject in [row.peer for row in rows]
    assert len(rows) == len(workload.entrants) * len(workload.figures)
    for row in rows:
        assert row.failure is None
        if row.missing is not None:
            assert row.value is None
            continue
        assert row.value is not None
        assert row.value > 0
        assert len(row.rounds) == TINY.rounds
        assert row.samples >= TINY.rounds


def test_a_whole_round_lasts_until_the_store_is_closed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    now = [100.0]
    monkeypatch.setattr("bench.runner.perf_counter", lambda: now[0])
    trial = Counting()
    closed_after: list[int] = []

    @contextmanager
    def start(folder: Path) -> Iterator[Counting]:
        assert folder == tmp_path
        yield trial
        now[0] += 60.0
        closed_after.append(len(trial.verified))

    done = whole_round(Entrant("it", start), tmp_path, 2, 60.0, 10)
    assert done.operations == 10
    assert 60 < done.seconds < 120
    assert closed_after == [0]
    assert trial.verified == [10]


def test_whole_rounds_begin_in_empty_folders_and_leave_nothing(tmp_path: Path) -> None:
    seen: list[Path] = []

    @contextmanager
    def start(folder: Path) -> Iterator[Counting]:
        assert not list(folder.iterdir())
        (folder / "large").touch()
        seen.append(folder)
        yield Counting()

    workload = Workload("save", "it", "it", (Entrant("it", start),), whole=True)
    [row] = run(workload, 1, TINY, Here(tmp_path))
    assert row.failure is None
    assert len(row.rounds) == TINY.rounds
    assert len(set(seen)) == TINY.rounds + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [DISKCACHE, "per-file, fsync", "sessionkeeper"])
def test_what_a_peer_that_is_closed_holds_can_be_counted(name: str, tmp_path: Path) -> None:
    spec = PEERS[name]
    if spec.missing:
        pytest.skip(f"{spec.missing} is not installed")
    peer = spec.open(tmp_path)
    try:
        with peer.client() as client:
            client.save("a", payloads.session())
    finally:
        peer.close()
    assert peer.count_sessions() == 1


# --- other samplers -----------------------------------------------------------------------


@pytest.mark.parametrize("gathered", [False, True])
def test_one_thread_does_the_work_of_all_at_the_floor(
    gathered: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    trial = FloorTrial(tmp_path, gathered=gathered)
    try:
        assert run_round(trial, 8, 60.0, 80).operations == 80
        trial.verify(80)
        (tmp_path / "floor").write_bytes(b"")
        with pytest.raises(WorkNotDone):
            trial.verify(80)
    finally:
        trial.close()


class Lists:
    """Sessions in lists."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[Any]] = {}
        self.lengths: list[int] = []

    @contextmanager
    def client(self) -> Iterator[Lists]:
        yield self

    def save(self, session_id: str, messages: Sequence[Any]) -> None:
        self.sessions[session_id] = list(messages)

    def append(self, session_id: str, message: Any) -> None:
        self.lengths.append(len(self.sessions[session_id]))
        self.sessions[session_id].append(message)

    def load(self, session_id: str) -> list[Any]:
        return self.sessions[session_id]

    def count_sessions(self) -> int:
        return len(self.sessions)

    def count_messages(self) -> int:
        return sum(map(len, self.sessions.values()))

    def close(self) -> None:
        pass


def test_sessions_that_have_grown_too_long_are_replaced() -> None:
    peer = Lists()
    sampler = LengthSampler(peer, length=4)
    assert len(sampler.sample(TINY, 60.0)) == TINY.max_operations
    assert len(sampler.sample(TINY, 60.0)) == TINY.max_operations
    assert peer.lengths == [4, 5] * TINY.max_operations


def test_appends_that_are_forgotten_are_found_out() -> None:
    class Forgetful(Lists):
        def append(self, session_id: str, message: Any) -> None:
            pass

    with pytest.raises(WorkNotDone):
        LengthSampler(Forgetful(), length=4).sample(TINY, 0.0)


def test_sessions_that_are_not_there_after_opening_are_found_out(tmp_path: Path) -> None:
    assert openings.opening(tmp_path, 0) > 0
    with pytest.raises(WorkNotDone, match="0 sessions"):
        openings.opening(tmp_path, 1)
    with pytest.raises(WorkNotDone, match="0 messages"):
        openings.opening(tmp_path, 0, 1)


def test_the_store_that_is_read_back_was_not_closed(tmp_path: Path) -> None:
    sampler = openings.ReplaySampler(tmp_path)
    [rate] = sampler.sample(TINY, 0.0)
    assert rate > 0
    journal = tmp_path / "crashed" / ".sessionkeeper" / "journal"
    assert sum(path.stat().st_size for path in journal.iterdir()) > TINY.session_bytes


def test_a_loop_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(stalls, "perf_counter", lambda: now[0])

    async def block() -> str:
        now[0] += 2.0
        return "done"

    async def scenario() -> tuple[list[float], str]:
        return await stalls.watched(block)

    delays, done = asyncio.run(scenario())
    assert done == "done"
    assert max(delays) == pytest.approx(2.0 - stalls.TICK)


def test_a_session_that_comes_back_short_is_found_out(tmp_path: Path) -> None:
    class Forgetful(stalls.IdleLoop):
        async def load(self) -> list[payloads.Message]:
            return []

    sampler = stalls.StallSampler(Forgetful(tmp_path), loading=True)
    with pytest.raises(WorkNotDone):
        sampler.sample(TINY, 0.0)


def test_a_crash_is_logged_nowhere_and_logging_is_as_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("sessionkeeper")

    class Logged:
        crashes = 0

        def crash(self) -> None:
            self.crashes += 1
            logger.error("it died", exc_info=OnPurpose("on purpose"))

        def close(self) -> None:
            pass

    before = logger.handlers[:], logger.propagate
    peer = Logged()
    assert len(RestartSampler(peer).sample(TINY, 60.0)) == peer.crashes == TINY.max_operations
    assert caplog.records == []
    assert (logger.handlers, logger.propagate) == before


def test_an_absent_package_is_a_row_and_no_error(tmp_path: Path) -> None:
    spec = PeerSpec("other", durable=True, open=never, package="no_such_package")  # type: ignore[arg-type]
    assert spec.missing == "no_such_package"
    workload = Workload("save", "it", "other", (Entrant("other", never, missing=spec.missing),))
    [row] = run(workload, 1, TINY, Here(tmp_path))
    assert (row.missing, row.failure, row.rate) == ("no_such_package", None, None)


def test_a_peer_that_does_not_open_is_a_failure(tmp_path: Path) -> None:
    workload = Workload("save", "it", "other", (Entrant("other", never),))
    [row] = run(workload, 1, TINY, Here(tmp_path))
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


def test_an_image_is_a_journaled_file_system_that_goes_away(tmp_path: Path) -> None:
    chosen = choose(tmp_path, 64 * 2**20, here=False)
    if not isinstance(chosen, Image):
        pytest.skip(chosen.description)
    assert chosen.description.startswith("ext4 with journal, an image of ")
    mounted: list[Path] = []

    def work() -> None:
        with chosen.fresh() as folder:
            (folder / "file").touch()
            disk.settle(folder)
            assert folder.parent.is_mount()
            mounted.append(folder.parent)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not mounted[0].is_mount()
    assert not list(tmp_path.iterdir())


def test_an_image_goes_away_though_a_file_in_it_is_open(tmp_path: Path) -> None:
    chosen = choose(tmp_path, 64 * 2**20, here=False)
    if not isinstance(chosen, Image):
        pytest.skip(chosen.description)
    with ExitStack() as stack:
        with chosen.fresh() as folder:
            stack.enter_context((folder / "file").open("w"))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("os.geteuid", lambda: 1000, "only root can mount one"),
        ("shutil.which", lambda _: None, "there is no mkfs.ext4"),
        ("sys.platform", "other", "only on Linux"),
    ],
)
def test_without_an_image_the_reason_is_told(
    attribute: str,
    value: object,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: f"/sbin/{tool}")
    monkeypatch.setattr(attribute, value)
    chosen = choose(tmp_path, 64 * 2**20, here=False)
    assert isinstance(chosen, Here)
    assert chosen.description.endswith(f"(no image: {reason})")
    with chosen.fresh() as folder:
        assert folder.parent == tmp_path
    assert folder.is_dir()


def test_an_image_that_cannot_be_mounted_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def refuse(*command: object) -> None:
        raise subprocess.CalledProcessError(32, [str(command[0])], stderr="mount: denied.\n")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: f"/sbin/{tool}")
    monkeypatch.setattr("bench.disk._run", refuse)
    chosen = choose(tmp_path, 64 * 2**20, here=False)
    assert chosen.description.endswith("(no image: mount: denied.)")
    assert not list(tmp_path.iterdir())


def test_a_round_that_is_interrupted_leaves_no_thread_behind() -> None:
    begun = threading.Event()
    before = threading.active_count()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def operate() -> None:
        if not begun.is_set():
            begun.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            run_round(Counting(operate), 4, 60.0, 10**12)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert threading.active_count() == before


# --- the command line ---------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--seconds", "0.01"]
    command += [
        "--only",
        "load",
        "--threads",
        "1",
        "--path",
        "work",
        "--json",
        "out.json",
        "--here",
    ]
    environment = {"PYTHONPATH": f"{ROOT / 'lib'}:{ROOT}"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=110,
        check=True,
    )
    assert done.stderr == ""
    assert "orjson.loads" in done.stdout
    assert "python -m bench --quick" in done.stdout
    assert "no image: not wanted" in done.stdout
    assert not list((tmp_path / "work").iterdir())

    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert set(written) == {"machine", "plans", "results", "gauges", "growth"}
    assert {"date", "command", "cpus", "python", "sqlite", "file_system"} <= set(written["machine"])
    assert {row["workload"] for row in written["results"]} == {"load"}
    assert {row["threads"] for row in written["results"]} == {1}
    for row in written["results"]:
        assert {"peer", "durable", "rate", "slowest", "fastest", "ratio", "versus"} <= set(row)
        assert {"lowest_ratio", "highest_ratio", "target", "met"} <= set(row)
    assert written["gauges"] == []


def test_gauges_are_printed_and_written_too(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.json"
    command = ["--quick", "--rounds", "1", "--seconds", "0.01", "--only", "restart", "--here"]
    assert main([*command, "--path", str(tmp_path / "work"), "--json", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "GenServer, supervised" in printed
    assert ": restart: GenServer, supervised: p50 " in printed[printed.index("targets") :]
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["results"] == []
    assert {row["figure"] for row in written["gauges"]} == {"p50", "p99"}
    assert {"value", "unit", "lowest", "highest", "limit", "met"} <= set(written["gauges"][0])
    assert written["gauges"][0]["limit"] == {"sense": "less than", "value": 0.005}


def test_a_failed_peer_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    broken = Workload("save", "it", "ours", (Entrant("ours", never),))
    monkeypatch.setattr("bench.__main__.workloads", lambda: (broken,))
    monkeypatch.setattr("bench.__main__.gauges", tuple)
    monkeypatch.setattr("bench.__main__.run_growth", lambda *_: iter(()))
    assert main(["--path", str(tmp_path), "--threads", "1", "--here"]) == 1
    assert "FAILED" in capsys.readouterr().out
    monkeypatch.setattr("bench.__main__.workloads", tuple)
    monkeypatch.setattr("bench.__main__.gauges", lambda: (delayed(Entrant("ours", never)),))
    assert main(["--path", str(tmp_path), "--here"]) == 1
    assert "AssertionError" in capsys.readouterr().out
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
    assert [workload.name for workload in gauges.gauges()] == GAUGES


def test_every_kind_of_work_and_every_option_is_on_the_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    first_column = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert re.findall(r"`([a-z-]+)`", "".join(first_column)) == DOCUMENTED
    assert set(DOCUMENTED) == {*NAMES, *GAUGES, "growth", "replay"}
    commands = {"bench": main, "bench.million": million.main, "bench.path": path.main}
    for module, run_it in commands.items():
        with pytest.raises(SystemExit):
            run_it(["--help"])
        known = capsys.readouterr().out
        used = re.findall(rf"python -m {module}((?: [^\s`#]+)*)", page)
        assert used, module
        for option in re.findall(r"--[a-z]+", "".join(used)):
            assert option in known, f"{module} {option}"


def test_the_garbage_of_others_is_not_looked_through_in_a_round(tmp_path: Path) -> None:
    frozen: list[int] = []
    trial = Counting(lambda: frozen.append(gc.get_freeze_count()))

    @contextmanager
    def start(folder: Path) -> Iterator[Counting]:
        del folder
        yield trial

    before = gc.get_freeze_count()
    run(Workload("save", "it", "it", (Entrant("it", start),)), 1, TINY, Here(tmp_path))
    assert min(frozen) > before
    assert gc.get_freeze_count() == 0


def test_the_path_of_a_change_is_told_by_step_and_by_thread(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path.main(["--path", str(tmp_path), "--here", "--turns", "2"])
    lines = capsys.readouterr().out.splitlines()
    figures = {line[:32].strip(): line[32:].split() for line in lines if line[:1].islower()}
    for name in ("apply", "commit: files, journal, sync", "publish", "callers", "store-1"):
        assert len(figures[name]) == 2
        assert all(float(figure) > 0 for figure in figures[name]), name
    assert list(tmp_path.iterdir()) == []
