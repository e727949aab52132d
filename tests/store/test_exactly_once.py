"""Each change happens once, and its caller gets one answer, wherever the actor crashes over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import AdvanceSession, Annotation, SessionEvent, SessionStore
from sessionkeeper.testing import Fault, FaultyBackend, FaultyFileSystem, Injected, InjectedCrash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend

CHANGES: dict[str, Callable[[SessionStore], Any]] = {
    "append": lambda store: store.append("s1", ["more"]),
    "advance": lambda store: store.ask(AdvanceSession("s1", ["more"], state=1, status="paused")),
    "add tags": lambda store: store.add_tags("s1", ["new"]),
    "remove tags": lambda store: store.remove_tags("s1", ["a"]),
    "pin": lambda store: store.pin("s1"),
    "unpin": lambda store: store.unpin("pinned"),
    "resume": lambda store: store.resume("s2").generation,
    "annotate": lambda store: store.annotate("s1", "text"),
    "add event": lambda store: store.add_event("s1", "kind", {"n": 1}),
    "rename": lambda store: store.rename_session("s1", "s3"),
    "fork": lambda store: store.fork_session("s1", "s3", at=2),
    "rewind": lambda store: store.rewind("s1", message=1),
}


def prepared(store: SessionStore) -> None:
    store.save_session("s1", ["one", {"type": "result", "cost": 0.5}, "three"], tags=["a", "b"])
    store.append("s1", ["four"], key="k")
    store.save_session("s2", state={"n": 2}, status="active")
    store.save_session("pinned")
    store.pin("pinned")


def contents(store: SessionStore) -> dict[str, Any]:
    """All that callers can see, but for what depends on when it happened."""
    return {
        session.session_id: (
            session.generation,
            session.messages,
            session.state,
            session.metadata,
            session.tags,
            session.status,
            session.pinned,
            session.total_cost,
            [answer_of(note) for note in (*session.annotations, *session.events)],
        )
        for session in store.load_all()
    }


class Rig:
    """A store whose actor crashes where it is told to."""

    def __init__(self, folder: Path, durability: str) -> None:
        self.fs = FaultyFileSystem()
        self.backends: list[FaultyBackend] = []
        self.folder = folder
        self.durability = durability

    def wrap(self, backend: Backend) -> Backend:
        self.backends.append(FaultyBackend(backend))
        return self.backends[-1]

    def open(self) -> SessionStore:
        inject = Injected(fs=self.fs, wrap_backend=self.wrap)
        return SessionStore.open(
            self.folder, watch=False, durability=self.durability, inject=inject, call_timeout=20.0
        )

    def crash_at(self, point: str) -> None:
        where, when, *skipped = point.split()
        fault = Fault(
            where,
            InjectedCrash(point),
            skip=int(skipped[0]) if skipped else 0,
            after=when == "after",
        )
        (self.backends[-1] if where == "commit" else self.fs).fail(fault)


@pytest.fixture(params=["journal", "file", "memory"])
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "point",
    ["commit before", "commit after", "replace after", "replace before 1", "sync_folder before"],
)
def test_a_change_over_which_the_actor_crashes(
    name: str,
    point: str,
    durability: str,
    tmp_path: Path,
) -> None:
    change = CHANGES[name]
    with Rig(tmp_path / "calm", durability).open() as store:
        prepared(store)
        expected = change(store)
        content = contents(store)
    rig = Rig(tmp_path / "rough", durability)
    with rig.open() as store:
        prepared(store)
        rig.crash_at(point)
        assert answer_of(change(store)) == answer_of(expected)
        rig.fs.heal()
        if point.startswith("commit"):
            assert store.info().restarts == 1, "the crash must have happened"
        assert contents(store) == content
    if durability != "memory":
        with SessionStore.open(tmp_path / "rough", watch=False) as store:
            assert contents(store) == content


def answer_of(answer: Any) -> Any:
    """An answer without what is made anew for each call."""
    match answer:
        case Annotation():
            return answer.text, answer.kind
        case SessionEvent():
            return answer.kind, answer.data
    return answer
