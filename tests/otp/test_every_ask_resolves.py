"""Properties over random commands, crashes, stops and restarts, with threads that switch often.

Whatever happens in whatever order: every accepted ask resolves within its bound and tells the
truth about what was executed; every accepted cast is done once or reported once; every
incarnation that came up gives exactly one exit notice; no thread is left.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from otp_kit import PATIENCE, Boom, Panic, Refused, no_delay

from sessionkeeper.otp import (
    Busy,
    CallTimeout,
    ChildSpec,
    Envelope,
    ExitReason,
    GenServer,
    OtpError,
    OutcomeUnknown,
    Reply,
    ServerDown,
    ServerRef,
    SupervisorRef,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.otp.supervisor import Strategy

NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Order:
    """What a server is asked to do; each has a number of its own."""

    number: int
    deed: str


@dataclass
class World:
    """What really happened, told by the servers themselves."""

    executed: Counter[int] = field(default_factory=Counter)
    undelivered: Counter[int] = field(default_factory=Counter)
    downs: Counter[str] = field(default_factory=Counter)
    terminals: list[ExitReason] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, counter: Counter[Any], key: Any) -> None:
        with self.lock:
            counter[key] += 1


class Worker(GenServer):
    """Does orders one by one, and counts what it has done to the end."""

    domain_errors = (Refused,)

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def do(self, order: Order) -> int:
        if order.deed == "refuse":
            raise Refused(order.number)
        if order.deed == "boom":
            raise Boom(order.number)
        if order.deed == "panic":
            raise Panic(order.number)
        if order.deed == "leave":
            self.stop(ExitReason.NORMAL)
        self.world.count(self.world.executed, order.number)
        return order.number

    def handle_call(self, request: Order) -> int:
        return self.do(request)

    def handle_cast(self, request: Order) -> None:
        self.do(request)

    def handle_info(self, message: Order) -> None:
        self.do(message)


class Batcher(Worker):
    """Takes several at a time; what was untried at a crash goes back into the queue."""

    turn_limit = 8


class Committer(Worker):
    """Commits a turn as a whole, and does again what a crash interrupted, but the culprits."""

    turn_limit = 8

    def handle_turn(self, turn: Sequence[Envelope]) -> None:
        for envelope in turn:
            if envelope.message.deed in {"boom", "panic"}:
                raise Boom("the commit failed")
        for envelope in turn:
            try:
                envelope.reply(self.do(envelope.message))
            except Refused as error:
                envelope.fail(error)

    def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
        culprits = [e for e in envelopes if e.message.deed in {"boom", "panic"}]
        self.requeue([e for e in envelopes if e not in culprits])
        super().handle_interrupted(culprits)


DEEDS = st.sampled_from(["work"] * 6 + ["refuse", "boom", "panic", "leave"])
WAYS = st.sampled_from(["call", "impatient", "request", "deadline", "cast", "info"])
STEPS = st.lists(st.tuples(WAYS, st.sampled_from(NAMES), DEEDS), max_size=10)
ENDS = st.sampled_from(["stop", "drain", "close", "stop all"])


@dataclass
class Client:
    """One thread that sends what it is told to, and remembers what was accepted."""

    world: World
    refs: dict[str, ServerRef]
    numbers: Any
    asks: list[tuple[Order, object]] = field(default_factory=list)
    pending: list[tuple[Order, Reply[Any]]] = field(default_factory=list)
    casts: list[Order] = field(default_factory=list)

    def run(self, steps: list[tuple[str, str, str]]) -> None:
        for way, name, deed in steps:
            order = Order(next(self.numbers), deed)
            try:
                self.send(way, self.refs[name], order)
            except Busy:
                assert self.world.executed[order.number] == 0
            except (ServerDown, CallTimeout) as error:
                self.asks.append((order, error))
            except (Refused, Boom, OutcomeUnknown) as error:
                self.asks.append((order, error))

    def send(self, way: str, ref: ServerRef, order: Order) -> None:
        if way == "call":
            self.asks.append((order, ref.call(order, PATIENCE)))
        elif way == "impatient":
            self.asks.append((order, ref.call(order, 0.001)))
        elif way == "request":
            self.pending.append((order, ref.send_request(order)))
        elif way == "deadline":
            self.pending.append((order, ref.send_request(order, timeout=0.002)))
        elif way == "cast":
            ref.cast(order)
            self.casts.append(order)
        else:
            ref.send_info(order)


class Ticket:
    """Numbers that no two clients share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def __next__(self) -> int:
        with self._lock:
            self._next += 1
            return self._next


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=3),
    server_class=st.sampled_from([Worker, Batcher, Committer]),
    strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
    max_restarts=st.sampled_from([0, 1, 3, 1000]),
    room=st.sampled_from([2, 1000]),
    end=ENDS,
    early=st.booleans(),
)
@example(
    steps=[[("request", "a", "boom"), ("cast", "a", "work"), ("request", "a", "work")]],
    server_class=Batcher,
    strategy="one_for_all",
    max_restarts=0,
    room=1000,
    end="stop",
    early=False,
)
def test_every_accepted_ask_resolves_within_a_bound(
    steps: list[list[tuple[str, str, str]]],
    server_class: type[Worker],
    strategy: Strategy,
    max_restarts: int,
    room: int,
    end: str,
    early: bool,  # noqa: FBT001 - hypothesis passes what it draws
) -> None:
    interval = sys.getswitchinterval()
    before = set(threading.enumerate())
    sys.setswitchinterval(1e-6)
    try:
        _play(steps, server_class, strategy, max_restarts, room, end, early=early)
    finally:
        sys.setswitchinterval(interval)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread} was left"


