"""Part 2: a process that writes is killed with SIGKILL, and its folder is opened again."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from sessionkeeper.cli.drill.count import count
from sessionkeeper.cli.drill.ledger import Ledger
from sessionkeeper.cli.drill.part import PATIENCE, DrillError, Part, Plan, marks_found, work_on
from sessionkeeper.cli.drill.worker import decode_line
from sessionkeeper.store import SessionStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sessionkeeper.cli.drill.part import Watch

NAME: Final = "process killed (SIGKILL)"
_WORKER: Final = "sessionkeeper.cli.drill.worker"


def kill_part(folder: Path, plan: Plan, watch: Watch) -> Part:
    """Let a process write, kill it while it is at it, open its folder and count.

    Args:
        folder: Where the process creates its store.
        plan: How.
        watch: Called now and then with the share done and the messages acknowledged.

    Raises:
        DrillError: The process stood still, or ended by itself.
    """
    ledger = Ledger()
    with _worker(folder, plan.threads, ledger) as worker:
        worker.wait_until_writing()
        work_on(ledger, plan.seconds, plan.threads * 10, watch)
        worker.kill()
    opened = time.perf_counter()
    with SessionStore.open(folder) as store:
        ready = time.perf_counter() - opened
        found = marks_found(store)
    return Part(
        name=NAME,
        count=count(ledger.acknowledged(), found),
        sessions=len(found),
        restarts=1,
        planned=1,
        ready=(ready,),
    )


@contextmanager
def _worker(folder: Path, threads: int, ledger: Ledger) -> Iterator[_Worker]:
    command = [sys.executable, "-m", _WORKER, str(folder), str(threads)]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        worker = _Worker(process, complaints, ledger)
        try:
            yield worker
        finally:
            process.kill()
            worker.join()


class _Worker:
    """The process, and the thread that enters its acknowledgements in the ledger."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        complaints: IO[bytes],
        ledger: Ledger,
    ) -> None:
        self._process = process
        self._complaints = complaints
        self._ledger = ledger
        self._reader = threading.Thread(target=self._read, name="acknowledgements")
        self._reader.start()

    def join(self) -> None:
        """Wait until all that it has acknowledged is entered; it has ended."""
        self._reader.join()

    def wait_until_writing(self) -> None:
        """Wait for the first acknowledgement."""
        if not self._ledger.wait_for(1, PATIENCE):
            raise self._failure("wrote nothing")

    def kill(self) -> None:
        """Kill it while it writes, and wait until all it had acknowledged is entered."""
        if not self._ledger.wait_for(self._ledger.total + 1, PATIENCE):
            raise self._failure("stood still")
        self._process.kill()
        self.join()
        if self._process.wait() != -signal.SIGKILL:
            raise self._failure("was not killed but ended by itself")

    def _read(self) -> None:
        try:
            for line in self._process.stdout or ():
                if line.endswith(b"\n"):
                    self._ledger.note(*decode_line(line))
        finally:
            self._ledger.close()

    def _failure(self, what: str) -> DrillError:
        self._complaints.seek(0)
        complaints = self._complaints.read().decode(errors="replace").strip()
        last = complaints.splitlines()[-1] if complaints else "it said nothing"
        return DrillError(f"the writing process {what}: {last}")
