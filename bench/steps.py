"""A process of its own that works on a store step by step and tells what each took.

`python -m bench.steps FOLDER --sessions N create list search expire write`: a line of JSON for
each step. The benchmark starts it where memory is measured, and where a process is to be killed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from bench.growth import KeeperCatalog
    from sessionkeeper.pages import SessionOrder

# Nothing else is imported up here: what this process takes by itself is to be small.

STEPS = ("open", "create", "list", "search", "sort", "expire", "write", "close")

# One in so many sessions is from long ago.
OLD = 10
AGE_DAYS = 40
KEPT_DAYS = 30
_ASKED = 50
# So many appends are in the journal before a process can be killed.
_WRITTEN = 200


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to.

    Attributes:
        name: Of the step.
        seconds: How long it took; of `list` and `search` the median of one page, of
            `sort` that of the order which takes longest.
        resident: Bytes of memory that the process held afterwards.
        sessions: How many there were then.
    """

    name: str
    seconds: float
    resident: int
    sessions: int


def resident() -> int:
    """How many bytes of memory this process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) * 1024
    raise OSError("this system does not tell how much memory a process holds")


# --- in the process -----------------------------------------------------------------------


class _Work:
    """The steps, by their names."""

    def __init__(self, folder: Path, sessions: int) -> None:
        self._folder = folder
        self._sessions = sessions
        self._catalog: KeeperCatalog | None = None

    @property
    def catalog(self) -> KeeperCatalog:
        """The open store."""
        if self._catalog is None:
            from bench.growth import KeeperCatalog  # noqa: PLC0415 - see above

            self._catalog = KeeperCatalog(self._folder)
        return self._catalog

    def count(self) -> int:
        """How many sessions there are."""
        return len(self._catalog.store) if self._catalog is not None else 0

    def open(self) -> float:
        """Open the store."""
        import sessionkeeper  # noqa: F401, PLC0415 - not what is measured

        return _seconds(lambda: self.catalog)

    def create(self) -> float:
        """One in `OLD` sessions long ago, the others now."""
        from bench.growth import KeeperCatalog, at_another_time  # noqa: PLC0415

        old = self._sessions // OLD

        def create() -> None:
            past = KeeperCatalog(self._folder, inject=at_another_time(-AGE_DAYS))
            past.fill(range(old))
            past.close()
            self.catalog.fill(range(old, self._sessions))

        return _seconds(create)

    def list(self) -> float:
        """The newest."""
        return median(_seconds(self.catalog.page) for _ in range(_ASKED))

    def search(self) -> float:
        """The newest of a tag."""
        from bench.growth import tag_of  # noqa: PLC0415

        return median(_seconds(lambda: self.catalog.search(tag_of(0))) for _ in range(_ASKED))

    def sort(self) -> float:
        """Some pages in every order there is."""
        from sessionkeeper.storage.orders import ORDERS  # noqa: PLC0415

        return max(median(self._pages(order.name)) for order in ORDERS.values())

    def _pages(self, order: SessionOrder) -> Iterator[float]:
        from bench.growth import PAGE  # noqa: PLC0415

        cursor = None
        for _ in range(_ASKED):
            began = perf_counter()
            page = self.catalog.store.list_sessions(order=order, limit=PAGE, cursor=cursor)
            yield perf_counter() - began
            cursor = page.cursor

    def expire(self) -> float:
        """Remove what is from long ago."""
        store = self.catalog.store
        before = len(store)
        store.configure(retention_days=KEPT_DAYS)
        seconds = _seconds(store.cleanup)
        removed = before - len(store)
        if removed != self._sessions // OLD:
            print(f"{removed} sessions were removed", file=sys.stderr)
        return seconds

    def write(self) -> float:
        """Append until the process is killed; told when there is something in the journal."""
        from bench.growth import name_of  # noqa: PLC0415
        from bench.payloads import message  # noqa: PLC0415

        store, text = self.catalog.store, [message(0)]
        newest = itertools.cycle(
            name_of(number) for number in range(self._sessions - 1, self._sessions // 2, -1)
        )

        def write() -> None:
            for _ in range(_WRITTEN):
                store.append(next(newest), text)

        seconds = _seconds(write)
        _tell("write", seconds, self.count())
        while True:
            write()

    def close(self) -> float:
        """Close the store."""
        return _seconds(self.catalog.close)


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _tell(name: str, seconds: float, sessions: int) -> None:
    print(json.dumps(asdict(Step(name, seconds, resident(), sessions))), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the steps."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("steps", nargs="+", choices=STEPS)
    options = parser.parse_args(arguments)
    _tell("bare", 0.0, 0)
    work = _Work(options.folder, options.sessions)
    for name in options.steps:
        seconds = getattr(work, name)()
        _tell(name, seconds, work.count() if name != "close" else 0)


# --- outside ------------------------------------------------------------------------------


class Child:
    """That process, from outside. As a context manager it is dead on leaving.

    Args:
        folder: Of the store.
        sessions: How many.
        steps: What it does, in order.
    """

    def __init__(self, folder: Path, sessions: int, *steps: str) -> None:
        command = [sys.executable, "-m", "bench.steps", str(folder), "--sessions", str(sessions)]
        self._process = subprocess.Popen(  # noqa: S603 - this module
            [*command, *steps],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def __iter__(self) -> Iterator[Step]:
        """What it tells, until it ends.

        Raises:
            subprocess.CalledProcessError: It ended with an error, other than being killed.
        """
        output = self._process.stdout
        assert output is not None
        for line in output:
            yield Step(**json.loads(line))
        status = self._process.wait()
        if status not in (0, -signal.SIGKILL):
            raise subprocess.CalledProcessError(status, self._process.args)

    def kill(self) -> None:
        """End it as a crash of the system's choice does: with no chance to do anything."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def told(folder: Path, sessions: int, *steps: str) -> dict[str, Step]:
    """What the steps of a process came to, by name.

    Args:
        folder: See `Child`.
        sessions: See `Child`.
        steps: See `Child`; the process is killed when the last of them is told.
    """
    found: dict[str, Step] = {}
    with Child(folder, sessions, *steps) as child:
        for step in child:
            found[step.name] = step
            if step.name == steps[-1]:
                break
    return found


if __name__ == "__main__":
    main()
