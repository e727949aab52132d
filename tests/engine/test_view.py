"""What readers see while others write: never an older version than before, never half a batch."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import CorruptDocument, NotExecuted, StoreClosed
from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.view import View
from sessionkeeper.storage.backend import Put, RecoveryReport, Trash
from sessionkeeper.storage.documents import Document, Record
from sessionkeeper.storage.memory import MemoryBackend
from sessionkeeper.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2025, 1, 1, tzinfo=UTC)
RECORD = Record(
    session_id="s1",
    generation=1,
    lsn=1,
    created_at=NOW,
    updated_at=NOW,
    completed_at=None,
    persisted_until=None,
    status=None,
    title=None,
    summary=None,
    tags=(),
    message_count=0,
    total_cost=0.0,
)


def version(lsn: int, session_id: str = "s1") -> Document:
    return Document(replace(RECORD, session_id=session_id, generation=lsn, lsn=lsn))


class SlowBackend(MemoryBackend):
    """Reads a version, and lets something happen before it is handed over."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def read(self, session_id: str) -> Document | None:
        document = super().read(session_id)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return document


@pytest.fixture
def backend() -> SlowBackend:
    return SlowBackend()


@pytest.fixture
def view(backend: SlowBackend) -> View:
    made = View(backend, SessionCache(10**6, 60, FakeClock()), 0.4, lambda _: None)
    made.recovered(RecoveryReport())
    return made


def commit(backend: MemoryBackend, view: View, *documents: Document) -> None:
    batch = [Put(document) for document in documents]
    backend.commit(batch)
    view.publish(batch, documents[-1].record.lsn)


def test_a_version_read_before_a_newer_one_was_published_is_neither_given_nor_cached(
    view: View,
    backend: SlowBackend,
) -> None:
    commit(backend, view, version(1))
    view.cache.clear()

    def overtaken() -> None:
        commit(backend, view, version(2))
        view.cache.clear()

    backend.meanwhile = overtaken
    assert view.load("s1") == version(2)
    assert view.cache.get("s1") == version(2)


def test_a_session_deleted_while_it_was_read_stays_deleted(
    view: View,
    backend: SlowBackend,
) -> None:
    commit(backend, view, version(1))
    view.cache.clear()
    gone = [Trash(version(1).record, 2, "deleted", NOW, "r")]

    def overtaken() -> None:
        backend.commit(gone)
        view.publish(gone, 2)

    backend.meanwhile = overtaken
    assert view.load("s1") is None
    assert view.cache.get("s1") is None


def test_a_version_that_is_on_the_disk_and_not_published_is_waited_for(
    backend: SlowBackend,
) -> None:
    view = View(backend, SessionCache(10**6, 60, FakeClock()), 60.0, lambda _: None)
    view.recovered(RecoveryReport())
    commit(backend, view, version(1))
    view.cache.clear()
    backend.commit([Put(version(2))])
    begun = threading.Event()

    def publish() -> None:
        begun.set()
        view.publish([Put(version(2))], 2)

    publisher = threading.Timer(0.05, publish)
    publisher.start()
    assert view.load("s1") == version(2)
    assert begun.is_set(), "it was given out before it was published"
    publisher.join()


def test_a_batch_becomes_visible_at_once(view: View, backend: SlowBackend) -> None:
    """A reader that begins in the midst of a publication sees all of it or waits for it."""
    commit(backend, view, version(1, "a"), version(2, "b"))
    in_the_midst = threading.Event()
    seen: list[int] = []

    def read_both() -> None:
        assert in_the_midst.wait(5)
        for session_id in ("a", "b"):
            document = view.load(session_id)
            assert document is not None
            seen.append(document.record.lsn)

    reader = threading.Thread(target=read_both)
    plain_put = view.cache.put

    def put_slowly(document: Document) -> None:
        plain_put(document)
        if document.record.lsn == 3:
            in_the_midst.set()
            reader.join(0.1)  # it must not get through now

    view.cache.put = put_slowly  # type: ignore[method-assign]
    reader.start()
    commit(backend, view, version(3, "a"), version(4, "b"))
    reader.join(5)
    assert seen == [3, 4]


def test_a_recovery_forgets_what_is_gone_and_what_has_changed(
    view: View,
    backend: SlowBackend,
) -> None:
    commit(backend, view, version(1, "same"), version(2, "gone"), version(3, "changed"))
    view.begin_recovery()
    backend.commit([Trash(version(2, "gone").record, 4, "deleted", NOW, "r")])
    backend.commit([Put(version(5, "changed"))])
    view.recovered(backend.recover())
    assert view.load("gone") is None
    assert view.load("changed") == version(5, "changed")
    assert view.cache.get("same") is not None, "what has not changed stays cached"
    assert [record.session_id for record in view.newest_first()] == ["changed", "same"]
    assert view.lsn == 5


def test_reads_wait_for_a_recovery_and_not_for_ever(view: View) -> None:
    view.begin_recovery()
    with pytest.raises(NotExecuted):
        view.load("s1")


def test_closing_frees_whoever_waits(view: View) -> None:
    view.begin_recovery()
    closer = threading.Timer(0.05, view.close)
    closer.start()
    with pytest.raises(StoreClosed):
        view.load("s1")
    closer.join()


def test_what_was_deleted_is_never_given_however_long_its_file_stays(
    view: View,
    backend: SlowBackend,
) -> None:
    """The medium refuses to move the file of a session whose delete is acknowledged."""
    commit(backend, view, version(1))
    view.publish([Trash(version(1).record, 2, "deleted", NOW, "r")], 2)
    assert view.load("s1") is None


def test_a_version_older_than_one_that_was_acknowledged_is_never_given(
    view: View,
    backend: SlowBackend,
) -> None:
    backend.commit([Put(version(1))])
    view.publish([Put(version(2))], 2)
    view.cache.clear()
    with pytest.raises(CorruptDocument):
        view.load("s1")
