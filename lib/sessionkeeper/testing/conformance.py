"""What every backend must do, as one suite for ours and for those of others.

Idea: CubDB and litestream run one suite on every implementation of a contract.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sessionkeeper.answers import Trashed
from sessionkeeper.storage.backend import Put, Trash
from sessionkeeper.storage.documents import Document, Record, Request
from sessionkeeper.storage.lines import Lines, encode_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.storage.backend import Backend

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


def _document(session_id: str, lsn: int, *, generation: int = 1, text: str = "hello") -> Document:
    messages = [{"role": "user", "content": text}]
    request = Request(f"request-{lsn}", generation, len(messages), keyed=False)
    return Document(
        Record(
            session_id=session_id,
            generation=generation,
            lsn=lsn,
            created_at=NOW,
            updated_at=NOW,
            completed_at=None,
            persisted_until=None,
            status="active",
            title="A title",
            summary=None,
            tags=("one", "two"),
            message_count=len(messages),
            total_cost=1.5,
            metadata=b'{"a":1}',
            requests=(request,),
        ),
        Lines(encode_lines(messages)),
        b'{"step":1}',
    )


def _trash(document: Document, lsn: int, at: datetime = NOW) -> Trash:
    return Trash(document.record, lsn, "deleted", at, f"request-{lsn}")


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: found {found!r}, expected {expected!r}")


def _an_empty_backend_is_empty(backend: Backend) -> None:
    report = backend.recover()
    _expect((report.records, report.lsn, report.problems), ({}, 0, []), "an empty backend")
    _expect(list(backend.keys()), [], "its keys")
    _expect(backend.read("absent"), None, "reading an absent session")
    _expect(backend.trashed("absent"), None, "an absent session in the trash")


def _what_is_put_is_read(backend: Backend) -> None:
    backend.recover()
    document = _document("s1", 1)
    backend.commit([Put(document)])
    read = backend.read("s1")
    _expect(read, document, "what was put")
    _expect(list(backend.keys()), ["s1"], "the keys")


def _the_last_put_of_a_batch_wins(backend: Backend) -> None:
    backend.recover()
    newest = _document("s1", 2, generation=2, text="second")
    backend.commit([Put(_document("s1", 1)), Put(newest)])
    _expect(backend.read("s1"), newest, "the newest version")


def _recovery_finds_what_was_committed(backend: Backend) -> None:
    backend.recover()
    first, second = _document("s1", 1), _document("s2", 2)
    backend.commit([Put(first), Put(second)])
    report = backend.recover()
    _expect(report.records, {"s1": first.record, "s2": second.record}, "the records")
    _expect(report.lsn, 2, "the highest number")
    _expect(report.problems, [], "problems")


def _recovery_knows_the_requests(backend: Backend) -> None:
    backend.recover()
    kept, gone = _document("s1", 1), _document("s2", 2)
    backend.commit([Put(kept), Put(gone), _trash(gone, 3)])
    report = backend.recover()
    _expect(report.answer("s1", "request-1"), kept.record.requests[0].answer("s1"), "a put")
    _expect(report.answer("s2", "request-2"), gone.record.requests[0].answer("s2"), "put, deleted")
    _expect(report.answer("s2", "request-3"), expected=True, what="a delete")
    _expect(report.answer("s1", "request-9"), None, "a request that never was")


def _what_is_trashed_is_gone_and_kept(backend: Backend) -> None:
    backend.recover()
    document = _document("s1", 1)
    backend.commit([Put(document)])
    backend.commit([_trash(document, 2)])
    _expect(backend.read("s1"), None, "reading a trashed session")
    _expect(list(backend.keys()), [], "the keys")
    _expect(backend.trashed("s1"), document, "the trashed version")
    _expect(backend.removals(), [Trashed("s1", NOW, "deleted")], "the list of the trash")
    _expect(backend.recover().lsn, 2, "the highest number after a delete")


def _a_batch_is_applied_in_order(backend: Backend) -> None:
    backend.recover()
    old, new = _document("s1", 1, text="old"), _document("s1", 3, text="new")
    backend.commit([Put(old), _trash(old, 2), Put(new)])
    _expect(backend.read("s1"), new, "the session made after the delete")
    _expect(backend.trashed("s1"), old, "the one deleted")


def _the_trash_is_purged_by_time(backend: Backend) -> None:
    backend.recover()
    early, late = _document("s1", 1), _document("s2", 2)
    later = NOW + timedelta(days=2)
    backend.commit([Put(early), Put(late), _trash(early, 3), _trash(late, 4, later)])
    _expect(backend.purge(NOW + timedelta(days=1)), ["s1"], "what was purged")
    _expect(backend.trashed("s1"), None, "the purged version")
    _expect([each.session_id for each in backend.removals()], ["s2"], "what is left in the trash")
    _expect(backend.trashed("s2"), late, "the version still in its grace")


def _awkward_ids_are_kept_apart(backend: Backend) -> None:
    backend.recover()
    ids = [
        "Abc",
        "abc",
        "a:b",
        "a@b",
        "café",
        "cafe\u0301",
        "-rf",
        "x" * 1000,
        "x" * 999 + "y",
        "a%41",
    ]
    documents = {i: _document(i, n, text=i) for n, i in enumerate(ids, start=1)}
    backend.commit([Put(document) for document in documents.values()])
    for session_id, document in documents.items():
        _expect(backend.read(session_id), document, f"session {session_id[:20]!r}")
    _expect(set(backend.recover().records), set(ids), "the ids after recovery")
    for session_id, document in documents.items():
        _expect(backend.read(session_id), document, f"session {session_id[:20]!r} afterwards")


def _nothing_is_suspect_after_a_commit(backend: Backend) -> None:
    backend.recover()
    backend.commit([Put(_document("s1", 1))])
    _expect(backend.suspects(), [], "suspects")
    _expect(backend.changed([backend.file_name("s1")]), [], "changed files")
    found = backend.reconcile([backend.file_name("s1")], 1)
    _expect((found.records, found.vanished, found.problems), ([], [], []), "a reconciliation")
    _expect(found.lsn, 1, "its number")


CASES: Final[tuple[Callable[[Backend], None], ...]] = (
    _an_empty_backend_is_empty,
    _what_is_put_is_read,
    _the_last_put_of_a_batch_wins,
    _recovery_finds_what_was_committed,
    _recovery_knows_the_requests,
    _what_is_trashed_is_gone_and_kept,
    _a_batch_is_applied_in_order,
    _the_trash_is_purged_by_time,
    _awkward_ids_are_kept_apart,
    _nothing_is_suspect_after_a_commit,
)
"""The cases, for runners that want one test for each."""


def backend_conformance(make: Callable[[], Backend]) -> int:
    """Run every case on a new backend of its own.

    Args:
        make: Returns an empty backend; called once for each case.

    Returns:
        How many cases passed: all of them.

    Raises:
        AssertionError: A case failed; the text says which.
    """
    for case in CASES:
        backend = make()
        try:
            case(backend)
        except AssertionError as error:
            name = case.__name__.strip("_").replace("_", " ")
            raise AssertionError(f"{name}: {error}") from error
        finally:
            backend.close()
    return len(CASES)
