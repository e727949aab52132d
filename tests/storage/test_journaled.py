"""The journaled backend: the journal decides, the files follow, nothing counts twice."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import CorruptDocument, OutcomeUnknown, SessionStore, StorageFailed
from sessionkeeper.layout import Layout
from sessionkeeper.storage import journal as journal_module
from sessionkeeper.storage.backend import Append, Put, Trash
from sessionkeeper.storage.checkpoints import REWRITE_BYTES
from sessionkeeper.storage.commits import INLINE_BYTES
from sessionkeeper.storage.documents import Document, Request, decode_foreign
from sessionkeeper.storage.folder import prepare_folders
from sessionkeeper.storage.frames import frames_in, journal_id_of
from sessionkeeper.storage.journaled import JournaledBackend
from sessionkeeper.storage.lines import encode_lines
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.testing import (
    CASES,
    EventLog,
    FakeClock,
    Fault,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    backend_conformance,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sessionkeeper.events import Event
    from sessionkeeper.storage.backend import Backend, Change, RecoveryReport

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SMALLEST", 64 * 1024)
    monkeypatch.setattr(journal_module, "LARGEST", 1024 * 1024)


@pytest.fixture
def fs() -> FaultyFileSystem:
    return FaultyFileSystem()


class Bench:
    """A folder, the backend that works in it, and short words for what is done to them."""

    def __init__(self, folder: Path, fs: FileSystem | None = None, **settings: Any) -> None:
        self.folder = folder
        self.layout = Layout.of(folder, "flat")
        self.settings = settings
        self.events: list[Event] = []
        self.lsn = 0
        prepare_folders(FileSystem(), self.layout)
        self.report = self.come_up(fs)

    def come_up(self, fs: FileSystem | None = None) -> RecoveryReport:
        """Another process takes over the folder, the one before was killed."""
        self.backend = JournaledBackend(
            self.layout,
            FakeClock(NOW),
            fs=fs or FileSystem(),
            on_event=self.events.append,
            **self.settings,
        )
        return self.recover()

    def recover(self) -> RecoveryReport:
        self.report = self.backend.recover()
        self.lsn = max(self.lsn, self.report.lsn)
        return self.report

    def commit(self, *changes: Change) -> None:
        self.backend.commit(changes)

    def put(self, session_id: str, messages: list[Any], generation: int = 1) -> Put:
        self.lsn += 1
        fields = {
            "format": "sessionkeeper",
            "version": 1,
            "session_id": session_id,
            "messages": messages,
            "generation": generation,
            "lsn": self.lsn,
            "requests": [[f"request-{self.lsn}", generation, len(messages), False]],
        }
        return Put(decode_foreign(json.dumps(fields).encode(), NOW))

    def append(self, base: Document, messages: list[Any], whole: Document | None = None) -> Append:
        self.lsn += 1
        record = replace(
            base.record,
            generation=base.record.generation + 1,
            lsn=self.lsn,
            message_count=base.record.message_count + len(messages),
            requests=(
                Request(
                    f"request-{self.lsn}",
                    base.record.generation + 1,
                    base.record.message_count + len(messages),
                    keyed=False,
                ),
            ),
        )
        return Append(record, base.record, encode_lines(messages), whole)

    def trash(self, document: Document) -> Trash:
        self.lsn += 1
        return Trash(document.record, self.lsn, "deleted", NOW, f"request-{self.lsn}")

    def saved(self, session_id: str, messages: list[Any]) -> Document:
        change = self.put(session_id, messages)
        self.commit(change)
        return change.document

    def appended(self, session_id: str, messages: list[Any]) -> None:
        document = self.backend.read(session_id)
        assert document is not None
        self.commit(self.append(document, messages))

    def messages(self, session_id: str) -> list[Any] | None:
        document = self.backend.read(session_id)
        return None if document is None else document.session().messages

    def in_file(self, session_id: str) -> list[Any]:
        fields = json.loads((self.folder / self.backend.file_name(session_id)).read_bytes())
        assert isinstance(fields["messages"], list)
        return fields["messages"]

    def sessions(self) -> dict[str, list[Any] | None]:
        return {session_id: self.messages(session_id) for session_id in self.backend.keys()}  # noqa: SIM118 - the protocol's

    def kinds(self) -> set[str]:
        return {event.kind for event in self.events}


@pytest.fixture
def bench(folder: Path) -> Bench:
    return Bench(folder)


# --- the contract of every backend --------------------------------------------------------


class Checkpointing(JournaledBackend):
    """Brings the files up to date between any two calls."""

    full = True

    def commit(self, batch: Any) -> None:
        super().commit(batch)
        assert self.checkpoint(full=self.full)

    def recover(self) -> RecoveryReport:
        report = super().recover()
        assert self.checkpoint(full=self.full)
        return report


class Recovering(JournaledBackend):
    """Is recovered twice, with a checkpoint in between."""

    def recover(self) -> RecoveryReport:
        first = super().recover()
        assert self.checkpoint(full=False)
        again = super().recover()
        assert again.records == first.records
        return again


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
@pytest.mark.parametrize("sync", [True, False], ids=["journal", "os"])
@pytest.mark.parametrize("kind", [JournaledBackend, Checkpointing, Recovering])
def test_the_contract(
    kind: type[JournaledBackend],
    sync: bool,  # noqa: FBT001 - a parameter of the test
    case: Callable[[Backend], None],
    folder: Path,
) -> None:
    layout = Layout.of(folder, "flat")
    prepare_folders(FileSystem(), layout)
    backend = kind(layout, FakeClock(NOW), sync=sync)
    case(backend)
    backend.close()


def test_the_contract_as_a_suite(tmp_path: Path) -> None:
    numbers = itertools.count()

    def make() -> JournaledBackend:
        layout = Layout.of(tmp_path / str(next(numbers)), "rooted")
        prepare_folders(FileSystem(), layout)
        return JournaledBackend(layout, FakeClock(NOW))

    assert backend_conformance(make) == len(CASES)


# --- replay -------------------------------------------------------------------------------


def work(bench: Bench, seed: int) -> None:
    """Changes of every kind, some of them brought into the files, some not."""
    rng = random.Random(seed)
    ids = ["a", "b", "c:d"]
    for step in range(25):
        session_id = rng.choice(ids)
        document = bench.backend.read(session_id)
        roll = rng.random()
        if document is None:
            size = rng.choice([1, 1, INLINE_BYTES])
            bench.commit(bench.put(session_id, [step, "x" * size]))
        elif roll < 0.15:
            bench.commit(bench.trash(document))
        elif roll < 0.3:
            generation = document.record.generation + 1
            bench.commit(bench.put(session_id, [step], generation))
        else:
            bench.commit(bench.append(document, [step]))
        if rng.random() < 0.1:
            bench.backend.checkpoint(full=rng.random() < 0.5)


def state(bench: Bench) -> tuple[Any, ...]:
    trashed = [bench.backend.trashed(session_id) for session_id in ("a", "b", "c:d")]
    return (
        bench.sessions(),
        {key: record.lsn for key, record in bench.report.records.items()},
        bench.report.removed,
        [document and document.record.lsn for document in trashed],
    )


@pytest.mark.parametrize("seed", range(12))
def test_recovering_again_changes_nothing(seed: int, bench: Bench, folder: Path) -> None:
    work(bench, seed)
    expected = bench.sessions()
    bench.recover()
    assert bench.sessions() == expected, "within the process"
    first = state(bench)
    for _ in range(2):
        bench.come_up()
        assert bench.report.problems == []
        assert state(bench) == first, "in another process"
    bench.backend.checkpoint(full=True)
    bench.come_up()
    assert bench.report.replayed == 0
    assert state(bench) == first, "from the files alone"
    assert {key: bench.in_file(key) for key in expected} == expected


@pytest.mark.parametrize("seed", range(2))
def test_a_crash_at_any_step_of_recovery_and_checkpoint_changes_nothing(
    seed: int,
    bench: Bench,
    folder: Path,
    tmp_path: Path,
) -> None:
    work(bench, seed)
    gone = bench.saved("gone", [1])
    bench.backend.checkpoint(full=True)
    bench.saved("s1", [1])
    bench.appended("s1", [2])
    bench.commit(bench.trash(gone))
    expected = bench.sessions()
    operations = [
        *("write_new", "write_at", "sync_data", "sync_files", "sync"),
        *("replace", "link", "unlink", "sync_folder", "make_folder"),
    ]
    copy = tmp_path / "copy"
    crashes = 0
    for operation, skip, after in itertools.product(operations, range(3), [False, True]):
        shutil.copytree(folder, copy, symlinks=True)
        fs = FaultyFileSystem()
        fs.fail(Fault(operation, InjectedCrash("here"), skip=skip, after=after))
        other = Bench.__new__(Bench)
        other.__dict__.update(bench.__dict__, folder=copy, layout=Layout.of(copy, "flat"))
        try:
            other.come_up(fs)
            other.backend.checkpoint(full=True)
        except InjectedCrash:
            crashes += 1
        other.come_up()
        assert other.report.problems == [], (operation, skip, after)
        assert other.sessions() == expected, (operation, skip, after)
        shutil.rmtree(copy)
    assert crashes > 15


def test_a_failed_sync_of_the_recovery_is_made_good_not_repeated(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.saved("s1", [1])
    fs.fail(Fault("sync_data", os_error(errno.EIO)))
    bench.come_up(fs)
    assert bench.messages("s1") == [1]
    bench.recover()
    bench.come_up()
    assert bench.messages("s1") == [1]
    assert bench.report.problems == []


# --- long sessions ------------------------------------------------------------------------


def test_what_is_added_to_a_long_session_stays_in_the_journal_until_it_is_worth_a_rewrite(
    bench: Bench,
) -> None:
    text = "x" * 1000
    bench.saved("long", [text] * (REWRITE_BYTES // 1000 + 10))
    bench.saved("short", [1])
    bench.backend.checkpoint(full=True)
    path = bench.folder / "long.json"
    inode = path.stat().st_ino
    bench.appended("long", ["more"])
    bench.appended("short", [2])
    expected = bench.messages("long")
    assert bench.backend.checkpoint(full=False)
    assert path.stat().st_ino == inode, "carried forward"
    assert bench.in_file("short") == [1, 2], "rewritten"
    live = bench.backend.live_bytes
    assert live <= 2 * 4096, "the rest of the journal is free"
    for _ in range(3):
        assert bench.backend.checkpoint(full=False)
    assert bench.backend.live_bytes == live, "carried again, not twice"
    bench.appended("long", ["and more"])
    assert expected is not None
    for _ in range(2):
        bench.come_up()
        assert bench.messages("long") == [*expected, "and more"]
        assert bench.backend.checkpoint(full=False)
    assert path.stat().st_ino == inode
    assert bench.backend.checkpoint(full=True)
    assert path.stat().st_ino != inode, "rewritten"
    assert bench.in_file("long")[-2:] == ["more", "and more"]
    assert bench.backend.live_bytes == 0


def test_half_as_much_again_is_worth_a_rewrite(bench: Bench) -> None:
    text = "x" * 1000
    bench.saved("long", [text] * (REWRITE_BYTES // 1000 + 10))
    bench.backend.checkpoint(full=True)
    inode = (bench.folder / "long.json").stat().st_ino
    bench.appended("long", [text] * (REWRITE_BYTES // 2000 + 20))
    bench.backend.checkpoint(full=False)
    assert (bench.folder / "long.json").stat().st_ino != inode
    assert bench.backend.live_bytes == 0


def test_an_append_costs_what_is_appended(bench: Bench) -> None:
    bench.saved("long", ["x" * 1000] * 3000)
    bench.backend.checkpoint(full=True)
    bench.appended("long", ["more"])
    assert bench.backend.live_bytes == 4096


# --- made good later ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2 * INLINE_BYTES])
@pytest.mark.parametrize("operation", ["replace", "link"])
def test_a_save_that_cannot_be_renamed_is_acknowledged_and_made_good(
    operation: str,
    size: int,
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    first = bench.saved("s1", ["first"])
    second = bench.put("s1", ["x" * size], first.record.generation + 1)
    fs.fail(Fault(operation, os_error(errno.EIO)))
    bench.commit(second)
    assert bench.messages("s1") == ["x" * size]
    assert list(bench.backend.keys()) == ["s1"]
    renamed = operation == "link"  # a backup is no reason to refuse the change
    assert bench.in_file("s1") == (["x" * size] if renamed else ["first"])
    assert bench.backend.checkpoint(full=True)
    assert bench.in_file("s1") == ["x" * size]
    bench.come_up()
    assert bench.messages("s1") == ["x" * size]


@pytest.mark.parametrize("size", [10, 2 * INLINE_BYTES])
def test_a_save_that_could_not_be_renamed_survives_a_kill(
    size: int,
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    fs.fail(Fault("replace", os_error(errno.EIO)))
    bench.saved("s1", ["x" * size])
    assert not (bench.folder / "s1.json").exists()
    bench.recover()
    assert bench.messages("s1") == ["x" * size], "within the process"
    for _ in range(2):
        bench.come_up()
        assert bench.report.problems == []
        assert bench.messages("s1") == ["x" * size], "in another process"
    assert bench.backend.checkpoint(full=True)
    bench.come_up()
    assert bench.in_file("s1") == bench.messages("s1") == ["x" * size]
    bench.come_up()
    assert list((bench.folder / ".sessionkeeper" / "tmp").iterdir()) == [], "nothing is left over"


def test_a_large_save_whose_kill_came_before_the_rename_is_there(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    fs.fail(Fault("replace", InjectedCrash("killed")))
    change = bench.put("s1", ["x" * INLINE_BYTES])
    with pytest.raises(InjectedCrash):
        bench.commit(change)
    bench.come_up()
    assert bench.messages("s1") == ["x" * INLINE_BYTES]
    answer = bench.report.answer("s1", change.record.requests[0].request_id)
    assert answer == change.record.requests[0].answer("s1")


def test_a_large_session_that_is_gone_is_not_missed(bench: Bench) -> None:
    """Its record names a temporary, which was renamed and then moved, or removed by hand."""
    bench.commit(bench.trash(bench.saved("trashed", ["x" * INLINE_BYTES])))
    bench.saved("removed", ["x" * INLINE_BYTES])
    (bench.folder / "removed.json").unlink()
    bench.backend.reconcile(["removed.json"], bench.lsn)
    for _ in range(2):
        bench.come_up()
        assert bench.sessions() == {}
        assert bench.report.problems == []
    assert bench.backend.trashed("trashed") is not None


def test_a_delete_that_cannot_be_moved_is_acknowledged_and_made_good(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    document = bench.saved("s1", ["secret"])
    fs.fail(Fault("replace", os_error(errno.EIO)))
    bench.commit(bench.trash(document))
    assert (bench.folder / "s1.json").exists()
    assert bench.messages("s1") is None
    assert list(bench.backend.keys()) == []
    bench.recover()
    assert bench.messages("s1") is None
    assert not (bench.folder / "s1.json").exists()
    trashed = bench.backend.trashed("s1")
    assert trashed is not None
    assert trashed.session().messages == ["secret"]


@pytest.mark.parametrize("refusals", [2, 3])
@pytest.mark.parametrize("again", ["checkpoint", "incarnation", "process"])
def test_a_session_made_anew_while_the_removed_one_cannot_be_moved_is_not_taken_for_it(
    again: str,
    refusals: int,
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    removed = bench.saved("s1", ["removed"])
    fs.fail(Fault("replace", os_error(errno.EIO), times=refusals))
    bench.commit(bench.trash(removed))
    anew = bench.saved("s1", ["anew"])
    assert bench.in_file("s1") == ["removed"], "neither could be renamed"
    assert bench.messages("s1") == ["anew"]
    if again == "incarnation":
        bench.recover()
    elif again == "process":
        bench.come_up()
    for _ in range(2):  # the first may meet the last refusal
        assert bench.messages("s1") == ["anew"]
        assert bench.backend.checkpoint(full=True)
    for _ in range(2):
        assert bench.messages("s1") == bench.in_file("s1") == ["anew"]
        assert bench.sessions() == {"s1": ["anew"]}
        trashed = bench.backend.trashed("s1")
        assert trashed is not None
        assert trashed.session().messages == ["removed"]
        bench.come_up()
        assert bench.report.problems == []
        assert bench.report.records["s1"].lsn == anew.record.lsn


@pytest.mark.parametrize("again", ["nothing", "incarnation", "process"])
def test_a_delete_of_a_session_that_never_reached_its_file_is_a_delete(
    again: str,
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    fs.fail(Fault("replace", os_error(errno.EIO), times=2))
    bench.saved("s1", ["only in the journal"])
    bench.appended("s1", ["and more"])
    document = bench.backend.read("s1")
    assert document is not None
    bench.commit(bench.trash(document))
    if again == "incarnation":
        fs.fail(Fault("replace", os_error(errno.EIO)))
        bench.recover()
    elif again == "process":
        bench.come_up(fs)
    for _ in range(2):
        assert bench.messages("s1") is None
        assert bench.sessions() == {}
        assert reader(bench).read("s1") is None
        assert bench.backend.checkpoint(full=True)
    trashed = bench.backend.trashed("s1")
    assert trashed is not None
    assert trashed.session().messages == ["only in the journal", "and more"]


def test_a_delete_with_unpublished_appends_keeps_them_in_the_trash(bench: Bench) -> None:
    bench.saved("s1", [1])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", [2])
    document = bench.backend.read("s1")
    assert document is not None
    bench.commit(bench.trash(document))
    for _ in range(2):
        trashed = bench.backend.trashed("s1")
        assert trashed is not None
        assert trashed.session().messages == [1, 2]
        assert bench.messages("s1") is None
        bench.come_up()
        assert bench.report.problems == [], "what lies in the trash is not missed"


@pytest.mark.parametrize("thing", ["garbage", "folder", "newer"])
def test_a_delete_of_a_session_whose_file_cannot_be_read_is_neither_refused_nor_a_crash(
    thing: str,
    bench: Bench,
) -> None:
    """Its record is in the journal: nothing that comes after may say that it did not happen."""
    bench.saved("s1", [1])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", [2])
    document = bench.backend.read("s1")
    assert document is not None
    path = bench.folder / "s1.json"
    data = path.read_bytes()
    path.unlink()
    if thing == "folder":
        path.mkdir()
    else:
        newer = data.replace(b'"version":1', b'"version":9')
        path.write_bytes(b"{garbage" if thing == "garbage" else newer)
    bench.commit(bench.trash(document))
    assert bench.messages("s1") is None
    assert bench.backend.checkpoint(full=True)
    for _ in range(2):
        bench.come_up()
        assert bench.sessions() == {}
        assert bench.backend.checkpoint(full=True)
    assert (path.exists(), path.is_dir()) == (thing != "garbage", thing == "folder")


def test_deletes_work_on_a_full_disk(bench: Bench, fs: FaultyFileSystem) -> None:
    bench.come_up(fs)
    documents = [bench.saved(f"s{number}", ["x" * 100]) for number in range(5)]
    # No new file and no new folder; what is there can be renamed and written over.
    for operation in ("write_new", "make_folder"):
        fs.fail(Fault(operation, os_error(errno.ENOSPC), times=10**6))
    for document in documents:
        with pytest.raises(StorageFailed):
            bench.commit(bench.put("s9", ["x" * 2_000_000]))
        bench.commit(bench.trash(document))
    assert bench.sessions() == {}
    fs.heal()
    assert bench.backend.checkpoint(full=True)
    bench.come_up()
    assert bench.sessions() == {}
    assert sorted(p.name[17:] for p in bench.layout.trash.iterdir()) == [f"s{n}" for n in range(5)]


def test_a_journal_that_cannot_be_written_says_what_is_known(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    bench.saved("s1", [1])
    fs.fail(Fault("sync_data", os_error(errno.EIO), times=2))
    with pytest.raises(OutcomeUnknown):
        bench.saved("s2", [2])
    assert bench.kinds() >= {"suspended"}
    bench.saved("s3", [3])
    assert bench.kinds() >= {"suspended", "resumed"}
    bench.come_up()
    assert bench.sessions() == {"s1": [1], "s3": [3]}
    assert list(bench.layout.temporaries.iterdir()) == [], "what nobody names is swept"


def test_files_whose_sync_failed_are_written_anew(bench: Bench, fs: FaultyFileSystem) -> None:
    bench.come_up(fs)
    bench.saved("s1", [1])
    inode = (bench.folder / "s1.json").stat().st_ino
    fs.fail(Fault("sync_files", os_error(errno.EIO)))
    assert not bench.backend.checkpoint(full=True), "the medium refused"
    assert bench.backend.live_bytes > 0, "the journal keeps it"
    assert bench.backend.checkpoint(full=True)
    assert (bench.folder / "s1.json").stat().st_ino != inode, "a second sync proves nothing"
    assert bench.backend.live_bytes == 0


class _Emptied(FileSystem):
    """A file system on which something happens between the look at a removal and its sync."""

    def __init__(self) -> None:
        self.meanwhile: list[Callable[[], object]] = []

    def sync_files(self, folder: Path, paths: Sequence[Path]) -> None:
        if folder.parent.name == "trash" and self.meanwhile:
            self.meanwhile.pop()()
        super().sync_files(folder, paths)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "after its grace"])
def test_a_trash_that_is_emptied_during_a_checkpoint_does_not_hold_it_up(
    by_hand: bool,  # noqa: FBT001 - a parameter of the test
    bench: Bench,
) -> None:
    fs = _Emptied()
    bench.come_up(fs)
    bench.commit(bench.trash(bench.saved("s1", [1])))
    bench.saved("s2", [2])

    def empty() -> None:
        if by_hand:
            for removal in list(bench.layout.trash.iterdir()):
                shutil.rmtree(removal)
        else:
            assert bench.backend.purge(NOW + timedelta(days=9)) == ["s1"]

    fs.meanwhile.append(empty)
    assert bench.backend.checkpoint(full=True)
    assert fs.meanwhile == [], "it was emptied in the midst of it"
    assert list(bench.layout.trash.iterdir()) == []
    assert bench.backend.live_bytes == 0
    bench.saved("s1", ["anew"])
    assert bench.backend.checkpoint(full=True)
    bench.come_up()
    assert bench.sessions() == {"s1": ["anew"], "s2": [2]}
    assert bench.report.problems == []


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "after its grace"])
def test_a_trash_that_is_emptied_after_a_failed_sync_does_not_hold_the_journal_up(
    by_hand: bool,  # noqa: FBT001 - a parameter of the test
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    bench.commit(bench.trash(bench.saved("s1", [1])))
    bench.saved("s2", [2])
    fs.fail(Fault("sync_files", os_error(errno.EIO)))
    assert not bench.backend.checkpoint(full=True), "the medium refused"
    if by_hand:
        for removal in list(bench.layout.trash.iterdir()):
            shutil.rmtree(removal)
    else:
        assert bench.backend.purge(NOW + timedelta(days=9)) == ["s1"]
    assert bench.backend.checkpoint(full=True)
    assert bench.backend.live_bytes == 0
    assert list(bench.layout.trash.iterdir()) == []
    bench.come_up()
    assert bench.sessions() == {"s2": [2]}
    assert bench.report.problems == []


def test_what_cannot_be_made_durable_is_not_purged(bench: Bench, fs: FaultyFileSystem) -> None:
    bench.come_up(fs)
    bench.commit(bench.trash(bench.saved("s1", [1])))
    fs.fail(Fault("sync_files", os_error(errno.EIO)))
    with pytest.raises(StorageFailed, match="not purged"):
        bench.backend.purge(NOW + timedelta(days=9))
    assert [path.name for path in bench.layout.trash.iterdir()] == ["0000000000000002-s1"]
    assert bench.backend.purge(NOW) == [], "its grace is not over"
    assert bench.backend.purge(NOW + timedelta(days=9)) == ["s1"]
    assert list(bench.layout.trash.iterdir()) == []


def test_a_file_that_is_written_anew_does_not_take_the_place_of_a_later_version(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    """It was prepared because its sync had failed; before it was renamed, somebody saved."""
    bench.come_up(fs)
    bench.saved("s1", ["old"])
    fs.fail(Fault("sync_files", os_error(errno.EIO)))
    assert not bench.backend.checkpoint(full=True)
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    prepared = bench.backend.prepare(checkpoint, checkpoint.sessions)
    assert len(prepared) == 1
    bench.commit(bench.put("s1", ["newest"], 9))
    bench.backend.publish(prepared)
    bench.backend.carry(checkpoint)
    bench.backend.settle(checkpoint)
    bench.backend.finish(checkpoint, settled=True)
    assert bench.backend.checkpoint(full=True)
    for _ in range(2):
        assert bench.messages("s1") == bench.in_file("s1") == ["newest"]
        bench.come_up()


def test_the_journal_is_freed_only_when_files_and_names_are_durable(folder: Path) -> None:
    calls: list[str] = []

    class Noting(FaultyFileSystem):
        def sync_files(self, folder: Path, paths: Any) -> None:
            calls.extend(f"sync {path.name}" for path in paths if path.suffix == ".json")
            super().sync_files(folder, paths)

        def sync_folder(self, path: Path) -> None:
            calls.append(f"sync_folder {path.name}")
            super().sync_folder(path)

        def write_at(self, descriptor: int, chunks: Any, offset: int) -> None:
            calls.append("journal")
            super().write_at(descriptor, chunks, offset)

        def sync_data(self, descriptor: int) -> None:
            calls.append("sync journal")
            super().sync_data(descriptor)

    bench = Bench(folder, Noting())
    document = bench.saved("s1", [1])
    gone = bench.saved("s2", [2])
    bench.commit(bench.trash(gone))
    bench.commit(bench.append(document, [3]))
    calls.clear()
    assert bench.backend.checkpoint(full=True)
    removal = next(bench.layout.trash.iterdir()).name
    assert calls == [
        "sync s1.json",
        "sync removal.json",
        "sync session.json",
        f"sync_folder {removal}",
        "sync_folder store",
        "sync_folder trash",
        "journal",
        "sync journal",
    ]
    calls.clear()
    assert bench.backend.checkpoint(full=True)
    assert calls == [], "an idle store lets the disk sleep"


# --- hand edits ---------------------------------------------------------------------------


def test_a_hand_edit_meets_unpublished_appends_and_both_stay(bench: Bench) -> None:
    bench.saved("s1", ["old"])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", ["appended"])
    path = bench.folder / "s1.json"
    path.write_bytes(path.read_bytes().replace(b'"old"', b'"EDITED"'))
    found = bench.backend.reconcile(["s1.json"], bench.lsn)
    assert [record.session_id for record in found.records] == ["s1"]
    assert bench.messages("s1") == ["EDITED", "appended"]
    bench.come_up()
    assert bench.messages("s1") == ["EDITED", "appended"]


@pytest.mark.parametrize("again", ["process", "incarnation"])
def test_a_hand_edit_is_found_by_the_recovery_and_keeps_the_appends(
    again: str,
    bench: Bench,
) -> None:
    bench.saved("s1", ["old"])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", ["appended"])
    path = bench.folder / "s1.json"
    edited = path.read_bytes().replace(b'"old"', b'"EDITED"')
    path.write_bytes(edited)
    if again == "process":
        bench.come_up()
    else:
        bench.recover()
    assert bench.messages("s1") == ["EDITED", "appended"]
    assert bench.report.records["s1"].message_count == 2
    kept = list((bench.layout.backups / "s1").glob("*-edited-*"))
    assert [copy.read_bytes() for copy in kept] == [edited]
    bench.come_up()
    assert bench.messages("s1") == ["EDITED", "appended"]


def test_a_hand_edit_that_came_during_a_checkpoint_is_left_for_the_reconciliation(
    bench: Bench,
) -> None:
    bench.saved("s1", ["old"])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", ["appended"])
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    prepared = bench.backend.prepare(checkpoint, checkpoint.sessions)
    path = bench.folder / "s1.json"
    path.write_bytes(path.read_bytes().replace(b'"old"', b'"EDITED"'))
    assert bench.backend.publish(prepared) == ["s1.json"]
    assert b"EDITED" in path.read_bytes(), "not written over"
    bench.backend.carry(checkpoint)
    bench.backend.settle(checkpoint)
    bench.backend.finish(checkpoint, settled=True)
    bench.backend.reconcile(["s1.json"], bench.lsn)
    assert bench.messages("s1") == ["EDITED", "appended"]
    bench.come_up()
    assert bench.messages("s1") == ["EDITED", "appended"]


def test_a_prepared_file_that_is_behind_again_is_not_published(bench: Bench) -> None:
    bench.saved("s1", ["old"])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", ["appended"])
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    prepared = bench.backend.prepare(checkpoint, checkpoint.sessions)
    newest = bench.put("s1", ["newest"], 9)
    bench.commit(newest)
    bench.appended("s1", ["more"])
    assert bench.backend.publish(prepared) == []
    assert bench.in_file("s1") == ["newest"]
    assert bench.messages("s1") == ["newest", "more"]
    assert list((bench.folder / ".sessionkeeper" / "tmp").iterdir()) == []


@pytest.mark.parametrize("removed", [True, False])
def test_a_prepared_file_does_not_take_the_place_of_a_version_that_could_not_be_renamed(
    removed: bool,  # noqa: FBT001 - a parameter of the test
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    bench.saved("s1", ["old"])
    bench.appended("s1", ["appended"])
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    prepared = bench.backend.prepare(checkpoint, checkpoint.sessions)
    assert len(prepared) == 1
    fs.fail(Fault("replace", os_error(errno.EIO), times=2 if removed else 1))
    if removed:
        document = bench.backend.read("s1")
        assert document is not None
        bench.commit(bench.trash(document))
    bench.commit(bench.put("s1", ["newest"], 9))
    bench.appended("s1", ["more"])
    assert bench.backend.publish(prepared) == []
    assert bench.messages("s1") == ["newest", "more"]
    bench.backend.carry(checkpoint)
    bench.backend.settle(checkpoint)
    bench.backend.finish(checkpoint, settled=True)
    assert bench.messages("s1") == ["newest", "more"]
    assert bench.backend.checkpoint(full=True)
    for _ in range(2):
        assert bench.messages("s1") == bench.in_file("s1") == ["newest", "more"]
        bench.come_up()
        assert bench.report.problems == []


def test_what_is_committed_during_a_checkpoint_stays_in_the_journal(bench: Bench) -> None:
    bench.saved("s1", [1])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", [2])
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    prepared = bench.backend.prepare(checkpoint, checkpoint.sessions)
    bench.appended("s1", [3])
    bench.saved("s2", [4])
    bench.backend.publish(prepared)
    assert bench.in_file("s1") == [1, 2]
    assert bench.messages("s1") == [1, 2, 3]
    bench.backend.carry(checkpoint)
    bench.backend.settle(checkpoint)
    bench.backend.finish(checkpoint, settled=True)
    bench.come_up()
    assert bench.sessions() == {"s1": [1, 2, 3], "s2": [4]}
    assert bench.report.problems == []


@pytest.mark.parametrize("seen", [True, False], ids=["by the watcher", "by the recovery"])
def test_what_was_removed_by_hand_stays_removed(
    seen: bool,  # noqa: FBT001 - a parameter of the test
    bench: Bench,
) -> None:
    bench.saved("s1", [1])
    bench.saved("s2", [2])
    bench.appended("s1", [3])
    (bench.folder / "s1.json").unlink()
    if seen:
        found = bench.backend.reconcile(["s1.json"], bench.lsn)
        assert found.vanished == ["s1"]
    for _ in range(2):
        bench.recover()
        assert bench.sessions() == {"s2": [2]}
    for _ in range(2):
        bench.come_up()
        assert bench.sessions() == {"s2": [2]}
    bench.saved("s1", ["anew"])
    bench.come_up()
    assert bench.sessions() == {"s2": [2], "s1": ["anew"]}


def test_a_file_put_back_after_a_delete_is_taken(bench: Bench) -> None:
    document = bench.saved("s1", [1])
    data = (bench.folder / "s1.json").read_bytes()
    bench.commit(bench.trash(document))
    (bench.folder / "s1.json").write_bytes(data)
    bench.come_up()
    assert bench.messages("s1") == [1]
    assert bench.report.records["s1"].generation > document.record.generation
    bench.come_up()
    assert bench.messages("s1") == [1]


def test_a_removal_and_a_session_made_anew_that_both_wait_lose_nothing(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    """Neither rename works: the trash gets what was appended all the same."""
    bench.come_up(fs)
    document = bench.saved("s1", [1])
    assert bench.backend.checkpoint(full=True)
    bench.appended("s1", ["appended"])
    document = bench.backend.read("s1") or document
    fs.fail(Fault("replace", os_error(errno.EIO), times=2))
    bench.commit(bench.trash(document))
    bench.saved("s1", ["anew"])
    assert bench.messages("s1") == ["anew"]
    copy = bench.folder.with_name("copy")
    shutil.copytree(bench.folder, copy)
    for again in (bench, Bench(copy)):
        assert again.backend.checkpoint(full=True)
        trashed = again.backend.trashed("s1")
        assert trashed is not None
        assert trashed.session().messages == [1, "appended"]
        assert again.in_file("s1") == ["anew"]


def removed_with_a_failed_sync(bench: Bench, fs: FaultyFileSystem) -> None:
    """A session that was removed, and whose removal a checkpoint could not make durable."""
    document = bench.saved("s1", [1])
    assert bench.backend.checkpoint(full=True)
    bench.commit(bench.trash(document))
    fs.fail(Fault("sync_folder", os_error(errno.EIO)))
    assert not bench.backend.checkpoint(full=True)


def test_a_removal_whose_sync_failed_is_made_anew(folder: Path, fs: FaultyFileSystem) -> None:
    bench = Bench(folder, fs)
    removed_with_a_failed_sync(bench, fs)
    (before,) = bench.layout.trash.iterdir()
    content = (before / "session.json").read_bytes()
    assert bench.backend.checkpoint(full=True)
    (after,) = bench.layout.trash.iterdir()
    assert after != before, "its old name may be lost for ever"
    assert (after / "session.json").read_bytes() == content
    assert not (bench.folder / "s1.json").exists()
    document = bench.backend.trashed("s1")
    assert document is not None
    assert document.session().messages == [1]
    bench.come_up()
    assert bench.sessions() == {}


def test_the_removal_of_a_file_whose_sync_failed_is_made_anew(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    document = bench.saved("s1", [1])
    fs.fail(Fault("sync_files", os_error(errno.EIO)))
    assert not bench.backend.checkpoint(full=True)
    bench.commit(bench.trash(document))
    (before,) = bench.layout.trash.iterdir()
    inode = (before / "session.json").stat().st_ino
    bench.saved("s1", ["anew"])
    (after,) = bench.layout.trash.iterdir()
    assert (after / "session.json").stat().st_ino != inode, "a second sync proves nothing"


@pytest.mark.parametrize("older", [False, True])
def test_a_file_that_the_medium_brings_back_is_no_session(
    folder: Path,
    fs: FaultyFileSystem,
    *,
    older: bool,
) -> None:
    """The removal was made durable anew in the trash; the old place shows what it once showed."""
    bench = Bench(folder, fs)
    bench.saved("s1", [0])
    first = (bench.folder / "s1.json").read_bytes()
    removed_with_a_failed_sync(bench, fs)
    (entry,) = bench.layout.trash.iterdir()
    last = (entry / "session.json").read_bytes()
    assert bench.backend.begin_checkpoint(full=True) is not None, "the removal is made anew"
    (bench.folder / "s1.json").write_bytes(first if older else last)
    for _ in range(2):
        bench.come_up()
        assert bench.sessions() == {}
        assert not (bench.folder / "s1.json").exists()
    assert "quarantined" in bench.kinds()
    document = bench.backend.trashed("s1")
    assert document is not None
    assert document.session().messages == [1]


# --- damage -------------------------------------------------------------------------------


def test_what_was_added_to_a_session_that_is_lost_is_kept(bench: Bench) -> None:
    bench.saved("s1", [1])
    assert bench.backend.checkpoint(full=True)
    bench.appended("s1", ["acknowledged", {"too": 2}])
    (bench.folder / "s1.json").unlink()
    bench.come_up()
    assert bench.sessions() == {}
    (kept,) = bench.layout.quarantine.glob("s1.added*.jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert lines == ["acknowledged", {"too": 2}]


def segment_with_frames(bench: Bench) -> tuple[Path, list[int]]:
    """The segment in use, and where its frames begin."""
    for path in sorted(bench.layout.journal.iterdir()):
        data = path.read_bytes()
        frames = list(frames_in(data, journal_id_of(data) or b""))
        if frames:
            return path, [frame.end - frame.length for frame in frames]
    raise AssertionError("no segment holds a frame")


def test_a_damaged_frame_is_reported_and_kept_and_what_follows_is_used(bench: Bench) -> None:
    bench.saved("s1", [1])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", ["lost"])
    bench.appended("s1", ["kept"])
    path, starts = segment_with_frames(bench)
    data = bytearray(path.read_bytes())
    data[starts[-2] + 60] ^= 1
    path.write_bytes(data)
    bench.come_up()
    assert bench.messages("s1") == [1, "kept"]
    assert bench.report.records["s1"].message_count == 2
    problems = [problem for problem in bench.report.problems if problem.kind == "journal"]
    assert any("damaged" in problem.detail for problem in problems)
    assert any(problem.session_id == "s1" and "lost" in problem.detail for problem in problems)
    kept = [
        copy
        for copy in bench.layout.quarantine.iterdir()
        if copy.suffix == ".segment" and copy.read_bytes() == data
    ]
    assert len(kept) == 1
    assert "damaged" in bench.kinds()
    assert bench.backend.checkpoint(full=True)
    bench.come_up()
    assert bench.report.problems == [], "said once, then it is over"
    assert bench.in_file("s1") == [1, "kept"]


def test_a_rotten_file_is_healed_from_the_newest_backup_that_is_valid(folder: Path) -> None:
    bench = Bench(folder, max_backups=3)
    for generation in range(1, 7):
        bench.commit(bench.put("s1", [generation], generation))
    backups = bench.layout.backups / "s1"
    assert [int(path.name[:10]) for path in sorted(backups.iterdir())] == [3, 4, 5]
    bench.backend.close()
    for rotten in (bench.folder / "s1.json", max(backups.iterdir())):
        status = rotten.stat()
        data = bytearray(rotten.read_bytes())
        data[data.index(b'"messages":[\n') + len(b'"messages":[\n')] ^= 0x80
        with rotten.open("r+b") as file:
            file.write(data)
        os.utime(rotten, ns=(status.st_atime_ns, status.st_mtime_ns))
    bench.come_up()
    # The newest backup is damaged too: the one before it is taken, as a new generation.
    assert [problem.kind for problem in bench.report.problems] == ["corrupt", "healed"]
    assert bench.messages("s1") == [4]
    assert bench.report.records["s1"].generation == 5
    bench.come_up()
    assert bench.messages("s1") == bench.in_file("s1") == [4]
    assert bench.report.problems == []


def test_rot_is_healed_while_the_store_is_open(folder: Path) -> None:
    bench = Bench(folder, max_backups=2)
    for generation in range(1, 4):
        bench.commit(bench.put("s1", ["x" * 50, generation], generation))
    bench.backend.checkpoint(full=True)
    path = folder / "s1.json"
    status = path.stat()
    data = path.read_bytes().replace(b"xxx", b"xyx", 1)
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptDocument):
        bench.backend.read("s1")
    bench.backend.reconcile(["s1.json"], bench.lsn)
    bench.recover()
    assert not path.exists() or bench.messages("s1") == ["x" * 50, 2]
    kept = [p for p in bench.layout.quarantine.iterdir() if p.name.startswith("s1.")]
    assert data in [p.read_bytes() for p in kept]


def test_no_backups_are_kept_where_none_are_wanted(folder: Path) -> None:
    bench = Bench(folder, max_backups=0)
    for generation in range(1, 5):
        bench.commit(bench.put("s1", [generation], generation))
    bench.backend.checkpoint(full=True)
    assert list(bench.layout.backups.iterdir()) == []
    assert bench.in_file("s1") == [4]


def test_backups_beyond_the_limit_go_also_after_a_restart(folder: Path) -> None:
    bench = Bench(folder, max_backups=2)
    for generation in range(1, 9):
        bench.commit(bench.put("s1", [generation], generation))
        if generation == 4:
            bench.come_up()
    names = sorted(path.name for path in (bench.layout.backups / "s1").iterdir())
    assert [int(name[:10]) for name in names] == [6, 7]


# --- beside a live owner ------------------------------------------------------------------


def reader(bench: Bench) -> FolderReader:
    found = FolderReader(bench.layout, FileSystem(), FakeClock(NOW))
    found.recover()
    return found


def test_who_reads_beside_the_owner_sees_what_the_journal_holds(
    bench: Bench,
    fs: FaultyFileSystem,
) -> None:
    bench.come_up(fs)
    bench.saved("s1", [1])
    bench.backend.checkpoint(full=True)
    bench.appended("s1", [2])
    fs.fail(Fault("replace", os_error(errno.EIO), times=2))
    bench.saved("large", ["x" * INLINE_BYTES])
    gone = bench.backend.read("s1")
    assert gone is not None
    before = {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")}
    beside = reader(bench)
    document = beside.read("s1")
    assert document is not None
    assert document.session().messages == [1, 2]
    large = beside.read("large")
    assert large is not None
    assert large.session().messages == ["x" * INLINE_BYTES]
    assert set(beside.keys()) == {"s1", "large"}
    bench.commit(bench.trash(gone))  # its file is not moved: the second failure
    assert (bench.folder / "s1.json").exists()
    beside = reader(bench)
    assert beside.read("s1") is None
    assert set(beside.keys()) == {"large"}
    assert before.keys() <= set(bench.folder.rglob("*")), "reading changes nothing"


# --- as a store ---------------------------------------------------------------------------


def test_a_read_only_store_shows_what_is_not_in_the_files(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        store.append("s1", [2])
        fields = json.loads((folder / "s1.json").read_bytes())
        assert fields["messages"] == [1]
        with SessionStore.open(folder, read_only=True) as beside:
            assert beside.load_session("s1").messages == [1, 2]
            assert beside.list_sessions()[0].message_count == 2


def test_writers_go_on_when_the_journal_is_full(folder: Path) -> None:
    """The checkpointer is held up: whoever wants to write frees the journal on the way."""
    fs = FaultyFileSystem()
    limit = 64 * 1024
    with SessionStore.open(
        folder,
        watch=False,
        checkpoint_bytes=limit,
        inject=Injected(fs=fs),
    ) as store:
        tree = store._tree
        assert tree is not None
        journaled = tree.journaled
        assert journaled is not None
        live: list[int] = []
        store.subscribe(lambda _: live.append(journaled.live_bytes))
        for number in range(100):
            store.append(f"s{number % 3}", ["x" * 10_000])
        assert max(live) > limit
        # One frame beyond the bound, at most: then it is freed, in the same turn.
        assert max(live) <= 2 * limit + 4 * 4096
        assert [len(store.load_session(f"s{n}")) for n in range(3)] == [34, 33, 33]
        assert store.info().restarts == 0


def test_the_level_os_syncs_once_a_second(folder: Path, clock: FakeClock) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs, clock=clock)
    with SessionStore.open(folder, watch=False, durability="os", inject=inject) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        before = fs.calls.count("sync_data")
        for number in range(5):
            store.append("s1", [number])
        assert fs.calls.count("sync_data") == before, "an answer waits for no medium"
        for expected in (1, 1):
            clock.advance(1.0)
            store.flush()
            assert fs.calls.count("sync_data") == before + expected, "once for all, then not again"
        store.append("s1", ["more"])
        clock.advance(1.0)
        store.flush()
        assert fs.calls.count("sync_data") == before + 2


def test_the_level_os_survives_a_sync_that_fails(folder: Path, clock: FakeClock) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs, clock=clock)
    with SessionStore.open(folder, watch=False, durability="os", inject=inject) as store:
        store.save_session("s1", [1])
        store.append("s1", [2])
        fs.fail(Fault("sync_data", os_error(errno.EIO)))
        with EventLog(store) as log:
            clock.advance(1.0)
            log.wait_for("suspended")
            store.append("s1", [3])
            log.wait_for("resumed")
        assert store.load_session("s1").messages == [1, 2, 3]
        store.checkpoint()
    with SessionStore.open(folder, watch=False) as again:
        assert again.load_session("s1").messages == [1, 2, 3]
        assert again.last_recovery.problems == []


def test_a_crash_of_the_checkpointer_does_not_block_checkpoints(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        for operation, skip in (("sync_files", 0), ("sync_files", 1), ("sync_folder", 0)):
            store.append("s1", [operation])
            fs.fail(Fault(operation, InjectedCrash("in the checkpointer"), skip=skip))
            store.checkpoint(timeout=10)
            messages = json.loads((folder / "s1.json").read_bytes())["messages"]
            assert messages == store.load_session("s1").messages
        by_name = {process.name: process for process in store.processes()}
        assert by_name["checkpointer"].restarts == 3
        assert by_name["store"].restarts == 0


def test_who_waits_for_a_checkpoint_is_answered_after_a_crash_of_the_actor(folder: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    class Gated(FaultyFileSystem):
        gate = False

        def sync_files(self, folder: Path, paths: Any) -> None:
            if self.gate:
                entered.set()
                assert go.wait(10)
            super().sync_files(folder, paths)

    fs = Gated()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        store.append("s1", [2])
        fs.gate = True
        waiter = threading.Thread(target=store.checkpoint)
        waiter.start()
        assert entered.wait(5), "the checkpoint is under way"
        crash_actor(store)
        fs.gate = False
        go.set()
        waiter.join(10)
        assert not waiter.is_alive()
        assert json.loads((folder / "s1.json").read_bytes())["messages"] == [1, 2]
        assert store.info().restarts == 1


def test_what_was_removed_by_hand_stays_removed_after_a_crash_of_the_actor(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        store.save_session("s2", [2])
        (folder / "s1.json").unlink()
        crash_actor(store)
        store.flush()
        assert "s1" not in store
        assert [info.session_id for info in store.list_sessions()] == ["s2"]
    with SessionStore.open(folder, watch=False) as again:
        assert "s1" not in again


def test_a_delete_on_a_full_disk(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["x" * 1000])
        store.append("s1", ["more"])
        fs.fail(Fault("write_new", os_error(errno.ENOSPC), times=10**6))
        with pytest.raises(StorageFailed):
            store.save_session("s2", ["x" * 1000])
        assert store.delete_session("s1") is True
        assert "s1" not in store
        fs.heal()
        store.checkpoint()
        assert store.undelete_session("s1").message_count == 2


def test_a_rename_that_fails_is_made_good_by_the_next_checkpoint(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        fs.fail(Fault("replace", os_error(errno.EIO)))
        assert store.save_session("s1", ["x" * 2 * INLINE_BYTES]).generation == 1
        assert not (folder / "s1.json").exists()
        crash_actor(store)
        assert store.load_session("s1").messages == ["x" * 2 * INLINE_BYTES]
        store.checkpoint()
        assert (folder / "s1.json").exists()
        assert store.info().restarts == 1


def test_what_a_checkpoint_had_prepared_when_the_store_was_closed_is_not_left_over(
    bench: Bench,
) -> None:
    bench.saved("s1", [1])
    bench.appended("s1", [2])
    checkpoint = bench.backend.begin_checkpoint(full=True)
    assert checkpoint is not None
    assert len(bench.backend.prepare(checkpoint, checkpoint.sessions)) == 1
    bench.backend.close()
    assert list(bench.layout.temporaries.iterdir()) == []


def test_an_idle_store_writes_nothing(folder: Path, clock: FakeClock) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs, clock=clock)
    with SessionStore.open(folder, watch=False, inject=inject) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        store.checkpoint()
        before = len(fs.calls)
        for _ in range(5):
            clock.advance(31)
            store.flush()
            store.checkpoint()
        assert fs.calls[before:] == []


def test_a_small_store_takes_little_room(bench: Bench) -> None:
    for number in range(10):
        bench.saved(f"s{number}", [number])
    bench.backend.close()
    sizes = [path.stat().st_size for path in bench.layout.journal.iterdir()]
    assert sizes == [journal_module.SMALLEST] * 2
    wait_until(lambda: list(bench.layout.temporaries.iterdir()) == [])
