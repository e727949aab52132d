"""A large version is brought to the medium by the thread that saves it, not by the actor."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import Conflict, NotExecuted, SaveSession, SessionStore, StorageFailed
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Fault, FaultyFileSystem, Injected, crash_actor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sessionkeeper import Event
    from sessionkeeper.session import Chunk

LARGE = [{"n": number, "text": "x" * 1000} for number in range(500)]


class ThreadNotes(FileSystem):
    """Notes which thread writes how much at once."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        self._note(chunks)
        return super().begin_new(path, chunks)

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        self._note(chunks)
        super().write_at(descriptor, chunks, offset)

    def _note(self, chunks: Sequence[Chunk]) -> None:
        self.written.append((threading.current_thread().name, sum(map(len, chunks))))


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".sessionkeeper" / "tmp").iterdir()]


@pytest.fixture
def fs() -> FaultyFileSystem:
    return FaultyFileSystem()


@pytest.fixture
def faulty(folder: Path, fs: FaultyFileSystem) -> Iterator[SessionStore]:
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as opened:
        yield opened


def test_the_caller_writes_what_is_large_and_the_actor_only_the_end(folder: Path) -> None:
    notes = ThreadNotes()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=notes)) as store:
        store.save_session("small", [1])  # makes the journal's segments
        notes.written.clear()
        store.save_session("s1", LARGE, state={"step": 1}, tags=["t"])
        by_caller = [size for name, size in notes.written if name == "MainThread"]
        by_actor = [size for name, size in notes.written if name != "MainThread"]
        assert by_caller == [pytest.approx(500_000, rel=0.1)]
        assert 0 < max(by_actor) <= 8192
        assert temporaries(folder) == []
        assert store.load_session("s1").messages == LARGE
    with SessionStore.open(folder, watch=False) as store:
        session = store.load_session("s1")
        assert (session.messages, session.state, session.tags) == (LARGE, {"step": 1}, ("t",))
        assert store.last_recovery.problems == []


def test_a_large_save_that_is_refused_leaves_nothing(faulty: SessionStore, folder: Path) -> None:
    faulty.save_session("s1", ["kept"])
    with pytest.raises(Conflict):
        faulty.save_session("s1", LARGE, expected_generation=7)
    assert temporaries(folder) == []
    assert faulty.load_session("s1").messages == ["kept"]


@pytest.mark.parametrize("operation", ["write_new", "sync", "sync_folder"])
def test_a_medium_without_room_for_a_large_save_refuses_it(
    operation: str,
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    faulty.save_session("s1", ["kept"])
    faulty.checkpoint()
    fs.fail(Fault(operation, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(StorageFailed):
        faulty.save_session("s1", LARGE)
    assert temporaries(folder) == []
    assert faulty.load_session("s1").messages == ["kept"]
    assert faulty.save_session("s1", LARGE).generation == 2


class Turn:
    """Holds the actor, so that what is sent meanwhile is taken together."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.busy, self.go = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self.unsubscribe = self.store.subscribe(self.hold)
        self.held = self.store.tell(SaveSession("held", [1]))
        assert self.busy.wait(5)

    def hold(self, event: Event) -> None:
        if event.session_id == "held":
            self.busy.set()
            self.go.wait(5)

    def __exit__(self, *_: object) -> None:
        self.unsubscribe()
        self.go.set()
        self.held.result(5)


def test_of_two_large_saves_in_one_turn_the_first_leaves_nothing(
    faulty: SessionStore,
    folder: Path,
) -> None:
    later: list[Any] = [*LARGE, "later"]
    with Turn(faulty):
        receipts = [faulty.tell(SaveSession("s1", messages)) for messages in (LARGE, later)]
        assert len(temporaries(folder)) == 2
    assert [receipt.result(5).generation for receipt in receipts] == [1, 2]
    assert temporaries(folder) == []
    assert faulty.load_session("s1").messages == later


def test_a_large_save_that_waited_through_a_crash_is_written_all_the_same(
    faulty: SessionStore,
    folder: Path,
) -> None:
    """The recovery sweeps what no record names; then the actor writes it."""
    with Turn(faulty):
        receipt = faulty.tell(SaveSession("s1", LARGE))
        for name in temporaries(folder):
            (folder / ".sessionkeeper" / "tmp" / name).unlink()
    assert receipt.result(5).generation == 1
    crash_actor(faulty)
    faulty.flush()
    assert faulty.load_session("s1").messages == LARGE


def test_a_large_save_that_was_never_begun_leaves_nothing(
    faulty: SessionStore,
    folder: Path,
) -> None:
    with Turn(faulty), pytest.raises(NotExecuted):
        faulty.ask(SaveSession("s1", LARGE), timeout=0.01)
    faulty.flush()
    assert temporaries(folder) == []
    assert "s1" not in faulty
