"""The cases of OTP's supervisor_SUITE."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from otp_kit import (
    PATIENCE,
    Bench,
    Boom,
    Gate,
    Lab,
    boom,
    crash,
    finish,
    raises_once,
)

from sessionkeeper.otp import (
    Backoff,
    CallTimeout,
    ChildSpec,
    ExitReason,
    InvalidChildSpec,
    ServerDown,
    ServerRef,
    StartError,
    SupervisorEvent,
    start_supervisor,
)
from sessionkeeper.otp.supervisor import Supervisor

if TYPE_CHECKING:
    from sessionkeeper.otp.child_spec import Restart
    from sessionkeeper.otp.supervisor import Strategy

NORMAL = ExitReason.NORMAL
SHUTDOWN = ExitReason.SHUTDOWN


# -- starting


def test_sup_start_normal(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), bench.child("b"))
    assert [info.state for info in sup.which_children()] == ["running", "running"]
    assert bench["a"].call("hello") == "hello"
    assert sup.state == "ready"


def test_events_tell_which_incarnation_they_are_about(bench: Bench) -> None:
    bench.supervise(bench.child("a"))
    crash(bench["a"])
    bench.events.wait("child_restarted")
    assert [(event.kind, event.epoch, event.delay) for event in bench.events.items] == [
        ("child_started", 1, 0.0),
        ("child_exited", 1, 0.0),
        ("child_restarting", 1, 0.0),
        ("child_restarted", 2, 0.0),
    ]


def test_nobody_needs_to_listen_to_events(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), on_event=None)
    assert (sup.hooks, sup.hook_failures) == ([], 0)


def test_a_child_that_is_ignored_later_is_not_reported_as_restarted(bench: Bench) -> None:
    ref = bench.ref("once")

    def start() -> ServerRef | None:
        if ref.epoch == 1:
            return None
        ref.start(Lab)
        return ref

    sup = bench.supervise(ChildSpec("once", start))
    crash(ref)
    bench.events.wait("child_restarting", "once")
    while (info := sup.which_children()[0]).state == "restarting":
        pass
    assert (info.state, info.restarts) == ("ignored", 0)
    assert bench.events.count("child_restarted") == 0


def test_start_supervisor_returns_a_running_root(bench: Bench) -> None:
    ended: list[ExitReason] = []
    sup = start_supervisor("root", [bench.child("a")], on_terminal=ended.append)
    assert sup.supervisor is None
    assert bench["a"].supervisor is sup
    assert sup.stop()
    assert ended == [SHUTDOWN]


def test_sup_start_ignore_child(bench: Bench) -> None:
    def ignore() -> None:
        return None

    sup = bench.supervise(
        bench.child("a"), ChildSpec("b", ignore), ChildSpec("c", ignore, "temporary")
    )
    # As in OTP, an ignored child keeps its specification, unless it is temporary.
    assert [(i.id, i.state, i.ref is None) for i in sup.which_children()] == [
        ("a", "running", False),
        ("b", "ignored", True),
    ]
    assert sup.count_children().active == 1


def test_sup_start_fail_stops_those_before_in_reverse(bench: Bench) -> None:
    failing = bench.child("c", init=boom)
    sup = bench.plan("sup", [bench.child("a"), bench.child("b"), failing, bench.child("d")])
    with pytest.raises(StartError, match="child 'c' did not start") as caught:
        sup.boot()
    root: BaseException | None = caught.value
    while root is not None and root.__cause__ is not None:
        root = root.__cause__
    assert isinstance(root, Boom)
    assert [name for name, _ in bench.noted("terminate")] == ["b", "a"]
    assert [name for name, _ in bench.noted("init")] == ["a", "b", "c"]
    assert bench["a"].state == bench["b"].state == sup.state == "stopped"


@pytest.mark.parametrize("returned", [42, "pid", object()])
def test_sup_start_error_return(bench: Bench, returned: Any) -> None:
    sup = bench.plan("sup", [ChildSpec("a", lambda: returned)])
    with pytest.raises(StartError, match="returned"):
        sup.boot()


def test_sup_start_error_return_of_a_handle_that_was_not_started(bench: Bench) -> None:
    idle = bench.ref("idle")
    sup = bench.plan("sup", [ChildSpec("a", lambda: idle)])
    with pytest.raises(StartError, match="did not start"):
        sup.boot()


def test_sup_start_child_returns_error(bench: Bench) -> None:
    def fail() -> ServerRef:
        raise OSError(28, "No space left on device")

    sup = bench.plan("sup", [ChildSpec("a", fail)])
    with pytest.raises(StartError, match="No space left"):
        sup.boot()


@pytest.mark.parametrize(
    "fault",
    [
        {"id": ""},
        {"id": 7},
        {"id": None},
        {"start": "not callable"},
        {"restart": "always"},
        {"restart": None},
        {"shutdown": -1},
        {"shutdown": "infinity"},
        {"shutdown": True},
        {"type": "actor"},
    ],
)
def test_sup_start_map_faulty_specs(fault: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"id": "a", "start": lambda: None}
    ChildSpec(**sound)
    with pytest.raises(InvalidChildSpec):
        ChildSpec(**(sound | fault))


def test_sup_start_map_faulty_specs_of_a_supervisor(bench: Bench) -> None:
    child: Any = bench.child("a")
    faulty: list[tuple[list[Any], dict[str, Any]]] = [
        ([child, child], {}),
        (["a"], {}),
        ([child], {"strategy": "simple_one_for_one"}),
        ([child], {"max_restarts": -1}),
        ([child], {"max_seconds": 0}),
        ([child], {"max_consecutive": -1}),
        ([child], {"fence_grace": -1}),
    ]
    for children, options in faulty:
        with pytest.raises(InvalidChildSpec):
            start_supervisor("sup", children, **options)
    assert bench.noted("init") == []


def test_budgets_and_graces_of_zero_are_sound(bench: Bench) -> None:
    sup = bench.supervise(
        bench.child("a"), max_restarts=0, max_consecutive=0, fence_grace=0, max_seconds=0.1
    )
    assert bench["a"].call(1) == 1
    assert sup.stop(PATIENCE)


def test_a_supervisor_on_a_plain_handle_is_refused(bench: Bench) -> None:
    with pytest.raises(StartError, match="did not start"):
        bench.ref("plain").start(Supervisor)


def test_already_started_outside_supervisor(bench: Bench) -> None:
    child = bench.child("a")
    bench["a"].start(Lab)
    sup = bench.plan("sup", [child])
    with pytest.raises(StartError, match="still lives"):
        sup.boot()
    assert bench["a"].call(1) == 1, "the one outside must not be hurt"


# -- stopping


def test_sup_stop_infinity(bench: Bench) -> None:
    gate = Gate()
    sup = bench.supervise(bench.child("slow", shutdown=None), bench.child("b"))
    bench["slow"].cast(gate)
    gate.wait_reached()
    assert not sup.stop(timeout=0.05), "it must wait for its child, however long"
    assert bench["slow"].state != "fenced"
    gate.open()
    assert sup.stop(PATIENCE)
    assert bench.noted("terminate") == [("b", SHUTDOWN), ("slow", SHUTDOWN)]


@pytest.mark.parametrize("shutdown", [0.02, 0.0], ids=["sup_stop_timeout", "sup_stop_brutal_kill"])
def test_a_child_that_does_not_stop_is_fenced_and_reported(bench: Bench, shutdown: float) -> None:
    gate = Gate()
    fenced: list[bool] = []
    sup = bench.supervise(bench.child("a"), bench.child("stuck", shutdown=shutdown))

    def sleep(server: Lab) -> None:
        gate()
        fenced.append(server.fenced)

    bench["stuck"].cast(sleep)
    gate.wait_reached()
    assert sup.stop(PATIENCE), "a stuck child must not hold up its supervisor"
    event = bench.events.wait("child_fenced", "stuck")
    assert event.reason is not None
    assert event.reason.kind == "fenced"
    assert bench["a"].state == "closed", "the others are stopped all the same"
    gate.open()
    assert bench["stuck"].stop(PATIENCE)
    assert fenced == [True]


def test_sup_stop_race(bench: Bench) -> None:
    """A child that crashes while its supervisor stops is not restarted, and all ends."""
    for _ in range(20):
        lone = Bench()
        gate = Gate()
        sup = lone.supervise(lone.child("a"), lone.child("b"))
        lone["a"].cast(lambda _server, gate=gate: gate() and boom())
        gate.wait_reached()
        stopper = threading.Thread(target=sup.stop, args=(PATIENCE,))
        stopper.start()
        gate.open()
        stopper.join(PATIENCE)
        assert sup.state == "closed"
        assert lone["a"].state == lone["b"].state == "closed"
        lone.clear()


# -- restart types

RESTARTS = [
    ("permanent", NORMAL, True),
    ("permanent", SHUTDOWN, True),
    ("permanent", ExitReason.shutdown("detail"), True),
    ("permanent", None, True),
    ("transient", NORMAL, False),
    ("transient", SHUTDOWN, False),
    ("transient", ExitReason.shutdown("detail"), False),
    ("transient", None, True),
    ("temporary", NORMAL, False),
    ("temporary", SHUTDOWN, False),
    ("temporary", None, False),
]


@pytest.mark.parametrize(
    ("restart", "reason", "comes_back"),
    RESTARTS,
    ids=[f"{r}_{'abnormal' if e is None else e}" for r, e, _ in RESTARTS],
)
def test_restart_type(
    bench: Bench, restart: Restart, reason: ExitReason | None, *, comes_back: bool
) -> None:
    sup = bench.supervise(bench.child("a", restart), bench.child("bystander"))
    if reason is None:
        crash(bench["a"])
    else:
        finish(bench["a"], reason)
    exited = bench.events.wait("child_exited", "a")
    assert exited.reason is not None
    assert exited.reason.kind == ("crash" if reason is None else reason.kind)
    if comes_back:
        bench.events.wait("child_restarted", "a")
        assert bench["a"].call("back") == "back"
        assert bench["a"].epoch == 2
    else:
        infos = {info.id: info for info in sup.which_children()}
        assert bench.events.count("child_restarting") == 0
        assert ("a" in infos) == (restart == "transient"), "only temporary ones are forgotten"
        with pytest.raises(ServerDown):
            bench["a"].call("back")
    assert bench["bystander"].epoch == 1


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_temporary_bystander(bench: Bench, strategy: Strategy) -> None:
    """A temporary child that is stopped because of a sibling is not started again."""
    sup = bench.supervise(
        bench.child("a"), bench.child("temp", "temporary"), bench.child("c"), strategy=strategy
    )
    crash(bench["a"])
    bench.events.wait("child_restarted", "c")
    infos = sup.which_children()
    assert [(info.id, info.last_exit) for info in infos] == [
        ("a", bench["a"].last_exit),
        ("c", SHUTDOWN),
    ]
    assert bench["temp"].state == "closed"
    with pytest.raises(ServerDown) as caught:
        bench["temp"].cast("x")
    assert caught.value.reason == SHUTDOWN


def test_multiple_restarts(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), max_restarts=3, timers=bench.clock)
    for count in range(1, 4):
        crash(bench["a"])
        bench.events.wait("child_restarted", "a", times=count)
        bench.clock.advance(1)
    assert bench["a"].call("still here") == "still here"
    assert bench["a"].info().restarts == sup.which_children()[0].restarts == 3


# -- strategies


def epochs(bench: Bench, *names: str) -> list[int]:
    return [bench[name].epoch for name in names]


def test_one_for_one(bench: Bench) -> None:
    bench.supervise(bench.child("a"), bench.child("b"), bench.child("c"))
    crash(bench["b"])
    bench.events.wait("child_restarted", "b")
    assert epochs(bench, "a", "b", "c") == [1, 2, 1]
    assert bench.events.wait("child_restarting").reason == bench["b"].last_exit
    assert bench.noted("terminate") == [("b", bench["b"].last_exit)]


def test_one_for_all(bench: Bench) -> None:
    children = [bench.child(name) for name in "abcd"]
    bench.supervise(*children, strategy="one_for_all")
    crash(bench["b"])
    bench.events.wait("child_restarted", "d")
    assert epochs(bench, *"abcd") == [2, 2, 2, 2]
    stopped = [name for name, reason in bench.noted("terminate") if reason == SHUTDOWN]
    assert stopped == ["d", "c", "a"], "siblings stop from right to left"
    assert [name for name, _ in bench.noted("init")] == [*"abcd", *"abcd"]


def test_rest_for_one(bench: Bench) -> None:
    children = [bench.child(name) for name in "abcd"]
    bench.supervise(*children, strategy="rest_for_one")
    crash(bench["b"])
    bench.events.wait("child_restarted", "d")
    assert epochs(bench, *"abcd") == [1, 2, 2, 2]
    stopped = [name for name, reason in bench.noted("terminate") if reason == SHUTDOWN]
    assert stopped == ["d", "c"]
    assert [name for name, _ in bench.noted("init")] == [*"abcd", *"bcd"]


@pytest.mark.parametrize(
    "strategy",
    ["one_for_one", "one_for_all", "rest_for_one"],
    ids="{}_escalation".format,
)
def test_escalation(bench: Bench, strategy: Strategy) -> None:
    """More restarts than the window allows end the supervisor, and it says so."""
    ended: list[ExitReason] = []
    sup = bench.supervise(
        bench.child("a"),
        bench.child("b"),
        strategy=strategy,
        max_restarts=2,
        max_seconds=10,
        timers=bench.clock,
        on_terminal=ended.append,
    )
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    for count in (1, 2):
        crash(bench["a"])
        bench.events.wait("child_restarted", "a", times=count)
    crash(bench["a"])
    assert over.wait(PATIENCE)
    assert len(ended) == 1
    assert ended[0].kind == "shutdown", "so that a transient supervisor is not restarted"
    assert "more than 2 restarts within 10 s" in ended[0].detail
    assert isinstance(ended[0].exception, Boom), "the last crash comes along"
    assert bench.events.count("gave_up") == bench.events.count("terminal") == 1
    gave_up = bench.events.wait("gave_up").reason
    assert gave_up is not None
    assert gave_up.exception is ended[0].exception
    assert bench.events.wait("terminal").reason is ended[0]
    assert bench.events.count("child_restarting") == 2
    for name in "ab":
        with pytest.raises(ServerDown) as caught:
            bench[name].call(1)
        assert caught.value.executed is False
    assert sup.state == "closed"


@pytest.mark.parametrize(
    "strategy", ["one_for_all", "rest_for_one"], ids="{}_other_child_fails_restart".format
)
def test_other_child_fails_restart(bench: Bench, strategy: Strategy) -> None:
    """When a sibling fails to come back, its own restart is tried again, with its group."""
    failures = raises_once(Boom("first"), Boom("second"))

    def fail_later(server: Lab) -> None:
        if server.epoch > 1:
            failures()

    bench.supervise(
        bench.child("a"),
        bench.child("b"),
        bench.child("c", init=fail_later),
        bench.child("d"),
        strategy=strategy,
        max_restarts=9,
    )
    crash(bench["b"])
    bench.events.wait("child_restarted", "d")
    assert bench.events.count("restart_failed", "c") == 2
    inits = [name for name, _ in bench.noted("init")]
    if strategy == "one_for_all":
        assert inits == [*"abcd", *"abc", *"abc", *"abcd"]
    else:
        assert inits == [*"abcd", *"bc", *"c", *"cd"]
    for name in "abcd":
        assert bench[name].call(name) == name


@pytest.mark.parametrize(
    "strategy", ["one_for_one", "one_for_all", "rest_for_one"], ids="hanging_restart_loop_{}".format
)
def test_hanging_restart_loop(bench: Bench, strategy: Strategy) -> None:
    """A child that fails to come back again and again does not make its supervisor deaf."""
    doomed = threading.Event()

    def fail(server: Lab) -> None:
        if doomed.is_set():
            boom(server)

    sup = bench.supervise(
        bench.child("a"),
        bench.child("b", init=fail),
        bench.child("c"),
        strategy=strategy,
        max_restarts=10**9,
        max_consecutive=10**9,
    )
    doomed.set()
    crash(bench["b"])
    bench.events.wait("restart_failed", "b", times=50)
    # It answers, between one attempt and the next, and it can be stopped.
    states = {info.id: info.state for info in sup.which_children()}
    assert states["b"] == "restarting"
    assert sup.count_children().specs == 3
    bench.events.wait("restart_failed", "b", times=100)
    assert sup.stop(PATIENCE)
    assert sup.state == "closed"


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_two_that_crash_together_are_one_restart(bench: Bench, strategy: Strategy) -> None:
    """What is heard of the second one's death after it was restarted with the first is stale."""
    gate = Gate()

    def hold(event: SupervisorEvent) -> None:
        if event.kind == "child_exited":
            gate()

    sup = bench.supervise(bench.child("a"), bench.child("b"), strategy=strategy)
    sup.hooks.append(hold)
    crash(bench["a"])
    gate.wait_reached()
    crash(bench["b"])
    gate.open()
    bench.events.wait("child_restarted", "b")
    assert sup.count_children().active == 2
    assert epochs(bench, "a", "b") == [2, 2]
    assert bench.events.count("child_restarting") == 1


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_who_was_ignored_or_had_ended_is_asked_again_with_its_group(
    bench: Bench, strategy: Strategy
) -> None:
    late = bench.ref("late")

    def wait_for_its_time() -> ServerRef | None:
        if bench["a"].epoch < 2:
            return None
        late.start(Lab)
        return late

    sup = bench.supervise(
        bench.child("a"),
        bench.child("done", "transient"),
        ChildSpec("late", wait_for_its_time),
        strategy=strategy,
    )
    finish(bench["done"], NORMAL)
    bench.events.wait("child_exited", "done")
    crash(bench["a"])
    bench.events.wait("child_restarted", "late")
    assert [info.state for info in sup.which_children()] == ["running"] * 3
    assert [bench["done"].call(1), late.call(2)] == [1, 2]


