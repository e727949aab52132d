"""Where the time of a change goes, step by step and thread by thread: `python -m bench.path`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.disk import GIB, choose
from bench.machine import describe
from bench.payloads import message, session
from sessionkeeper import AppendMessages, SaveSession, SessionStore
from sessionkeeper.clock import SystemClock
from sessionkeeper.engine.apply import Transaction
from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.view import View
from sessionkeeper.layout import Layout
from sessionkeeper.retention import Retention
from sessionkeeper.storage.folder import prepare_folders
from sessionkeeper.storage.journaled import JournaledBackend
from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sessionkeeper import Command, Saved

# So many commands make one turn, as 64 threads send them.
TURN = 64
_KINDS = ("append", "save")
_CACHE = 64 * 2**20
_DISK = 2 * GIB


def commands_of(kind: str) -> Iterator[Command[Saved]]:
    """What is sent: messages of 4 KiB for 64 sessions in turn, or new sessions of 16 KB."""
    text, texts = [message(0)], session()
    for number in count():
        if kind == "append":
            yield AppendMessages(f"s{number % TURN}", text)
        else:
            yield SaveSession(f"s{number}", texts)


def steps(kind: str, folder: Path, turns: int) -> dict[str, float]:
    """What each step of one command takes in one thread that nobody disturbs.

    Args:
        kind: `append` or `save`.
        folder: An empty one.
        turns: How many turns are timed; the medians count.

    Returns:
        Microseconds for one command of a full turn, by the name of the step.
    """
    layout, clock = Layout.of(folder, "flat"), SystemClock()
    prepare_folders(FileSystem(), layout)
    backend = JournaledBackend(layout, clock)
    view = View(backend, SessionCache(_CACHE, 300.0, clock), 5.0, lambda _: None)
    view.recovered(backend.recover())
    retention, sent = Retention(None, None), commands_of(kind)
    taken: dict[str, list[float]] = {}
    for _ in range(turns):
        given = [next(sent) for _ in range(TURN)]
        with _timed(taken, "encode, in the caller's thread"):
            prepared = [command.prepare() for command in given]
        transaction = Transaction(view, view.lsn, clock, retention)
        with _timed(taken, "apply"):
            for number, command in enumerate(prepared):
                transaction.run(command, f"{number:x}")
        with _timed(taken, "commit: files, journal, sync"):
            backend.commit(transaction.changes)
        with _timed(taken, "publish"):
            view.publish(transaction.changes, transaction.lsn)
    backend.close()
    return {step: median(times) for step, times in taken.items()}


@contextmanager
def _timed(taken: dict[str, list[float]], step: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    taken.setdefault(step, []).append((time.perf_counter() - begun) / TURN * 1e6)


def processor_time(kind: str, folder: Path, threads: int, each: int) -> dict[str, float]:
    """What one command takes of the processor in an open store that many threads write to.

    Args:
        kind: `append` or `save`.
        folder: An empty one.
        threads: How many write.
        each: How many commands each of them sends.

    Returns:
        Microseconds for one command, by the name of the thread; `callers` for all that write.
        `in all` is the time that passed.
    """
    lock, sent = threading.Lock(), commands_of(kind)
    callers: list[float] = []

    with SessionStore.open(folder, watch=False) as store:

        def write() -> None:
            with lock:
                given = [next(sent) for _ in range(each)]
            begun = time.thread_time()
            for command in given:
                store.ask(command, timeout=60)
            callers.append(time.thread_time() - begun)

        others = [(t.name, t.ident) for t in threading.enumerate() if t.ident is not None]
        before = {name: _processor_time_of(ident) for name, ident in others}
        begun = time.perf_counter()
        _run_all([write] * threads)
        passed = time.perf_counter() - begun
        used = {
            name.removeprefix("sessionkeeper."): _processor_time_of(ident) - before[name]
            for name, ident in others
            if name.startswith("sessionkeeper.")
        }
    total = threads * each / 1e6
    figures = {"callers": sum(callers), **used, "in all": passed}
    return {name: seconds / total for name, seconds in figures.items()}


def _processor_time_of(ident: int) -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def _run_all(jobs: Sequence[Callable[[], object]]) -> None:
    workers = [threading.Thread(target=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _print_table(title: str, columns: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}, µs for one")
    print(f"{'':32}" + "".join(f"{kind:>10}" for kind in columns))
    for name in dict.fromkeys(name for figures in columns.values() for name in figures):
        cells = [f"{figures.get(name, 0.0):10.1f}" for figures in columns.values()]
        print(f"{name:32}" + "".join(cells))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.path", description=__doc__)
    parser.add_argument("--path", type=Path, default=Path(), help="work in a folder in there")
    parser.add_argument("--here", action="store_true", help="not on a file system of its own")
    parser.add_argument("--turns", type=int, default=100, help="how many turns are timed")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.path))
    try:
        disk = choose(folder, _DISK, here=options.here)
        machine = describe("python -m bench.path", disk.description)
        print(f"{machine.date}  {machine.command}, load {machine.load:.1f}")
        print(f"{machine.system}, {machine.cpus} CPUs ({machine.cpu}), {machine.python}")
        print(f"file system: {machine.file_system}")
        alone: dict[str, dict[str, float]] = {}
        together: dict[str, dict[str, float]] = {}
        for kind in _KINDS:
            with disk.fresh() as place:
                alone[kind] = steps(kind, place / "steps", options.turns)
                each = options.turns
                together[kind] = processor_time(kind, place / "threads", TURN, each)
        _print_table("each step in one thread, 64 to a turn", alone)
        _print_table("processor time by thread, 64 threads write", together)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
