"""After an erasure a search of every byte of the folder finds nothing of the session."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest

from sessionkeeper import (
    DeleteSession,
    EraseSession,
    OutcomeUnknown,
    SaveSession,
    SessionNotFound,
    SessionStore,
    StorageFailed,
    UnreadFailures,
)
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.fulltext import FullText
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import EventLog, Fault, FaultyFileSystem, Injected, crash_actor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper import Receipt
    from sessionkeeper.session import Chunk

ID = "patient-4711-zebra"
SECRET = "quagga-in-the-waiting-room"  # noqa: S105 - what must not be found
WORD = "quagga"  # as a text index cuts it out
LEVELS = pytest.mark.parametrize("durability", ["journal", "file", "os"])
Level = Literal["journal", "file", "os"]


def traces(folder: Path) -> list[str]:
    """Every file with a byte of the session in it, or in its name."""
    found = []
    for path in folder.rglob("*"):
        if ID in path.name:
            found.append(f"name {path}")
        if path.is_file():
            content = path.read_bytes()
            found += [
                f"{word} in {path}" for word in (ID, SECRET, WORD) if word.encode() in content
            ]
    return found


def lived_in(store: SessionStore) -> None:
    """A session that has left its traces everywhere, among others that have too."""
    for number in range(120):
        store.save_session(f"other-{number}", ["kept", number], tags=[f"tag-{number % 7}"])
    for number in range(4):
        store.save_session(ID, [SECRET, number], tags=[SECRET], title=SECRET, state=SECRET)
        store.append(ID, [SECRET * 3])
    store.save_session("other-1", ["kept", 1, "again"])
    store.delete_session(ID)
    store.save_session(ID, [SECRET, "anew", "x" * 70_000], metadata={"word": SECRET})
    store.checkpoint()
    assert [info.session_id for info in store.search(tags=[SECRET])] == []
    store.append(ID, [SECRET, "unpublished"])
    store.save_session(ID, tags=[SECRET])
    assert [info.session_id for info in store.search(tags=[SECRET])] == [ID]


@LEVELS
def test_nothing_is_left(folder: Path, durability: Level) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        log = EventLog(store)
        lived_in(store)
        assert traces(folder)
        erased = store.erase_session(ID)
        assert traces(folder) == []
        assert erased.session_id == ID
        assert erased.files >= 5
        assert erased.size > 70_000
        assert len(log.of_kind("erased")) == 1
        with pytest.raises(SessionNotFound):
            store.load_session(ID)
        with pytest.raises(SessionNotFound):
            store.undelete_session(ID)
        assert list(store.search(tags=[SECRET])) == []
        assert len(store) == 120
    assert traces(folder) == []
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        assert store.last_recovery.problems == []
        assert len(store) == 120
        assert store.load_session("other-1").messages == ["kept", 1, "again"]
        assert store.load_session("other-119").messages == ["kept", 119]
        assert ID not in store
    assert traces(folder) == []


def in_text_index(folder: Path) -> list[str]:
    return [trace for trace in traces(folder) if "text.db" in trace]


@LEVELS
def test_nothing_is_left_in_the_text_index(folder: Path, durability: Level) -> None:
    more: dict[str, Any] = {"durability": durability, "full_text": True, "watch": False}
    with SessionStore.open(folder, **more) as store:
        lived_in(store)
        assert [info.session_id for info in store.search(text=WORD)] == [ID]
        assert len(in_text_index(folder)) > 2
        store.erase_session(ID, timeout=30)
        assert traces(folder) == []
        assert list(store.search(text=WORD)) == []
        assert len(store.search(text="kept")) == 120
        store.append(ID, [SECRET])
        assert len(store.search(text=WORD)) == 1
        store.delete_session(ID)
        assert list(store.search(text=WORD)) == [], "what is in the trash is not found"
        assert len(in_text_index(folder)) > 0
        store.erase_session(ID, timeout=30)
        assert traces(folder) == []
    assert traces(folder) == []
    with SessionStore.open(folder, **more) as store:
        assert len(store.search(text="kept")) == 120
    assert traces(folder) == []


def test_a_text_index_that_cannot_be_cleaned_in_time_goes_whole(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing does not wait for it, and the text index is made anew by the next opening."""
    asked = threading.Event()

    def refuse(_: FullText) -> None:
        asked.set()
        raise IndexFailed("a query is under way", passing=True)

    monkeypatch.setattr(FullText, "scrub", refuse)
    store = SessionStore.open(folder, full_text=True, watch=False)
    lived_in(store)
    assert len(store.search(text=WORD)) == 1
    receipt = store.tell(EraseSession(ID))
    assert asked.wait(10)
    assert not receipt.done()
    with pytest.raises(UnreadFailures):  # the caller is not told that it was done
        store.close()
    assert traces(folder) == []
    monkeypatch.undo()
    with SessionStore.open(folder, full_text=True, watch=False) as store:
        assert len(store.search(text="kept")) == 120
    assert traces(folder) == []