def test_in_rest_for_one_an_earlier_crash_takes_over_a_pending_restart(bench: Bench) -> None:
    sup = bench.supervise(
        bench.child("a"),
        bench.child("b"),
        bench.child("c"),
        strategy="rest_for_one",
        backoff=Backoff(5.0, 5.0, 0.0),
        timers=bench.clock,
    )
    crash(bench["b"])
    bench.events.wait("child_restarted", "c")
    crash(bench["b"])
    bench.events.wait("child_restarting", "b", times=2)
    crash(bench["a"])
    bench.events.wait("child_restarted", "c", times=2)
    assert epochs(bench, "a", "b", "c") == [2, 3, 3]
    assert bench.clock.pending == 0
    bench.clock.advance(10.0)
    assert sup.count_children().active == 3
    assert epochs(bench, "a", "b", "c") == [2, 3, 3], "the pending attempt was called off"


# -- structure


def test_child_unlink(bench: Bench) -> None:
    """A child whose handle its owner closes is out of supervision: no restart, no noise."""
    sup = bench.supervise(bench.child("a"), bench.child("b"))
    assert bench["a"].drain(PATIENCE)
    bench.events.wait("child_exited", "a")
    assert {info.id: info.state for info in sup.which_children()} == {
        "a": "stopped",
        "b": "running",
    }
    assert bench.events.count("child_restarting") == 0
    assert bench["b"].call(1) == 1


