"""What a store takes on the disk."""

from __future__ import annotations

from pathlib import Path

from sessionkeeper import SessionStore


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def test_files_and_bytes_are_counted(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(3):
            for text in ("first", "second"):
                store.save_session(f"s{number}", [text, number])
        store.save_session("gone", ["x" * 5000])
        store.delete_session("gone")
        store.checkpoint()
        stats = store.stats()
        private = folder / ".sessionkeeper"
        files = [path.stat().st_size for path in folder.glob("*.json")]
        assert (stats.session_count, stats.session_size) == (3, sum(files))
        backups = sizes(private / "backups")
        assert (
            (stats.backup_count, stats.backup_size)
            == (3, sum(backups))
            == (len(backups), sum(backups))
        )
        assert stats.trash_size == sum(sizes(private / "trash")) > 5000
        assert stats.quarantine_size == 0
        assert stats.journal_size == sum(sizes(private / "journal")) > 0
        parts = stats.session_size + stats.backup_size + stats.trash_size + stats.journal_size
        assert stats.total_size > parts, "the index takes room too"
    with SessionStore.open(folder, read_only=True) as store:
        assert store.stats().session_count == 3


def test_other_files_are_none_of_it(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, layout="rooted") as store:
        store.save_session("s1", [1])
        (folder / "sessions" / "notes.txt").write_text("theirs")
        (folder / "sessions" / ".hidden.json").write_text("theirs")
        assert store.stats().session_count == 1


def test_a_store_in_memory_takes_nothing() -> None:
    with SessionStore.open("unused", persistence=False) as store:
        store.save_session("s1", [1])
        assert store.stats().total_size == 0
        assert not Path("unused").exists()