def _play(
    steps: list[list[tuple[str, str, str]]],
    server_class: type[Worker],
    strategy: Strategy,
    max_restarts: int,
    room: int,
    end: str,
    *,
    early: bool,
) -> None:
    world = World()
    refs = {
        name: ServerRef(
            name,
            max_messages=room,
            busy_wait=0.01,
            on_undelivered=lambda order, _: world.count(world.undelivered, order.number),
        )
        for name in NAMES
    }
    for name, ref in refs.items():
        ref.monitor(lambda _reason, name=name: world.count(world.downs, name))  # type: ignore[misc]
    sup = SupervisorRef(
        "sup",
        [ChildSpec.server(name, ref, server_class, world) for name, ref in refs.items()],
        strategy=strategy,
        max_restarts=max_restarts,
        max_consecutive=10**6,
        backoff=no_delay(),
        on_terminal=world.terminals.append,
    )
    sup.boot()
    numbers = Ticket()
    clients = [Client(world, refs, numbers) for _ in steps]
    threads = [
        threading.Thread(target=client.run, args=(orders,))
        for client, orders in zip(clients, steps, strict=True)
    ]
    for thread in threads:
        thread.start()
    if not early:
        for thread in threads:
            thread.join(PATIENCE)
    _end(sup, end)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a call did not come back"
    assert sup.stop(PATIENCE)
    for ref in refs.values():
        assert ref.stop(PATIENCE)
    _check(world, refs, clients)


def _end(sup: SupervisorRef, end: str) -> None:
    if end == "stop":
        assert sup.stop(PATIENCE)
    elif end == "drain":
        sup.drain(PATIENCE)
    elif end == "close":
        sup.close()
    else:
        sup.request_drain()


def _check(world: World, refs: dict[str, ServerRef], clients: list[Client]) -> None:
    assert len(world.terminals) == 1
    for name, ref in refs.items():
        assert ref.state == "closed"
        assert world.downs[name] == ref.info().restarts + 1, "one notice for each incarnation"
    for client in clients:
        for order, outcome in client.asks:
            _check_ask(world, order, outcome)
        for order, reply in client.pending:
            error = reply.exception(PATIENCE)
            _check_ask(world, order, reply.result(0) if error is None else error)
        for order in client.casts:
            done = world.executed[order.number]
            lost = world.undelivered[order.number]
            if order.deed in {"work", "leave"}:
                assert done + lost == 1, f"{order}: done {done} times, reported {lost} times"
            elif order.deed in {"boom", "panic"}:
                assert (done, lost) == (0, 1)
            else:
                assert done == 0


def _check_ask(world: World, order: Order, outcome: object) -> None:
    done = world.executed[order.number]
    assert done <= 1, f"{order} was executed {done} times"
    if isinstance(outcome, int):
        assert (outcome, done) == (order.number, 1)
    elif isinstance(outcome, ServerDown | CallTimeout) and outcome.executed is False:
        assert done == 0, f"{order} was executed although its caller was told it was not"
    elif isinstance(outcome, Refused | Boom):
        assert done == 0
    else:
        assert isinstance(outcome, OtpError), outcome
