"""Cases 9 and 20 to 22: bytes that changed by themselves, torn records, and old ones."""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import SessionKeeperError, SessionStore
from sessionkeeper.storage.frames import BLOCK
from sessionkeeper.testing import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Covered = Callable[[str, int, str], None]

SECTOR = 512


def flip(path: Path, at: int, bit: int) -> bytes:
    """Flip a bit of a file, its size and time as they were; returns the bytes it has now."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data[at : at + 1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return bytes(data)


def quarantined(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / ".sessionkeeper" / "quarantine").iterdir()]


def flip_every_byte_of_a_file(folder: Path, step: int) -> int:
    with SessionStore.open(folder, watch=False, cache_bytes=1, call_timeout=1.0) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["first", "second"])
        store.checkpoint()
        path = folder / "s1.json"
        size = path.stat().st_size
        flips = 0
        for at in range(0, size, step):
            store.save_session("s1", ["first", "second"])
            store.checkpoint()
            length = path.stat().st_size
            damaged = flip(path, at % length, at % 8)
            try:
                found = store.load_session("s1").messages
            except SessionKeeperError:
                found = None
            assert found in (["first", "second"], None), f"byte {at}: {found}"
            store.flush()
            assert damaged in quarantined(folder), f"byte {at}: what was damaged is not kept"
            flips += 1
        assert store.info().restarts == 0
    return flips


def test_a_bit_that_flips_in_a_session_file_is_never_believed(
    folder: Path,
    covered: Covered,
) -> None:
    covered("20", flip_every_byte_of_a_file(folder, 9), "flips in a session file")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_no_bit_that_flips_in_a_session_file_is_believed(folder: Path, covered: Covered) -> None:
    covered("20", flip_every_byte_of_a_file(folder, 1), "flips in a session file")


def flip_bytes_of_a_backup(folder: Path, step: int) -> int:
    versions = [[str(number)] for number in range(4)]
    with SessionStore.open(folder, watch=False) as store:
        for messages in versions:
            store.save_session("s1", messages)
    size = min(p.stat().st_size for p in (folder / ".sessionkeeper" / "backups" / "s1").iterdir())
    flips = 0
    for at in range(0, size, step):
        copy = folder.with_name(f"copy-{at}")
        shutil.copytree(folder, copy)
        (copy / "s1.json").write_bytes(b"\0" * 100)
        newest = max((copy / ".sessionkeeper" / "backups" / "s1").iterdir())
        damaged = flip(newest, at, at % 8)
        with SessionStore.open(copy, watch=False) as store:
            assert store.load_session("s1").messages == versions[-3], f"byte {at}"
        assert damaged in [path.read_bytes() for path in copy.rglob("*.json")]
        shutil.rmtree(copy)
        flips += 1
    return flips


def test_a_bit_that_flips_in_a_backup_is_never_believed(folder: Path, covered: Covered) -> None:
    covered("20", flip_bytes_of_a_backup(folder, 11), "flips in a backup")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_no_bit_that_flips_in_a_backup_is_believed(folder: Path, covered: Covered) -> None:
    covered("20", flip_bytes_of_a_backup(folder, 1), "flips in a backup")


# --- the journal -----------------------------------------------------------------------------

FRAMES = 12


def journal_left_behind(folder: Path) -> tuple[Path, Path, list[int]]:
    """A store that was killed: its folder, its segment, and where its frames begin."""
    store = SessionStore.open(folder, watch=False)
    try:
        for number in range(FRAMES):
            store.append(f"s{number % 3}", [f"{number}"])
        left = folder.with_name("left")
        shutil.copytree(folder, left)
    finally:
        store.close()
    for segment in (left / ".sessionkeeper" / "journal").iterdir():
        data = segment.read_bytes()
        places = [at for at in range(BLOCK, len(data), BLOCK) if data.startswith(b"SKFR", at)]
        if places:
            return left, segment, places
    raise AssertionError("the journal is empty")


def told(count: int) -> dict[str, list[str]]:
    """The sessions after so many changes."""
    found: dict[str, list[str]] = {}
    for number in range(count):
        found.setdefault(f"s{number % 3}", []).append(f"{number}")
    return found


def recovered(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The sessions, and what the recovery found wrong with the journal."""
    with SessionStore.open(folder, watch=False) as store:
        sessions = {
            i.session_id: store.load_session(i.session_id).messages for i in store.iter_sessions()
        }
        problems = [p.detail for p in store.last_recovery.problems if p.kind == "journal"]
    return sessions, problems


