"""The journal: what was acknowledged is read back once, whatever the medium does."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sessionkeeper.storage import journal as journal_module
from sessionkeeper.storage.frames import (
    BLOCK,
    HEADER,
    Frame,
    Mark,
    encode_frame,
    frames_in,
    journal_id_of,
    padded,
    segment_head,
)
from sessionkeeper.storage.journal import LARGEST, SMALLEST, SUFFIX, Journal, JournalFailed
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Fault, FaultyFileSystem, InjectedCrash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.journal import Log
    from sessionkeeper.storage.platform import Signature

ID = bytes(range(16))
SECTOR = 512


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "journal"
    made.mkdir()
    return made


@pytest.fixture
def fs() -> FaultyFileSystem:
    return FaultyFileSystem()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SMALLEST", 8 * BLOCK)
    monkeypatch.setattr(journal_module, "LARGEST", 32 * BLOCK)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def append(journal: Journal, *bodies: bytes, sync: bool = True) -> int:
    journal.append([[body] for body in bodies], sync=sync)
    return journal.sequence


def written(folder: Path, *batches: Sequence[bytes]) -> Journal:
    """A journal with one frame for each batch, as a process leaves it that is killed."""
    journal = Journal(FileSystem(), folder)
    for batch in batches:
        append(journal, *batch)
    journal.close()
    return journal


def found(folder: Path) -> Log:
    """What a process finds that comes up."""
    return Journal(FileSystem(), folder).read()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def in_use(folder: Path) -> Path:
    """The one segment that holds frames."""
    (path,) = [path for path in segments(folder) if all_frames(path)]
    return path


def all_frames(path: Path) -> list[Frame]:
    data = path.read_bytes()
    return list(frames_in(data, journal_id_of(data) or b""))


def is_suspended(journal: Journal) -> bool:
    return journal.suspended  # a call, for it changes


def frame_bytes(mark: Mark, bodies: Sequence[bytes], journal_id: bytes = ID) -> bytes:
    return b"".join(encode_frame(mark, [[body] for body in bodies], journal_id)[0])


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


# --- frames -------------------------------------------------------------------------------

numbers = st.integers(0, 2**64 - 1)
words = st.integers(0, 2**32 - 1)
marks = st.builds(Mark, sequence=numbers, oldest=numbers, voided=words, previous=words)
records = st.lists(st.lists(st.binary(max_size=3000), max_size=3), max_size=4)


@given(marks, records, st.binary(min_size=16, max_size=16))
def test_a_frame_is_read_as_it_was_written(
    mark: Mark,
    bodies: list[list[bytes]],
    journal_id: bytes,
) -> None:
    pieces, length, digest = encode_frame(mark, bodies, journal_id)
    data = segment_head(journal_id) + b"".join(pieces)
    assert len(data) == BLOCK + length
    (frame,) = frames_in(data, journal_id)
    assert (frame.sequence, frame.oldest, frame.voided, frame.previous) == (
        mark.sequence,
        mark.oldest,
        mark.voided,
        mark.previous,
    )
    assert frame.records == [b"".join(body) for body in bodies]
    assert (frame.digest, frame.damaged) == (digest, 0)
    assert frame.end == BLOCK + length == BLOCK + frame.length
    assert list(frames_in(data, bytes(16))) == [] or journal_id == bytes(16)


def test_a_head_that_is_damaged_names_no_journal() -> None:
    head = segment_head(ID)
    assert journal_id_of(head) == ID
    for offset in range(len(head.rstrip(b"\0"))):
        damaged = bytearray(head)
        damaged[offset] ^= 1
        assert journal_id_of(bytes(damaged)) is None
    assert journal_id_of(b"") is None


@given(st.binary(max_size=3 * BLOCK))
def test_bytes_that_are_no_frames_hold_none(data: bytes) -> None:
    assert list(frames_in(data, ID)) == []
    assert journal_id_of(data) is None


@settings(max_examples=300)
@given(records, st.data())
def test_a_changed_byte_is_never_read_as_what_was_written(
    bodies: list[list[bytes]],
    data: st.DataObject,
) -> None:
    whole = frame_bytes(Mark(7, 1, 0, 0), [b"".join(body) for body in bodies])
    length = HEADER + sum(8 + len(b"".join(body)) for body in bodies)
    offset = data.draw(st.integers(0, length - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[offset] ^= 1 << bit
    frames = list(frames_in(segment_head(ID) + changed, ID))
    assert [frame.damaged > 0 for frame in frames] in ([], [True])
    for frame in frames:
        assert set(frame.records) <= {b"".join(body) for body in bodies}, "no other bytes pass"


# --- a torn tail --------------------------------------------------------------------------


DIGEST = encode_frame(Mark(1, 1, 0, 0), [[b"acknowledged"]], ID)[2]


def _torn(folder: Path, content: bytes) -> Log:
    """A segment with one good frame and then what reached the medium of a second."""
    first = frame_bytes(Mark(1, 1, 0, 0), [b"acknowledged"])
    size = 16 * BLOCK
    data = (segment_head(ID) + first + content).ljust(size, b"\0")
    (folder / f"a{SUFFIX}").write_bytes(data)
    return found(folder)


def test_a_frame_cut_at_any_byte_is_never_half_applied(folder: Path) -> None:
    bodies = [b"A" * 60, b"B" * 70, b"C" * 80]
    frame = frame_bytes(Mark(2, 1, 0, DIGEST), bodies)
    length = len(frame.rstrip(b"\0"))
    for cut in range(length):
        log = _torn(folder, frame[:cut])
        assert log.records == [b"acknowledged"], cut
        assert log.damage == [], cut
        assert log.torn is (cut >= HEADER), cut
    assert _torn(folder, frame).records == [b"acknowledged", *bodies]


def test_a_long_frame_cut_at_any_sector_is_never_half_applied(folder: Path) -> None:
    bodies = [bytes([65 + n]) * 2500 for n in range(8)]
    frame = frame_bytes(Mark(2, 1, 0, DIGEST), bodies)
    length = len(frame.rstrip(b"\0"))
    for cut in range(0, len(frame), SECTOR):
        log = _torn(folder, frame[:cut])
        expected = [b"acknowledged"] if cut < length else [b"acknowledged", *bodies]
        assert log.records == expected, cut
        assert log.damage == [], cut


def test_a_frame_of_which_only_some_sectors_arrived_is_never_half_applied(folder: Path) -> None:
    """Sectors reach the medium in any order."""
    bodies = [bytes([65 + n]) * 400 for n in range(6)]
    frame = frame_bytes(Mark(2, 1, 0, DIGEST), bodies)
    length = len(frame.rstrip(b"\0"))
    count = -(-length // SECTOR)
    assert count == 5
    for arrived in itertools.product([False, True], repeat=count):
        content = b"".join(
            frame[n * SECTOR : (n + 1) * SECTOR] if there else bytes(SECTOR)
            for n, there in enumerate(arrived)
        )
        log = _torn(folder, content)
        expected = [b"acknowledged", *bodies] if all(arrived) else [b"acknowledged"]
        assert log.records == expected, arrived
        assert log.damage == [], arrived


def test_a_torn_tail_over_an_older_frame_shows_neither(folder: Path) -> None:
    """The room of a retired frame is written over, and the write is cut."""
    stale = frame_bytes(Mark(2, 1, 0, 0), [b"stale" * 900])
    frame = frame_bytes(Mark(6, 5, 0, DIGEST), [b"fresh" * 900])
    before = frame_bytes(Mark(5, 5, 0, 0), [b"acknowledged"])
    for cut in range(0, len(frame), SECTOR):
        content = before + frame[:cut] + stale[cut:]
        (folder / f"a{SUFFIX}").write_bytes(segment_head(ID) + content)
        expected = [b"acknowledged"]
        if cut >= len(frame.rstrip(b"\0")):
            expected.append(b"fresh" * 900)
        assert found(folder).records == expected, cut
        assert found(folder).damage == [], cut


def test_two_torn_tails_in_a_row_are_two_torn_tails(folder: Path) -> None:
    """The second frame was begun by a process that had seen the first one torn."""
    bodies = [b"A" * 3000, b"B" * 3000]
    first = frame_bytes(Mark(2, 1, 0, DIGEST), bodies)[: BLOCK + SECTOR]
    second = frame_bytes(Mark(3, 1, 1, DIGEST), bodies)[: BLOCK + SECTOR]
    content = first.ljust(2 * BLOCK, b"\0") + second
    log = _torn(folder, content)
    assert log.records == [b"acknowledged"], "half of what was never acknowledged was applied"
    assert log.damage == []
    assert log.torn


def test_the_journal_goes_on_behind_a_torn_tail(folder: Path) -> None:
    frame = frame_bytes(Mark(2, 1, 0, 0), [b"A" * 3000, b"B" * 3000])
    assert _torn(folder, frame[: BLOCK + SECTOR]).torn
    journal = Journal(FileSystem(), folder)
    assert journal.recover().records == [b"acknowledged"]
    append(journal, b"next")
    journal.close()
    log = found(folder)
    assert log.records == [b"acknowledged", b"next"]
    assert (log.damage, log.torn) == ([], False)


# --- rot ----------------------------------------------------------------------------------


def test_a_flip_anywhere_in_a_frame_before_the_last_is_reported_and_the_others_are_used(
    folder: Path,
) -> None:
    written(folder, [b"first"], [b"second", b"more"], [b"third"])
    path = in_use(folder)
    frames = all_frames(path)
    start = frames[0].end
    length = HEADER + sum(8 + len(body) for body in frames[1].records)
    good = path.read_bytes()
    for offset in range(start, start + length):
        flip(path, offset)
        log = found(folder)
        assert len(log.damage) == 1, offset
        assert log.records[0] == b"first", offset
        assert log.records[-1] == b"third", offset
        assert set(log.records[1:-1]) < {b"second", b"more"}, offset
        assert log.damaged.get(path) == path.read_bytes(), "it will be written over"
        path.write_bytes(good)
    assert found(folder).damage == []


def test_a_flip_in_the_last_frame_cannot_be_told_from_a_torn_tail(folder: Path) -> None:
    written(folder, [b"first"], [b"second"])
    path = in_use(folder)
    start = all_frames(path)[0].end
    good = path.read_bytes()
    for offset in range(start, start + HEADER + 8 + len(b"second")):
        flip(path, offset)
        log = found(folder)
        assert (log.records, log.damage) == ([b"first"], []), offset
        path.write_bytes(good)


def test_a_frame_that_was_replaced_by_an_older_one_does_not_follow(folder: Path) -> None:
    """Each frame names the one before, so no intact frame passes in the place of another."""
    written(folder, [b"first"], [b"second"], [b"third"])
    path = in_use(folder)
    frames = all_frames(path)
    data = path.read_bytes()
    other = b"".join(
        encode_frame(Mark(2, 1, 0, frames[0].digest), [[b"SECOND"]], journal_id_of(data) or b"")[0]
    )
    start = frames[0].end
    path.write_bytes(data[:start] + other + data[start + len(other) :])
    assert [damage.detail for damage in found(folder).damage] == [
        "frame 3 does not follow the one before it",
    ]


def test_the_loss_of_the_last_frame_is_noticed_by_who_wrote_it(folder: Path) -> None:
    """Another process takes it for a torn tail; the one that acknowledged it knows better."""
    journal = written(folder, [b"first"], [b"second"])
    path = in_use(folder)
    good = path.read_bytes()
    start = all_frames(path)[0].end
    for offset in (start, start + HEADER + 9):  # its head, a record
        flip(path, offset)
        assert Journal(FileSystem(), folder).read().damage == []
        log = journal.read()
        assert log.records == [b"first"]
        assert len(log.damage) == 1, offset
        path.write_bytes(good)
        journal = written(folder)
        assert journal.read().records == [b"first", b"second"]


def test_a_segment_whose_head_is_damaged_is_read_and_reported_and_not_used_again(
    folder: Path,
    small_segments: None,
) -> None:
    written(folder, [b"first"], [b"second"])
    path = in_use(folder)
    flip(path, 9)
    log = found(folder)
    assert log.records == [b"first", b"second"]
    assert [damage.path for damage in log.damage] == [path]
    journal = Journal(FileSystem(), folder)
    journal.recover()
    for number in range(20):
        journal.retire(append(journal, b"%d" % number))
    journal.shrink()
    append(journal, b"last")
    journal.close()
    assert not path.exists()
    log = found(folder)
    assert (log.records, log.damage) == ([b"last"], [])


def test_a_journal_without_one_readable_head_is_never_taken_for_an_empty_one(
    folder: Path,
) -> None:
    written(folder, [b"first"])
    path = in_use(folder)
    for other in segments(folder):
        if other != path:
            other.unlink()  # as on a disk too full for a spare one
    flip(path, 9)
    log = found(folder)
    assert log.records == []
    assert [damage.path for damage in log.damage] == [path]
    assert log.damaged[path] == path.read_bytes()


# --- what does not count ------------------------------------------------------------------


def test_stale_frames_in_a_segment_used_again_never_count(
    folder: Path,
    small_segments: None,
) -> None:
    journal = Journal(FileSystem(), folder)
    for number in range(60):
        last = append(journal, b"old %d" % number)
        if number % 5 == 4:
            journal.retire(last)
    append(journal, b"live")
    journal.close()
    frames = [frame for path in segments(folder) for frame in all_frames(path)]
    assert len(frames) > 10, "there are stale frames in it"
    assert len(segments(folder)) <= 4, "segments were used again"
    assert found(folder).records == [b"live"]


def test_a_segment_of_another_journal_is_neither_read_nor_written(
    folder: Path,
    tmp_path: Path,
    small_segments: None,
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    written(strange, [b"strange"], [b"stranger"])
    written(folder, [b"ours"])
    for name in ("0000", "ffff"):  # read first, or last
        copy = folder / f"{name}{SUFFIX}"
        shutil.copy(in_use(strange), copy)
        before = copy.read_bytes()
        log = found(folder)
        assert log.records == [b"ours"]
        assert [damage.path for damage in log.damage] == [copy]
        journal = Journal(FileSystem(), folder)
        journal.recover()
        for number in range(40):
            journal.retire(append(journal, b"%d" % number))
        journal.shrink()
        append(journal, b"ours")
        journal.close()
        assert copy.read_bytes() == before
        copy.unlink()
    assert found(folder).records == [b"ours"]


def test_what_is_no_segment_is_left_alone(folder: Path, tmp_path: Path) -> None:
    written(folder, [b"ours"])
    (folder / "notes.txt").write_text("mine")
    (folder / f"folder{SUFFIX}").mkdir()
    (folder / f"link{SUFFIX}").symlink_to(tmp_path / "nowhere")
    (folder / f"begun{SUFFIX}").write_bytes(b"")
    log = found(folder)
    assert (log.records, log.damage) == ([b"ours"], [])
    assert found(tmp_path / "absent").records == []


def test_a_message_that_looks_like_a_frame_is_not_taken_for_one(folder: Path) -> None:
    """Also when the frame around it is damaged, so that its blocks are searched one by one."""
    fake = frame_bytes(Mark(99, 99, 98, 0), [b"forged"], bytes(16))
    body = b"x" * (BLOCK - HEADER - 8) + fake + b"y" * BLOCK
    written(folder, [b"first"], [body], [b"third"])
    path = in_use(folder)
    frames = all_frames(path)
    assert path.read_bytes()[frames[0].end + BLOCK :].startswith(b"SKFR"), "at a block's start"
    assert found(folder).records == [b"first", body, b"third"]
    flip(path, frames[0].end + HEADER + 8)
    log = found(folder)
    assert log.records == [b"first", b"third"]
    assert len(log.damage) == 1


def test_a_segment_that_vanishes_under_a_reader_is_left_out(folder: Path) -> None:
    """An owner gives room back while somebody reads."""
    written(folder, [b"first"])
    spare = next(path for path in segments(folder) if not all_frames(path))

    class Vanishing(FileSystem):
        def read(self, path: Path) -> tuple[list[bytes], Signature]:
            spare.unlink(missing_ok=True)
            return super().read(path)

    (folder / f"0000{SUFFIX}").write_bytes(b"")
    assert Journal(Vanishing(), folder).read().records == [b"first"]


# --- a medium that refuses ----------------------------------------------------------------


@pytest.mark.parametrize("operation", ["sync_data", "write_at"])
@pytest.mark.parametrize("after", [False, True])
def test_a_frame_that_was_given_up_is_void_also_when_it_is_intact(
    operation: str,
    after: bool,  # noqa: FBT001 - a parameter of the test
    folder: Path,
    fs: FaultyFileSystem,
) -> None:
    journal = Journal(fs, folder)
    append(journal, b"before")
    fs.fail(Fault(operation, os_error(errno.EIO), after=after))
    before = len(fs.calls)
    append(journal, b"twice on the medium")
    assert journal.sequence == 3, "acknowledged under a new number"
    assert fs.calls[before:].count("sync_data") == 1 + (operation == "sync_data")
    append(journal, b"behind")
    journal.close()
    intact = [frame for path in segments(folder) for frame in all_frames(path)]
    copies = [frame.sequence for frame in intact if b"twice on the medium" in frame.records]
    if operation == "sync_data" or after:
        assert sorted(copies) == [2, 3]
    expected = [b"before", b"twice on the medium", b"behind"]
    assert (found(folder).records, found(folder).damage) == (expected, [])
    # The process that gave it up reads the same.
    assert journal.recover().records == expected


def test_a_failed_sync_is_never_asked_for_again_on_that_segment(folder: Path) -> None:
    synced: list[int] = []

    class Noting(FaultyFileSystem):
        def sync_data(self, descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            super().sync_data(descriptor)

    fs = Noting()
    journal = Journal(fs, folder)
    append(journal, b"first")
    fs.fail(Fault("sync_data", os_error(errno.EIO)))
    append(journal, b"second")
    failed = synced[1]
    assert synced[0] == failed
    assert failed not in synced[2:], "the kernel would call it clean"
    append(journal, b"third")
    journal.retire(journal.sequence)
    journal.close()
    assert failed not in {path.stat().st_ino for path in segments(folder)}
    assert failed not in synced[2:]


def test_what_a_recovery_cannot_sync_is_written_anew(folder: Path) -> None:
    """A second sync would succeed and mean nothing, in this incarnation or in the next."""
    written(folder, [b"first"], [b"second", b"third"])
    doubtful = in_use(folder)
    fs = FaultyFileSystem()
    fs.fail(Fault("sync_data", os_error(errno.EIO)))
    journal = Journal(fs, folder)
    for _ in range(2):
        log = journal.recover()
        assert log.records == [b"first", b"second", b"third"]
        assert log.damage == []
        copied = {
            body
            for path in segments(folder)
            if path != doubtful
            for frame in all_frames(path)
            for body in frame.records
        }
        assert copied == {b"first", b"second", b"third"}
    journal.close()


def test_a_recovery_that_finds_no_medium_says_so_until_it_does(folder: Path) -> None:
    written(folder, [b"first"])
    doubtful = in_use(folder)
    fs = FaultyFileSystem()
    fs.fail(Fault("sync_data", os_error(errno.EIO), times=10))
    journal = Journal(fs, folder)
    with pytest.raises(OSError, match="Input/output error"):
        journal.recover()
    fs.heal()
    assert journal.recover().records == [b"first"]
    others = [path for path in segments(folder) if path != doubtful]
    assert any(b"first" in frame.records for path in others for frame in all_frames(path))
    journal.close()


def test_two_failures_in_a_row_are_told_apart_by_what_was_touched(
    folder: Path,
    fs: FaultyFileSystem,
) -> None:
    journal = Journal(fs, folder)
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), times=2))
    with pytest.raises(JournalFailed) as refused:
        append(journal, b"no room")
    assert refused.value.untouched
    assert refused.value.cause.errno == errno.ENOSPC
    assert not is_suspended(journal)
    append(journal, b"first")
    fs.fail(Fault("sync_data", os_error(errno.EIO), times=2))
    with pytest.raises(JournalFailed) as refused:
        append(journal, b"unknown")
    assert not refused.value.untouched
    assert is_suspended(journal)
    journal.close()
    # A process that comes up now may find it, and then once.
    assert found(folder).records in ([b"first"], [b"first", b"unknown"])
    # This one gave it up, and says so to all who come later.
    assert journal.recover().records == [b"first"]
    append(journal, b"second")
    assert not is_suspended(journal)
    journal.close()
    assert found(folder).records == [b"first", b"second"]
    assert found(folder).damage == []


def test_large_frames_that_a_full_disk_refuses_leave_room_for_small_ones(
    folder: Path,
    fs: FaultyFileSystem,
    small_segments: None,
) -> None:
    """So that deletes work on a full disk, however often somebody tries to save."""
    journal = Journal(fs, folder)
    append(journal, b"first")
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), times=10**6))
    for _ in range(5):
        with pytest.raises(JournalFailed) as refused:
            append(journal, b"large" * 10_000)
        assert refused.value.untouched
        append(journal, b"small")
    journal.close()
    assert found(folder).records == [b"first"] + [b"small"] * 5


def test_the_next_frame_is_written_only_when_the_one_before_is_on_the_medium(
    folder: Path,
    small_segments: None,
) -> None:
    """Retirement too: its mark is durable before anything it frees is written over."""
    unsynced: set[int] = set()
    written_over = 0

    class Watching(FileSystem):
        def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
            nonlocal written_over
            assert not unsynced, "the frame before may be lost when this one is not"
            unsynced.add(os.fstat(descriptor).st_ino)
            written_over += os.pread(descriptor, 4, offset) != bytes(4)
            super().write_at(descriptor, chunks, offset)

        def sync_data(self, descriptor: int) -> None:
            super().sync_data(descriptor)
            unsynced.discard(os.fstat(descriptor).st_ino)

    journal = Journal(Watching(), folder)
    for number in range(60):
        last = append(journal, b"%d" % number)
        assert not unsynced, "acknowledged before it was durable"
        if number % 5 == 4:
            journal.retire(last)
            assert not unsynced
    journal.close()
    assert written_over > 10, "room was used again"


@pytest.mark.parametrize("looks", [True, False])
def test_a_retirement_that_fails_retires_nothing(
    looks: bool,  # noqa: FBT001 - a parameter of the test
    folder: Path,
    fs: FaultyFileSystem,
) -> None:
    journal = Journal(fs, folder)
    last = append(journal, b"kept")
    live = journal.live_bytes
    fs.fail(Fault("sync_data", os_error(errno.EIO), times=2))
    with pytest.raises(JournalFailed):
        journal.retire(last)
    assert journal.live_bytes == live
    if looks:
        assert journal.recover().records == [b"kept"]
    append(journal, b"more")
    journal.close()
    assert found(folder).records == [b"kept", b"more"]


# --- at the level `os` --------------------------------------------------------------------


def test_appends_without_sync_are_made_durable_together(
    folder: Path,
    fs: FaultyFileSystem,
    small_segments: None,
) -> None:
    journal = Journal(fs, folder)
    append(journal, b"0", sync=False)
    fs.calls.clear()
    append(journal, b"1", sync=False)
    append(journal, b"2", sync=False)
    assert "sync_data" not in fs.calls
    journal.sync()
    journal.sync()
    assert fs.calls.count("sync_data") == 1
    # A segment is left only when what it holds is durable.
    fs.calls.clear()
    for number in range(3, 20):
        append(journal, b"%d" % number, sync=False)
    assert "sync_data" in fs.calls
    journal.close()
    assert found(folder).records == [b"%d" % number for number in range(20)]


def test_a_sync_that_failed_is_not_repeated_and_the_next_frame_goes_elsewhere(
    folder: Path,
    fs: FaultyFileSystem,
) -> None:
    journal = Journal(fs, folder)
    append(journal, b"first", sync=False)
    failed = in_use(folder)
    fs.fail(Fault("sync_data", os_error(errno.EIO)))
    with pytest.raises(OSError, match="Input/output error"):
        journal.sync()
    journal.sync()
    append(journal, b"second", sync=False)
    assert b"second" not in failed.read_bytes()
    journal.sync()
    journal.close()


# --- room ---------------------------------------------------------------------------------


def test_segments_grow_with_what_is_live_and_shrink_again(folder: Path) -> None:
    journal = Journal(FileSystem(), folder)
    append(journal, b"small")
    assert [path.stat().st_size for path in segments(folder)] == [SMALLEST, SMALLEST]
    for _ in range(12):
        append(journal, bytes(700_000))
    sizes = sorted(path.stat().st_size for path in segments(folder))
    assert sizes[-1] > SMALLEST
    assert sizes[-1] <= LARGEST
    assert len(sizes) < 12
    many = len(sizes)
    journal.retire(journal.sequence)
    assert journal.live_bytes == 0
    journal.shrink()
    assert len(segments(folder)) == 2 < many, "the active one and a spare one"
    append(journal, b"more")
    journal.close()
    assert found(folder).records == [b"more"]


def test_a_frame_larger_than_any_segment_gets_one_of_its_own(folder: Path) -> None:
    journal = Journal(FileSystem(), folder)
    body = bytes(LARGEST + 5)
    append(journal, b"before")
    append(journal, body)
    append(journal, b"behind")
    journal.close()
    assert found(folder).records == [b"before", body, b"behind"]
    assert BLOCK + padded(HEADER + 8 + len(body)) in {p.stat().st_size for p in segments(folder)}


def test_an_idle_journal_holds_nothing_and_forgets_its_number_never(folder: Path) -> None:
    journal = Journal(FileSystem(), folder)
    assert (journal.live_bytes, journal.sequence) == (0, 0)
    append(journal, b"first")
    assert journal.live_bytes == BLOCK
    journal.retire(journal.sequence)
    assert journal.live_bytes == 0
    sequence = journal.sequence
    assert journal.recover().records == []
    assert (journal.live_bytes, journal.sequence) == (0, sequence)
    journal.close()
    again = Journal(FileSystem(), folder)
    assert again.recover().records == []
    assert append(again, b"second") > sequence
    again.close()


# --- against a list -----------------------------------------------------------------------


class TearingFileSystem(FaultyFileSystem):
    """Stops in the midst of the next write, as a kill does, or a power loss."""

    tear: int | None = None

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        if self.tear is None:
            super().write_at(descriptor, chunks, offset)
            return
        cut, self.tear = self.tear, None
        super().write_at(descriptor, [b"".join(chunks)[:cut]], offset)
        raise InjectedCrash("torn")


bodies_of_one_frame = st.lists(st.sampled_from([3, 500, 5000, 20_000]), min_size=1, max_size=3)


class JournalMachine(RuleBasedStateMachine):
    """The journal, and a list of what was acknowledged with the numbers of its frames."""

    @initialize()
    def start(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal_module, "SMALLEST", 8 * BLOCK)
        self.patch.setattr(journal_module, "LARGEST", 32 * BLOCK)
        self.folder = Path(tempfile.mkdtemp())
        self.fs = TearingFileSystem()
        self.journal = Journal(self.fs, self.folder)
        self.model: list[tuple[int, list[bytes]]] = []
        # What was refused, or cut by a crash: the next process may find it.
        self.unknown: list[list[bytes]] = []
        self.numbers = itertools.count(1)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.journal.close()
            shutil.rmtree(self.folder)
            self.patch.undo()

    def bodies(self, sizes: list[int]) -> list[bytes]:
        return [(b"%d " % next(self.numbers)) * (size // 3) for size in sizes]

    def live(self) -> list[bytes]:
        return [body for _, bodies in self.model for body in bodies]

    @rule(sizes=bodies_of_one_frame)
    def append(self, sizes: list[int]) -> None:
        bodies = self.bodies(sizes)
        self.journal.append([[body] for body in bodies])
        self.model.append((self.journal.sequence, bodies))
        self.unknown = []

    @rule(sizes=bodies_of_one_frame, operation=st.sampled_from(["sync_data", "write_at"]))
    def append_with_a_failure(self, sizes: list[int], operation: str) -> None:
        self.fs.fail(Fault(operation, os_error(errno.EIO), after=True))
        self.append(sizes)

    @rule(sizes=bodies_of_one_frame)
    def append_in_vain(self, sizes: list[int]) -> None:
        bodies = self.bodies(sizes)
        self.fs.fail(Fault("sync_data", os_error(errno.EIO), times=2))
        with pytest.raises(JournalFailed) as refused:
            self.journal.append([[body] for body in bodies])
        assert not refused.value.untouched
        self.unknown.append(bodies)
        self.fs.heal()

    @rule(sizes=bodies_of_one_frame, cut=st.integers(0, 12 * BLOCK))
    def torn(self, sizes: list[int], cut: int) -> None:
        bodies = self.bodies(sizes)
        self.fs.tear = cut
        with pytest.raises(InjectedCrash):
            self.journal.append([[body] for body in bodies])
        self.unknown.append(bodies)
        self.come_up()

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        up_to = data.draw(st.integers(0, self.journal.sequence))
        self.journal.retire(up_to)
        self.model = [(number, bodies) for number, bodies in self.model if number > up_to]
        self.unknown = []

    @rule()
    def shrink(self) -> None:
        self.journal.shrink()

    @rule()
    def come_up(self) -> None:
        """Another process takes over."""
        self.journal.close()
        self.journal = Journal(self.fs, self.folder)
        log = self.journal.recover()
        assert log.damage == []
        for bodies in self.unknown:
            if log.records == self.live() + bodies:
                self.model.append((self.journal.sequence, bodies))
                break
        assert log.records == self.live()
        self.unknown = []

    @rule()
    def restart(self) -> None:
        """The same process looks again: what it gave up stays so."""
        before = self.journal.sequence
        log = self.journal.recover()
        assert log.damage == []
        assert log.records == self.live()
        if self.journal.sequence > before:  # written anew, for a segment cannot be trusted
            self.model = [(self.journal.sequence, self.live())]
            self.unknown = []

    @rule()
    def look(self) -> None:
        """Somebody reads beside the owner."""
        records = Journal(FileSystem(), self.folder).read().records
        assert records in [self.live() + bodies for bodies in ([], *self.unknown)]


JournalMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
)
TestJournal = JournalMachine.TestCase
