"""Forks and the exit of the interpreter."""

from __future__ import annotations

import os

import pytest
from otp_kit import PATIENCE, Bench, Boom, Gate, run_python

from sessionkeeper.otp import ServerRef, runtime, set_exit_limit

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# Python 3.12 and later warn when a process with threads forks, which is the very case here.
PRELUDE = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from sessionkeeper.otp import *
from sessionkeeper.otp.timer import ThreadTimerService, default_timers

class Echo(GenServer):
    def handle_call(self, request):
        return request(self) if callable(request) else request
    def handle_cast(self, request):
        request(self)

def in_child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
            sys.stdout.flush()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def outcome(function):
    try:
        return repr(function())
    except BaseException as error:
        return type(error).__name__
"""


@needs_fork
def test_fork_stock_pykka_hangs_in_the_child() -> None:
    done = run_python(
        PRELUDE
        + """
import pykka

class Stock(pykka.ThreadingActor):
    use_daemon_thread = True
    def on_receive(self, message):
        return message

ref = Stock.start()
in_child(lambda: print(ref.is_alive(), outcome(lambda: ref.ask("x", timeout=0.5))))
"""
    )
    assert done.stdout == "True Timeout\n", done.stderr


@needs_fork
def test_fork_every_handle_raises_at_once_in_the_child() -> None:
    done = run_python(
        PRELUDE
        + """
import pykka
ref = ServerRef("a")
ref.start(Echo)
sup = start_supervisor("sup", [ChildSpec.server("b", ServerRef("b"), Echo)])
gate = threading.Event()
pending = ref.send_request(lambda server: gate.wait())
timers = ThreadTimerService()
actor = pykka.ActorRegistry.get_by_class(Echo)[0]

def child():
    for function in (
        lambda: ref.call("x", timeout=None),
        lambda: ref.send_request("x"),
        lambda: ref.cast("x"),
        lambda: ref.send_info("x"),
        lambda: ref.start(Echo),
        lambda: ref.monitor(print),
        lambda: ref.info(),
        lambda: pending.result(),
        lambda: sup.which_children(timeout=None),
        lambda: timers.after(1, print),
    ):
        print(outcome(function), end=" ")
    print()
    # Ending what is not there is no error.
    print(ref.stop(), ref.drain(), ref.close(), sup.stop(), ref.post("x"))
    print(outcome(lambda: actor.ask("x", timeout=5)))
    print(outcome(lambda: pykka.ActorRegistry.stop_all(timeout=5)))

in_child(child)
gate.set()
print(ref.call("the parent is unhurt"))
"""
    )
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["ForkedError"] * 10, done.stderr
    assert lines[1] == "True True None True False"
    assert lines[2] == "ForkedError"
    assert lines[3] == "[True, True, True]"
    assert lines[4] == "the parent is unhurt"


@needs_fork
def test_fork_while_every_lock_is_held_does_not_deadlock_the_child() -> None:
    done = run_python(
        PRELUDE
        + """
ref = ServerRef("a")
ref.start(Echo)
with ref.mailbox._lock, ref._lock:
    in_child(lambda: print(outcome(lambda: ref.call("x")), ref.stop(), ref.close()))
"""
    )
    assert done.stdout == "ForkedError True None\n", done.stderr


@needs_fork
def test_fork_the_child_can_have_servers_of_its_own() -> None:
    done = run_python(
        PRELUDE
        + """
ref = ServerRef("a")
ref.start(Echo)
distant = default_timers().after(3600, print)

def child():
    mine = ServerRef("mine")
    mine.start(Echo)
    print(mine.call("hello"), outcome(lambda: mine.call(lambda s: s.send_after(0, "x") and 1)))
    print(mine.drain(5))

in_child(child)
"""
    )
    assert done.stdout == "hello 1\nTrue\n", done.stderr


@needs_fork
def test_fork_inside_a_server_does_not_leave_a_second_server() -> None:
    done = run_python(
        PRELUDE
        + """
import time
ref = ServerRef("a")
ref.start(Echo)

def fork(server):
    pid = os.fork()
    return pid

def parent():
    pid = ref.call(fork)
    if pid:
        # In the child that thread returns to its loop, must not serve, and ends the process.
        assert os.waitpid(pid, 0)[0] == pid
        print("child ended;", ref.call("parent serves"))

