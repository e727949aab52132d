"""The check of a folder finds every problem, and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import Finding, SessionStore, StoreNotFound, check_store
from sessionkeeper.layout import Layout, hashed_stem
from sessionkeeper.storage import journal as journal_module
from sessionkeeper.storage.check import check
from sessionkeeper.storage.frames import frames_in, journal_id_of
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.testing import FakeClock, Fault, FaultyFileSystem, Injected, crash_actor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every flip reads the whole folder again.
    monkeypatch.setattr(journal_module, "SMALLEST", 32 * 1024)


@pytest.fixture
def closed(folder: Path) -> Path:
    """A store with a bit of everything, closed in order."""
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.save_session("a:b", [1])
        store.save_session("gone", ["gone"])
        store.save_session("gone", ["gone again"])
        store.delete_session("gone")
    return folder


@pytest.fixture
def killed(folder: Path, tmp_path: Path) -> Path:
    """The folder as a kill leaves it: appends in the journal, upon a file and upon none."""
    copy = tmp_path / "killed"
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        store.checkpoint()
        store.append("s1", ["second"])
        store.save_session("s2", ["x"])
        store.append("s1", ["third"])
        copied(folder, copy)
    (copy / ".sessionkeeper" / "holder").unlink()
    return copy


def copied(folder: Path, copy: Path) -> None:
    """Copy an open store, but for what vanishes meanwhile."""

    def if_there(source: str, target: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(source, target)

    ignored = shutil.ignore_patterns("index*")
    shutil.copytree(folder, copy, ignore=ignored, copy_function=if_there)


def findings(folder: Path) -> list[Finding]:
    return list(check_store(folder))


def settled(folder: Path) -> list[Finding]:
    """Without what a checkpoint under way has not published yet."""
    return [found for found in check_store(folder) if found.kind != "left-over"]


def kinds(folder: Path) -> list[tuple[str, str, str]]:
    """Severity, kind and name of each."""
    return sorted((f.severity, f.kind, f.path.name) for f in check_store(folder))


def snapshot(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.rglob("*"))
    return {str(p): (p.lstat().st_ino, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in paths}


def live_segment(folder: Path) -> Path:
    for path in sorted((folder / ".sessionkeeper" / "journal").iterdir()):
        data = path.read_bytes()
        if list(frames_in(data, journal_id_of(data) or b"")):
            return path
    raise AssertionError("no segment holds a frame")


def rot(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit, and nothing that a name or a time would tell."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert Signature.of(path.stat()) == Signature.of(status)


# --- a store that is well -----------------------------------------------------------------


def test_a_store_that_is_well_has_no_findings(closed: Path) -> None:
    before = snapshot(closed)
    assert findings(closed) == []
    assert snapshot(closed) == before


def test_a_store_whose_owner_was_killed_has_no_damage(killed: Path) -> None:
    before = snapshot(killed)
    assert findings(killed) == []
    assert snapshot(killed) == before


@pytest.mark.parametrize("layout", ["flat", "rooted"])
@pytest.mark.parametrize("durability", ["journal", "file", "os"])
def test_an_open_store_can_be_checked(durability: str, layout: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False, durability=durability, layout=layout) as store:
        for number in range(5):
            store.save_session("s1", [number])
            store.append("s2", [number])
            assert settled(folder) == []
        store.delete_session("s1")
        crash_actor(store)
        store.flush()
        assert settled(folder) == []
    assert findings(folder) == []


def test_a_journal_that_changes_while_it_is_read_is_read_again(killed: Path) -> None:
    """Half of it was read before the owner used a segment again: that is no damage."""
    segment = live_segment(killed)
    good = segment.read_bytes()
    data = bytearray(good)
    data[4096 + 4096] ^= 1  # the head of the second frame
    reads = 0

    class Changing(FileSystem):
        def read(self, path: Path) -> tuple[list[bytes], Signature]:
            nonlocal reads
            if path == segment:
                reads += 1
                path.write_bytes(data if reads == 1 else good)
                os.utime(path, ns=(reads, reads))
            return super().read(path)

    fs = Changing()
    layout = Layout.of(killed, "flat")
    assert list(check(layout, fs, FakeClock())) == []
    assert reads > 1


def test_what_is_no_store_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        check_store(tmp_path / "absent")
    with pytest.raises(StoreNotFound):
        check_store(tmp_path)


def test_findings_come_one_by_one(closed: Path) -> None:
    (closed / "bad1.json").write_bytes(b"{")
    (closed / "bad2.json").write_bytes(b"{")
    stream = check_store(closed)
    assert isinstance(next(stream), Finding)
    assert len(list(stream)) == 3, "each is also readable by others"


# --- a bit flipped at every byte ----------------------------------------------------------


def _assert_every_flip_is_found(folder: Path, path: Path, offsets: range) -> Counter[str]:
    assert findings(folder) == []
    found: Counter[str] = Counter()
    for offset in offsets:
        rot(path, offset, offset % 8)
        seen = findings(folder)
        assert seen, f"a flip at byte {offset} of {path.name} was not found"
        assert all(f.path in (path, path.parent) or f.session_id for f in seen), offset
        found[min(f.severity for f in seen)] += 1  # the worst: damage comes before notice
        rot(path, offset, offset % 8)
    assert findings(folder) == []
    return found


def test_a_flip_at_every_byte_of_a_session_file_is_found(closed: Path) -> None:
    path = closed / "s1.json"
    found = _assert_every_flip_is_found(closed, path, range(path.stat().st_size))
    assert found["damage"] > 100
    # What a flip makes look like another version, or like a document without a checksum.
    assert found["notice"] < 20


def test_a_flip_at_every_byte_of_a_backup_is_found(closed: Path) -> None:
    (path,) = (closed / ".sessionkeeper" / "backups" / "s1").iterdir()
    found = _assert_every_flip_is_found(closed, path, range(path.stat().st_size))
    assert found["damage"] > 100


def test_a_flip_at_every_byte_of_what_lies_in_the_trash_is_found(closed: Path) -> None:
    (removal,) = (closed / ".sessionkeeper" / "trash").iterdir()
    path = removal / "session.json"
    _assert_every_flip_is_found(closed, path, range(0, path.stat().st_size, 7))


@pytest.mark.parametrize("which", [0, -1], ids=["the first", "the last"])
def test_a_flip_at_every_byte_of_a_journal_frame_is_found(which: int, killed: Path) -> None:
    path = live_segment(killed)
    data = path.read_bytes()
    frames = [f for f in frames_in(data, journal_id_of(data) or b"") if f.records]
    live = [frame for frame in frames if frame.sequence >= frames[-1].oldest]
    assert len(live) == 3
    frame = live[which]
    start = frame.end - frame.length
    used = len(data[start : frame.end].rstrip(b"\0"))
    found = _assert_every_flip_is_found(killed, path, range(start, start + used))
    if which == 0:
        assert set(found) == {"damage"}
    else:
        assert set(found) == {"notice"}, "it cannot be told from a frame that was never finished"
    # What is not used is blank: rot shows there too.
    assert {*_assert_every_flip_is_found(killed, path, range(start + used, frame.end, 97))} == {
        "notice",
    }


def test_a_flip_anywhere_in_the_head_of_a_segment_is_found(killed: Path) -> None:
    path = live_segment(killed)
    assert set(_assert_every_flip_is_found(killed, path, range(28))) == {"damage"}
    assert set(_assert_every_flip_is_found(killed, path, range(28, 4096, 97))) == {"notice"}


# --- each kind ----------------------------------------------------------------------------


def _edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


PROBLEMS: dict[str, tuple[Callable[[Path], object], tuple[str, str, str]]] = {
    "cut": (
        lambda f: (f / "s1.json").write_bytes((f / "s1.json").read_bytes()[:50]),
        ("damage", "corrupt", "s1.json"),
    ),
    "edited": (
        lambda f: _edited(f / "s1.json", messages=["by hand"]),
        ("damage", "changed", "s1.json"),
    ),
    "newer": (
        lambda f: _edited(f / "s1.json", version=99),
        ("notice", "newer-version", "s1.json"),
    ),
    "other id": (
        lambda f: _edited(f / "s1.json", session_id="s9"),
        ("damage", "id-mismatch", "s1.json"),
    ),
    "folder": (lambda f: (f / "x.json").mkdir(0o700), ("notice", "not-a-file", "x.json")),
    "link": (lambda f: (f / "x.json").symlink_to("s1.json"), ("notice", "not-a-file", "x.json")),
    "pipe": (lambda f: os.mkfifo(f / "x.json", 0o600), ("notice", "not-a-file", "x.json")),
    "readable": (lambda f: (f / "s1.json").chmod(0o644), ("notice", "permissions", "s1.json")),
    "open folder": (
        lambda f: (f / ".sessionkeeper" / "trash").chmod(0o755),
        ("notice", "permissions", "trash"),
    ),
    "temporary": (
        lambda f: (f / ".sessionkeeper" / "tmp" / "1.tmp").touch(0o600),
        ("notice", "left-over", "1.tmp"),
    ),
    "no folder": (
        lambda f: (f / ".sessionkeeper" / "quarantine").rmdir(),
        ("notice", "missing", "quarantine"),
    ),
    "no manifest": (
        lambda f: next((f / ".sessionkeeper" / "trash").glob("*/removal.json")).unlink(),
        ("damage", "corrupt", "removal.json"),
    ),
    "half a manifest": (
        lambda f: next((f / ".sessionkeeper" / "trash").glob("*/removal.json")).write_bytes(b"{"),
        ("damage", "corrupt", "removal.json"),
    ),
    "manifest of another": (
        lambda f: _edited(
            next((f / ".sessionkeeper" / "trash").glob("*/removal.json")),
            session_id="other",
        ),
        ("damage", "id-mismatch", "removal.json"),
    ),
    "no session in the trash": (
        lambda f: next((f / ".sessionkeeper" / "trash").glob("*/session.json")).write_bytes(b""),
        ("damage", "corrupt", "session.json"),
    ),
    "a backup in the trash": (
        lambda f: _cut(next((f / ".sessionkeeper" / "trash").glob("*/backups/*"))),
        ("damage", "corrupt", "(a backup)"),
    ),
    "a backup": (
        lambda f: _cut(next((f / ".sessionkeeper" / "backups" / "s1").iterdir())),
        ("damage", "corrupt", "(a backup)"),
    ),
    "a segment's head": (
        lambda f: rot(live_segment(f), 10),
        ("damage", "journal", "(a segment)"),
    ),
    "a lock that is none": (
        lambda f: _replace_by_link(f / ".sessionkeeper" / "lock"),
        ("damage", "not-a-file", "lock"),
    ),
    "a holder that says nothing": (
        lambda f: (f / ".sessionkeeper" / "holder").write_text("{"),
        ("notice", "holder", "holder"),
    ),
}


def _replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_problem_is_found_with_its_kind(problem: str, closed: Path) -> None:
    old = os.umask(0o077)
    try:
        PROBLEMS[problem][0](closed)
    finally:
        os.umask(old)
    severity, kind, name = PROBLEMS[problem][1]
    before = snapshot(closed)
    (found,) = findings(closed)
    assert (found.severity, found.kind) == (severity, kind)
    if name.startswith("("):
        assert found.path.suffix in (".json", ".segment")
    else:
        assert found.path.name == name
    assert found.detail
    assert snapshot(closed) == before, "a check changes nothing"


def test_a_session_in_two_files_is_found_once(closed: Path) -> None:
    double = closed / f"{hashed_stem('s1')}.json"
    shutil.copy2(closed / "s1.json", double)
    (found,) = findings(closed)
    assert (found.kind, found.session_id) == ("duplicate", "s1")
    assert found.path == double
    _edited(double, generation=9)
    assert [f.path.name for f in findings(closed) if f.kind == "duplicate"] == ["s1.json"]


def test_a_hand_made_file_without_a_checksum_is_no_finding(closed: Path) -> None:
    made = {"format": "sessionkeeper", "version": 1, "session_id": "made", "messages": [1]}
    path = closed / "made.json"
    path.write_text(json.dumps(made))
    path.chmod(0o600)
    assert findings(closed) == []


def test_the_quarantine_is_shown_with_its_reasons(closed: Path) -> None:
    (closed / "bad.json").write_bytes(b"{")
    SessionStore.open(closed, watch=False).close()
    (found,) = [f for f in findings(closed) if f.kind == "quarantined"]
    assert found.severity == "notice"
    assert found.detail.startswith("corrupt: not JSON")
    next((closed / ".sessionkeeper" / "quarantine").glob("*.why.json")).unlink()
    (found,) = [f for f in findings(closed) if f.kind == "quarantined"]
    assert "cannot be read" in found.detail


def test_a_holder_that_died_is_told_from_one_that_lives(closed: Path) -> None:
    holder = closed / ".sessionkeeper" / "holder"

    def held_by(pid: object, host: str = socket.gethostname()) -> list[tuple[str, str, str]]:
        holder.write_text(json.dumps({"pid": pid, "host": host}))
        holder.chmod(0o600)
        return kinds(closed)

    assert held_by(os.getpid()) == []
    assert held_by(2**22 + 1) == [("notice", "holder", "holder")]
    assert held_by(2**80) == [("notice", "holder", "holder")]
    assert held_by("x") == [("notice", "holder", "holder")]
    assert held_by(2**22 + 1, "elsewhere") == [], "nobody can tell"


def test_a_file_that_cannot_be_read_is_damage(closed: Path) -> None:
    for name in ("s1.json", live_segment(closed).name):
        fs = FaultyFileSystem()
        fs.fail(Fault("read", OSError(errno.EIO, "Input/output error"), times=99, name=name))
        found = list(check(Layout.of(closed, "flat"), fs, FakeClock()))
        assert [(f.severity, f.kind) for f in found] == [("damage", "unreadable")]


def test_what_the_journal_adds_to_must_be_there(killed: Path) -> None:
    (killed / "s1.json").unlink()
    found = findings(killed)
    assert [(f.severity, f.kind, f.session_id) for f in found] == [("damage", "journal", "s1")] * 2
    assert all("not there" in f.detail for f in found)
    assert {f.path.name for f in found} == {"s1.json"}


def test_a_large_document_that_the_journal_names_must_be_there(folder: Path) -> None:
    fs = FaultyFileSystem()
    copy = folder.with_name("copy")
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.checkpoint()  # none follows by itself for a while
        fs.fail(Fault("replace", OSError(errno.EIO, "Input/output error")))
        store.save_session("large", ["x" * 100_000])
        copied(folder, copy)
    (copy / ".sessionkeeper" / "holder").unlink()
    assert findings(copy) == [], "its temporary is not left over: the journal names it"
    next((copy / ".sessionkeeper" / "tmp").iterdir()).unlink()
    (found,) = findings(copy)
    assert (found.severity, found.kind, found.session_id) == ("damage", "journal", "large")


def test_a_record_that_cannot_be_read_is_damage(folder: Path) -> None:
    from sessionkeeper.storage.journal import Journal

    SessionStore.open(folder, watch=False).close()
    journal = Journal(FileSystem(), folder / ".sessionkeeper" / "journal")
    journal.recover()
    journal.append([[b"A not a record"], [b"Z from the future"]])
    journal.close()
    assert [(f.severity, f.kind) for f in findings(folder)] == [("damage", "journal")] * 2


def test_a_torn_tail_is_a_notice(killed: Path) -> None:
    path = live_segment(killed)
    data = path.read_bytes()
    last = list(frames_in(data, journal_id_of(data) or b""))[-1]
    start = last.end - last.length
    for cut in (10, 41, 60):
        torn = data[: start + cut] + bytes(len(data) - start - cut)
        path.write_bytes(torn)
        assert {f.severity for f in findings(killed)} == {"notice"}, cut
        assert {f.kind for f in findings(killed)} == {"torn"}, cut


def test_a_segment_of_another_journal_is_shown(killed: Path, tmp_path: Path) -> None:
    copy = killed / ".sessionkeeper" / "journal" / "ffff.segment"
    with SessionStore.open(tmp_path / "other", watch=False) as other:
        other.save_session("strange", [1])
    shutil.copy2(live_segment(tmp_path / "other"), copy)
    assert kinds(killed) == [("damage", "journal", "ffff.segment")]


def test_files_that_vanish_while_they_are_checked_are_no_findings(closed: Path) -> None:
    class Vanishing(FileSystem):
        def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
            for entry in list(super().entries(folder)):
                if entry.name.endswith((".json", ".tmp")) and entry.is_file():
                    os.unlink(entry.path)  # noqa: PTH108 - as the entry gives it
                yield entry

    (closed / ".sessionkeeper" / "tmp" / "1.tmp").touch(0o600)
    assert list(check(Layout.of(closed, "flat"), Vanishing(), FakeClock())) == []
    assert not (closed / "s1.json").exists()