def used(data: bytes, at: int) -> int:
    """How many bytes of a frame are no padding."""
    return len(data[at : at + BLOCK].rstrip(b"\0"))


def flip_in_the_journal(folder: Path, step: int) -> tuple[int, int]:
    left, segment, places = journal_left_behind(folder)
    original = segment.read_bytes()
    middle = tail = 0
    for frame, place in enumerate(places):
        for at in range(place, place + used(original, place), step):
            copy = folder.with_name(f"copy-{at}")
            shutil.copytree(left, copy)
            flip(copy / segment.relative_to(left), at, at % 8)
            sessions, problems = recovered(copy)
            _believes_only_what_was_told(sessions, f"byte {at}")
            lost = sessions != told(FRAMES)
            if frame < len(places) - 1:
                middle += 1
                assert problems or not lost, f"byte {at}: a loss in the middle was not reported"
            else:
                tail += 1
                assert sessions in (told(FRAMES), told(FRAMES - 1)), f"byte {at}"
            shutil.rmtree(copy)
    return middle, tail


def _believes_only_what_was_told(sessions: dict[str, list[str]], where: str) -> None:
    whole = told(FRAMES)
    for session_id, messages in sessions.items():
        expected = iter(whole[session_id])
        assert all(message in expected for message in messages), f"{where}: {messages}"


def test_a_bit_that_flips_in_the_middle_of_the_journal_is_reported(
    folder: Path,
    covered: Covered,
) -> None:
    middle, tail = flip_in_the_journal(folder, 37)
    covered("20, 21", middle, "flips in the middle of the journal")
    covered("20, 21", tail, "flips in the journal's last frame")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_every_bit_that_flips_in_the_journal_is_reported(folder: Path, covered: Covered) -> None:
    middle, tail = flip_in_the_journal(folder, 1)
    covered("20, 21", middle + tail, "flips in the journal")


def test_a_last_record_torn_at_any_sector_is_no_damage(folder: Path, covered: Covered) -> None:
    left, segment, places = journal_left_behind(folder)
    place = places[-1]
    data = segment.read_bytes()
    states = 0
    for sector in range(BLOCK // SECTOR):
        for kept_before in (True, False):
            copy = folder.with_name(f"copy-{sector}-{kept_before}")
            shutil.copytree(left, copy)
            torn = bytearray(data)
            start, end = place + sector * SECTOR, place + BLOCK
            if not kept_before:
                start, end = place, start
            torn[start:end] = bytes(end - start)
            (copy / segment.relative_to(left)).write_bytes(torn)
            sessions, problems = recovered(copy)
            assert problems == []
            assert sessions in (told(FRAMES), told(FRAMES - 1))
            shutil.rmtree(copy)
            states += 1
    covered("9", states, "last frames torn at a sector")


def test_old_frames_in_a_segment_used_again_count_for_nothing(
    folder: Path,
    small: None,
    covered: Covered,
) -> None:
    rng = random.Random(1)
    expected: dict[str, list[str]] = {}
    recoveries = 0
    for opening in range(6):
        store = SessionStore.open(folder, watch=False, checkpoint_bytes=20_000)
        try:
            for number in range(40):
                session_id = f"s{rng.randrange(4)}"
                text = f"{opening}.{number}:" + "x" * rng.randrange(3000)
                store.append(session_id, [text])
                expected.setdefault(session_id, []).append(text)
            left = folder.with_name(f"left-{opening}")
            shutil.copytree(folder, left)
        finally:
            store.close()
        sessions, problems = recovered(left)
        assert problems == []
        assert sessions == expected
        recoveries += 1
    covered("22", recoveries, "recoveries from segments used again")


def test_a_foreign_segment_is_left_alone(folder: Path, tmp_path: Path, covered: Covered) -> None:
    with SessionStore.open(tmp_path / "other", watch=False) as other:
        other.append("theirs", ["secret"])
    left, _, _ = journal_left_behind(folder)
    theirs = next((tmp_path / "other" / ".sessionkeeper" / "journal").iterdir())
    aside = left / ".sessionkeeper" / "journal" / "0000.segment"
    shutil.copy(theirs, aside)
    before = aside.read_bytes()
    with SessionStore.open(left, watch=False) as store, EventLog(store):
        assert "theirs" not in store
        for session_id, messages in told(FRAMES).items():
            assert store.load_session(session_id).messages == messages
        store.append("s0", ["more"])
    assert aside.read_bytes() == before
    covered("22", 1, "foreign segment that was left alone")