def test_child_unlink_of_a_branch(bench: Bench) -> None:
    branch = bench.plan("branch", [bench.child("leaf")])
    root = bench.supervise(bench.child("trunk"), branch.as_child("limb"), name="root")
    assert branch.drain(PATIENCE)
    bench.events.wait("child_exited", "limb")
    assert [info.state for info in root.which_children()] == ["running", "stopped"]
    assert bench["leaf"].state == branch.state == "closed"


def test_child_unlink_holds_when_a_sibling_restarts_all(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), bench.child("b"), strategy="one_for_all")
    bench["a"].drain(PATIENCE)
    bench.events.wait("child_exited", "a")
    crash(bench["b"])
    bench.events.wait("child_restarted", "b")
    assert bench.events.count("restart_failed") == 0
    assert bench["a"].state == "closed"
    assert [info.state for info in sup.which_children()] == ["stopped", "running"]


def test_tree_restarts_a_branch_and_escalates(bench: Bench) -> None:
    """A branch that gives up is restarted by its parent, with its handles still open."""
    branch = bench.plan("branch", [bench.child("leaf"), bench.child("twig")], max_restarts=1)
    root = bench.supervise(bench.child("trunk"), branch.as_child(), name="root")
    assert [(i.id, i.type) for i in root.which_children()] == [
        ("trunk", "worker"),
        ("branch", "supervisor"),
    ]
    crash(bench["leaf"])
    bench.events.wait("child_restarted", "leaf")
    assert branch.epoch == 1
    crash(bench["leaf"])
    bench.events.wait("child_restarted", "branch")
    assert bench["leaf"].call("alive") == "alive"
    assert (bench["leaf"].epoch, bench["twig"].epoch, bench["trunk"].epoch) == (3, 2, 1)
    assert bench.events.wait("gave_up").supervisor == "branch"
    assert root.stop(PATIENCE)
    assert {ref.state for ref in (root, branch, bench["leaf"], bench["trunk"])} == {"closed"}


