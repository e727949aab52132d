"""Part 1: the actor is crashed again and again while threads write."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from sessionkeeper.cli.drill.count import count
from sessionkeeper.cli.drill.ledger import Ledger
from sessionkeeper.cli.drill.part import PATIENCE, DrillError, Part, Plan, marks_found, work_on
from sessionkeeper.cli.drill.writers import Crew
from sessionkeeper.store import SessionStore
from sessionkeeper.testing import Fault, FaultyBackend, Injected, InjectedCrash, crash_actor

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.cli.drill.part import Watch
    from sessionkeeper.events import Event
    from sessionkeeper.storage.backend import Backend

NAME: Final = "actor crashed"


def crash_part(folder: Path, plan: Plan, watch: Watch) -> Part:
    """Write, crash, write on; then count in the files.

    Args:
        folder: Where the store is created.
        plan: How.
        watch: Called now and then with the share done and the messages acknowledged.

    Raises:
        DrillError: The writers stood still, or the store did not come back.
    """
    ledger = Ledger()
    saboteur = _Saboteur()
    with SessionStore.open(
        folder,
        inject=Injected(wrap_backend=saboteur.wrap),
        max_restarts=plan.crashes + 5,
        call_timeout=PATIENCE,
    ) as store:
        store.subscribe(saboteur.listen)
        with Crew(store, plan.threads, ledger.note, lambda _: ledger.close()):
            _work_and_crash(store, saboteur, ledger, plan, watch)
        restarts = store.info().restarts
        processes = tuple(store.processes())
    with SessionStore.open(folder, read_only=True) as store:
        found = marks_found(store)
    return Part(
        name=NAME,
        count=count(ledger.acknowledged(), found),
        sessions=len(found),
        restarts=restarts,
        planned=plan.crashes,
        ready=tuple(saboteur.ready),
        processes=processes,
    )


def _work_and_crash(
    store: SessionStore,
    saboteur: _Saboteur,
    ledger: Ledger,
    plan: Plan,
    watch: Watch,
) -> None:
    pieces = plan.crashes + 1
    for piece in range(pieces):
        piece_watch = _watch_of_piece(watch, piece, pieces)
        work_on(ledger, plan.seconds / pieces, plan.threads, piece_watch)
        if piece < plan.crashes:
            saboteur.crash(store, within_commit=bool(piece % 2))


def _watch_of_piece(watch: Watch, piece: int, pieces: int) -> Watch:
    return lambda share, total: watch((piece + share) / pieces, total)


class _Saboteur:
    """Crashes the actor in two ways, and takes the time until it is ready again.

    Attributes:
        ready: Seconds from each crash to the end of the recovery that followed.
    """

    def __init__(self) -> None:
        self.ready: list[float] = []
        self._crashed_at: float | None = None
        self._changed = threading.Condition()
        self._backend: FaultyBackend | None = None

    def wrap(self, backend: Backend) -> Backend:
        self._backend = FaultyBackend(backend)
        return self._backend

    def listen(self, event: Event) -> None:
        with self._changed:
            if event.kind == "crashed":
                self._crashed_at = time.perf_counter()
            elif event.kind == "recovered" and self._crashed_at is not None:
                self.ready.append(time.perf_counter() - self._crashed_at)
                self._crashed_at = None
                self._changed.notify_all()

    def crash(self, store: SessionStore, *, within_commit: bool) -> None:
        """Crash it: in the middle of a turn, or behind a commit before anybody is answered.

        The second is where exactly-once is decided: the changes are on the disk, their callers
        do not know it, and the next incarnation must neither forget nor repeat them.
        """
        expected = len(self.ready) + 1
        if within_commit and self._backend is not None:
            self._backend.fail(Fault("commit", InjectedCrash("behind a commit"), after=True))
        else:
            crash_actor(store)
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.ready) >= expected, PATIENCE):
                raise DrillError(f"the actor was not back within {PATIENCE:g} s")