@pytest.mark.parametrize("before", [False, True])
def test_a_text_index_that_is_switched_off_holds_nothing(
    folder: Path,
    before: bool,  # noqa: FBT001 - a case
) -> None:
    with SessionStore.open(folder, full_text=True, watch=False) as store:
        lived_in(store)
        assert len(store.search(text=WORD)) == 1
        if before:
            store.configure(full_text=False)
            store.erase_session(ID)
        else:
            store.tell(EraseSession(ID))
            store.configure(full_text=False)
            store.erase_session(ID)
        assert traces(folder) == []


def test_what_was_set_aside_goes_too(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(ID, [SECRET])
        store.save_session(f"{ID}.2", ["kept"])
    damaged = folder / f"{ID}.json"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    neighbour = folder / f"{ID}.2.json"
    neighbour.write_bytes(neighbour.read_bytes()[:-9])
    with SessionStore.open(folder, watch=False) as store:
        quarantine = folder / ".sessionkeeper" / "quarantine"
        assert len(list(quarantine.iterdir())) == 4
        store.erase_session(ID)
        assert SECRET.encode() not in b"".join(p.read_bytes() for p in quarantine.iterdir())
        kept = [path.name for path in quarantine.iterdir()]
        assert len(kept) == 2, "what is another session's stays"
        assert all(name.startswith(f"{ID}.2.") for name in kept)


def test_a_session_that_never_was_is_no_error(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("other", [1])
        assert store.erase_session("nobody").files == 0
        assert store.load_session("other").messages == [1]


def test_a_twin_of_its_name_stays(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("twin", ["first"])
        store.save_session("TWIN", ["second"])
        store.erase_session("TWIN")
        assert store.load_session("twin").messages == ["first"]
        assert "TWIN" not in store


def test_the_order_of_commands_is_kept(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        receipts: list[Receipt[Any]] = [
            store.tell(SaveSession(ID, [SECRET])),
            store.tell(EraseSession(ID)),
            store.tell(SaveSession(ID, ["anew"])),
            store.tell(DeleteSession(ID)),
            store.tell(SaveSession(ID, ["last"])),
        ]
        assert [receipt.exception(10) for receipt in receipts] == [None] * 5
        assert store.load_session(ID).messages == ["last"]
        store.flush()
        content = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
        assert SECRET.encode() not in content


@LEVELS
def test_a_medium_that_refuses_in_between_does_not_stop_it(
    folder: Path,
    durability: Level,
) -> None:
    """The actor comes up again and does it once more; the caller waits and gets its answer."""
    fs = FaultyFileSystem()
    inject = Injected(fs=fs)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        lived_in(store)
        fs.fail(Fault("unlink", OSError(errno.EIO, os.strerror(errno.EIO))))
        store.erase_session(ID, timeout=30)
        assert traces(folder) == []


def test_a_journal_that_refuses_changes_nothing(folder: Path) -> None:
    fs = FaultyFileSystem()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session(ID, [SECRET])
        store.checkpoint()
        fs.fail(Fault("write_at", full, times=2))
        with pytest.raises((StorageFailed, OutcomeUnknown)):
            store.erase_session(ID)
        fs.heal()
        assert store.load_session(ID).messages == [SECRET]


@LEVELS
def test_a_crash_of_the_actor_does_not_bring_it_back(folder: Path, durability: Level) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        lived_in(store)
        store.erase_session(ID)
        crash_actor(store)
        store.flush()
        assert ID not in store
        assert traces(folder) == []


class Holding(FileSystem):
    """Once armed, lets nobody write a new session file before it is told to."""

    def __init__(self) -> None:
        self.armed = False
        self.held = threading.Event()
        self.going_on = threading.Event()

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        if self.armed and path.parent.name == "tmp":
            self.held.set()
            assert self.going_on.wait(10)
        return super().begin_new(path, chunks)


def test_what_a_checkpoint_under_way_is_writing_goes_before_the_answer(folder: Path) -> None:
    fs = Holding()
    store = SessionStore.open(folder, watch=False, inject=Injected(fs=fs))
    try:
        store.save_session(ID, ["begun"])
        store.save_session("other", [])
        log = EventLog(store)
        fs.armed = True
        store.append(ID, [SECRET])
        waiting = threading.Thread(target=store.checkpoint)
        waiting.start()
        assert fs.held.wait(10), "a file of the session is on its way"
        receipt = store.tell(EraseSession(ID))
        log.wait_for("erased")
        for number in range(20):  # actor and indexer go on, and still it is not done
            store.append("other", [number])
            assert len(store.search(limit=1)) == 1
        assert not receipt.done()
        fs.going_on.set()
        assert receipt.result(10).session_id == ID
        assert traces(folder) == []
        waiting.join(10)
        assert not waiting.is_alive(), "who waited for that checkpoint is answered"
    finally:
        fs.going_on.set()
        store.close()