def test_tree_counts_by_type(bench: Bench) -> None:
    branch = bench.plan("branch", [bench.child("leaf")])
    spec = branch.as_child("limb", restart="transient", shutdown=7.0)
    assert (spec.id, spec.restart, spec.shutdown, spec.type) == (
        "limb",
        "transient",
        7.0,
        "supervisor",
    )
    root = bench.supervise(bench.child("trunk"), bench.child("root"), spec, name="ground")
    counts = root.count_children()
    assert (counts.specs, counts.active) == (3, 3)
    assert (counts.workers, counts.supervisors) == (2, 1)


def test_counting_the_children_of_one_that_does_not_run_ends_in_time(bench: Bench) -> None:
    with pytest.raises(CallTimeout):
        bench.plan("sup", [bench.child("a")]).count_children(0)


def test_tree_gives_up_as_a_whole(bench: Bench) -> None:
    ended: list[ExitReason] = []
    branch = bench.plan("branch", [bench.child("leaf")], max_restarts=0)
    root = bench.supervise(branch.as_child(), name="root", max_restarts=0, on_terminal=ended.append)
    over = threading.Event()
    root.monitor(lambda _reason: over.set())
    crash(bench["leaf"])
    assert over.wait(PATIENCE)
    assert "'branch' of 'root'" in ended[0].detail
    with pytest.raises(ServerDown):
        bench["leaf"].call(1)