parent()
"""
    )
    assert done.stdout == "child ended; parent serves\n", done.stderr


def test_interpreter_exit_stock_pykka_never_exits_or_loses_the_queue() -> None:
    code = """
import pykka, threading

class Stock(pykka.ThreadingActor):
    use_daemon_thread = True
    def on_receive(self, message):
        message()
    def on_stop(self):
        print("on_stop")

ref = Stock.start()
gate = threading.Event()
ref.tell(lambda: gate.wait(0.2))
ref.tell(lambda: print("done"))
gate.set()
"""
    lost = run_python(code.replace("gate.set()", ""))
    assert lost.stdout == ""


def test_interpreter_exit_does_what_was_accepted() -> None:
    done = run_python(
        PRELUDE
        + """
class Careful(Echo):
    def terminate(self, reason):
        sys.stdout.write(f"{self.ref.name} terminates: {reason}\\n")

lone, a, b = ServerRef("lone"), ServerRef("a"), ServerRef("b")
lone.start(Careful)
sup = start_supervisor("sup", [ChildSpec.server(r.name, r, Careful) for r in (a, b)])
gate = threading.Event()
for ref in (lone, a, b):
    ref.cast(lambda server: gate.wait(0.1))
    ref.cast(lambda server: sys.stdout.write(server.ref.name + " done\\n"))
"""
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {"lone done", "a done", "b done"} <= set(lines)
    assert [line for line in lines if "terminates" in line] == [
        "b terminates: shutdown",
        "a terminates: shutdown",
        "lone terminates: shutdown",
    ]


def test_interpreter_exit_drains_roots_newest_first_and_within_the_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same, seen from inside: what `atexit` calls."""
    monkeypatch.setattr(runtime.PROCESS, "exit_limit", 0.0)
    oldest, stuck, broken = bench.lab("oldest"), bench.lab("stuck"), bench.lab("broken")
    sup = bench.supervise(bench.child("leaf"))
    gate = Gate()
    stuck.cast(gate)
    gate.wait_reached()
    limits: list[float] = []

    def fail(timeout: float) -> bool:
        limits.append(timeout)
        raise Boom("boom")

    def drain(timeout: float) -> bool:
        limits.append(timeout)
        return ServerRef.drain(oldest, PATIENCE)

    monkeypatch.setattr(broken, "drain", fail)
    monkeypatch.setattr(oldest, "drain", drain)
    set_exit_limit(0.5)
    runtime._drain_at_exit()
    gate.open()
    assert stuck.stop(PATIENCE)
    monkeypatch.undo()
    assert [ref.state for ref in (oldest, sup, bench["leaf"])] == ["closed"] * 3
    assert 0.0 < limits[0] <= 0.5
    assert limits[1:] == [0.0], "the stuck one has used it up"
    assert "<ServerRef 'stuck' ready> was not drained before" in caplog.text
    assert "<ServerRef 'broken' ready> could not be drained" in caplog.text
    assert [name for name, _ in bench.noted("terminate")] == ["leaf", "oldest", "stuck"]


def test_interpreter_exit_is_not_held_up_for_ever() -> None:
    done = run_python(
        PRELUDE
        + """
set_exit_limit(0.2)
ref = ServerRef("stuck")
ref.start(Echo)
reached = threading.Event()
ref.cast(lambda server: (reached.set(), threading.Event().wait()))
reached.wait()
print("bye")
"""
    )
    assert done.returncode == 0
    assert done.stdout == "bye\n"
    assert "was not drained before the interpreter exited" in done.stderr


def test_interpreter_exit_works_from_an_exit_handler_and_without_executors() -> None:
    """The shutdown path needs no executor: those are gone by then."""
    done = run_python(
        PRELUDE
        + """
import atexit
ref = ServerRef("a")
ref.start(Echo)
atexit.register(lambda: print(ref.call("still there")))
"""
    )
    assert done.stdout == "still there\n", done.stderr


def test_interpreter_exit_drains_after_foreign_threads_have_ended() -> None:
    done = run_python(
        PRELUDE
        + """
ref = ServerRef("a")
ref.start(Echo)
main_is_over = threading.main_thread().join

def late():
    main_is_over(0.1)
    print(ref.call("served"))

threading.Thread(target=late).start()
"""
    )
    assert done.stdout == "served\n", done.stderr