def test_tree_leaves_a_transient_branch_that_gave_up(bench: Bench) -> None:
    branch = bench.plan("branch", [bench.child("leaf")], max_restarts=0)
    root = bench.supervise(bench.child("trunk"), branch.as_child(restart="transient"))
    crash(bench["leaf"])
    bench.events.wait("child_exited", "branch")
    assert [info.state for info in root.which_children()] == ["running", "stopped"]
    with pytest.raises(ServerDown):
        bench["leaf"].call(1)
    assert bench["trunk"].call(1) == 1


@pytest.mark.parametrize(("strategy", "active"), [("one_for_one", 2), ("one_for_all", 0)])
def test_count_restarting_children(bench: Bench, strategy: Strategy, active: int) -> None:
    sup = bench.supervise(
        bench.child("a"),
        bench.child("b"),
        bench.child("done", "transient"),
        bench.child("c"),
        strategy=strategy,
        backoff=Backoff(5.0, 5.0, 0.0),
        timers=bench.clock,
    )
    crash(bench["a"])
    bench.events.wait("child_restarted", "a")
    if strategy == "one_for_all":
        bench.events.wait("child_restarted", "c")
    finish(bench["done"], NORMAL)
    bench.events.wait("child_exited", "done")
    crash(bench["a"])
    bench.events.wait("child_restarting", "a", times=2)
    counts = sup.count_children()
    assert (counts.specs, counts.workers, counts.supervisors) == (4, 4, 0)
    assert counts.active == active
    waiting = "running" if active else "restarting"
    states = {info.id: info.state for info in sup.which_children()}
    assert states == {"a": "restarting", "b": waiting, "done": "stopped", "c": waiting}
    bench.clock.advance(5.0)
    bench.events.wait("child_restarted", "a" if active else "c", times=2)
    assert sup.count_children().active == (3 if active else 4)


def test_order_of_children(bench: Bench) -> None:
    names = [f"child{number}" for number in range(8)]
    sup = bench.supervise(*(bench.child(name) for name in names))
    assert [info.id for info in sup.which_children()] == names
    assert bench.events.order("child_started") == names
    sup.stop(PATIENCE)
    assert bench.events.order("child_stopped") == names[::-1]
    assert bench.events.wait("child_stopped").reason == SHUTDOWN
    assert [name for name, _ in bench.noted("terminate")] == names[::-1]


def test_which_children(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), bench.child("b", "transient"))
    crash(bench["a"])
    bench.events.wait("child_restarted", "a")
    finish(bench["b"], NORMAL)
    bench.events.wait("child_exited", "b")
    first, second = sup.which_children()
    assert (first.id, first.ref, first.state, first.restarts) == ("a", bench["a"], "running", 1)
    assert first.last_exit is not None
    assert first.last_exit.is_crash
    assert (second.state, second.restarts, second.last_exit) == ("stopped", 0, NORMAL)


def test_a_supervisor_survives_requests_and_messages_it_does_not_know(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sup = bench.supervise(bench.child("a"))
    with pytest.raises(Exception, match="does not answer"):
        sup.call("who are you")
    sup.send_info("hello")
    assert sup.count_children().active == 1
    assert "sup does not know what a str means" in caplog.text
    assert sup.epoch == 1


def test_scale_start_stop_many_children(bench: Bench) -> None:
    names = [str(number) for number in range(200)]
    sup = bench.supervise(*(bench.child(name) for name in names))
    counts = sup.count_children()
    assert (counts.active, counts.specs) == (200, 200)
    assert sup.stop(60)
    assert bench.events.order("child_stopped") == names[::-1]


def test_format_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which child of which supervisor did what, with the traceback."""
    caplog.set_level(logging.INFO, "sessionkeeper.otp")
    sup = bench.supervise(bench.child("a"), max_restarts=1)
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    crash(bench["a"])
    bench.events.wait("child_restarted", "a")
    crash(bench["a"])
    assert over.wait(PATIENCE)
    messages = [record.getMessage() for record in caplog.records]
    assert "a crashed in incarnation 1" in messages
    assert "sup: child a ended: crash (Boom: boom)" in messages
    assert any("gives up: child 'a' of 'sup': more than 1 restarts" in m for m in messages)
    crashed = next(r for r in caplog.records if "crashed in" in r.getMessage())
    assert crashed.exc_info is not None
    assert isinstance(crashed.exc_info[1], Boom)


# -- reporting


def test_hooks_are_isolated_and_counted(bench: Bench) -> None:
    seen: list[str] = []

    def sabotage(_event: object) -> None:
        raise SystemExit("a hook must not hurt")

    sup = bench.plan("sup", [bench.child("a")], on_event=sabotage)
    sup.hooks.append(lambda event: seen.append(event.kind))
    sup.hooks.append(bench.events)
    sup.boot()
    crash(bench["a"])
    assert bench["a"].call("back", timeout=PATIENCE) == "back"
    sup.stop(PATIENCE)
    assert seen[0] == "child_started"
    assert seen[-1] == "terminal"
    assert sup.hook_failures == len(seen)


def test_on_terminal_is_told_once_whoever_closes(bench: Bench) -> None:
    ended: list[ExitReason] = []
    sup = bench.supervise(bench.child("a"), on_terminal=ended.append)
    sup.close(ExitReason.shutdown("enough"))
    assert sup.stop(PATIENCE)
    sup.close()
    assert [reason.detail for reason in ended] == ["enough"]
    assert bench["a"].state == "closed"
    assert bench.noted("terminate") == [("a", SHUTDOWN)]


def test_on_terminal_is_not_told_of_what_never_was(bench: Bench) -> None:
    ended: list[ExitReason] = []
    bench.plan("unborn", [bench.child("a")], on_terminal=ended.append).close()
    with pytest.raises(StartError):
        bench.plan("failed", [bench.child("b", init=boom)], on_terminal=ended.append).boot()
    assert ended == []


def test_on_terminal_may_fail_and_may_stop_the_tree(bench: Bench) -> None:
    def confused(_reason: ExitReason) -> None:
        assert sup.stop() is False, "it cannot wait for the thread it runs in"
        raise Boom("boom")

    sup = bench.supervise(bench.child("a"), on_terminal=confused)
    assert sup.stop(PATIENCE)
    assert bench["a"].state == "closed"


def test_a_supervisor_can_be_given_new_handles_by_its_children(bench: Bench) -> None:
    """A start function may make a handle each time; the old one is closed, not forgotten."""
    handles: list[ServerRef] = []

    def start() -> ServerRef:
        ref = bench.ref(f"fresh{len(handles)}")
        ref.start(Lab)
        handles.append(ref)
        return ref

    sup = bench.supervise(ChildSpec("a", start))
    crash(handles[0])
    bench.events.wait("child_restarted", "a")
    assert sup.which_children()[0].ref is handles[1]
    with pytest.raises(ServerDown):
        handles[0].call(1)
    assert handles[1].call(1) == 1
    assert list(sup._child_refs.values()) == [handles[1]], "those of the past do not pile up"


def test_calls_of_a_stuck_supervisor_time_out(bench: Bench) -> None:
    gate = Gate()

    def slow(server: Lab) -> None:
        if server.epoch > 1:
            gate()

    sup = bench.supervise(bench.child("a", init=slow))
    crash(bench["a"])
    gate.wait_reached()
    with pytest.raises(CallTimeout) as caught:
        sup.which_children(timeout=0.01)
    assert caught.value.executed is False
    gate.open()
    bench.events.wait("child_restarted", "a")
