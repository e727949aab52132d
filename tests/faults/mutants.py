"""The store with one of its precautions left out: each rig must notice."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from recorder import RecordingFileSystem

from sessionkeeper.engine.view import View
from sessionkeeper.storage import journal as journals
from sessionkeeper.storage.frames import BLOCK, frames_in, segment_head
from sessionkeeper.storage.journal import Journal
from sessionkeeper.storage.journaled import JournaledBackend
from sessionkeeper.storage.syncs import WatchedSyncs

if TYPE_CHECKING:
    import pytest
    from replays import Durability

    from sessionkeeper.storage.checkpoints import Checkpoint
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.folder import Staged


def no_journal_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is acknowledged when it is written."""
    write = Journal._write

    def unsynced(self: Journal, records: Any, *, sync: bool) -> None:
        del sync
        write(self, records, sync=False)
        self._unsynced = False

    monkeypatch.setattr(Journal, "_write", unsynced)


def no_file_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Session files are renamed, and the journal freed, without a sync of their bytes."""
    monkeypatch.setattr(RecordingFileSystem, "sync_files", lambda *_: None)


def no_temporary_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the level `file`: a temporary is renamed without a sync of its bytes."""
    monkeypatch.setattr(RecordingFileSystem, "sync", lambda *_: None)


def no_folder_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are never synced."""
    monkeypatch.setattr(RecordingFileSystem, "sync_folder", lambda *_: None)


def segment_used_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new segment is written to before its name is durable."""

    def create(self: Journal, length: int) -> journals._Segment:
        size = max(journals.SMALLEST, BLOCK + length)
        path = self._folder / f"{os.urandom(8).hex()}{journals.SUFFIX}"
        self._fs.create_blank(path, segment_head(self._id), size)
        return journals._Segment(path, size)

    monkeypatch.setattr(Journal, "_create", create)


def sync_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that failed is asked for again, on the same descriptor."""
    sync_data = RecordingFileSystem.sync_data

    def again(self: RecordingFileSystem, descriptor: int) -> None:
        try:
            sync_data(self, descriptor)
        except OSError:
            sync_data(self, descriptor)

    monkeypatch.setattr(RecordingFileSystem, "sync_data", again)


def published_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared file is renamed, whatever was published meanwhile."""

    def publish(self: JournaledBackend, staged: Staged, suspects: list[str]) -> bool:
        del suspects
        self._publish(staged)
        self._pending.pop(staged.document.record.session_id, None)
        return True

    monkeypatch.setattr(JournaledBackend, "_publish_prepared", publish)


def cached_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader has read is cached, whatever was published meanwhile."""

    def settle(self: View, session_id: str, document: Document | None) -> bool:
        del session_id
        if document is not None:
            self.cache.put(document)
        return True

    monkeypatch.setattr(View, "_settle", settle)


def retired_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is freed before the names in the folder are durable."""
    finish = JournaledBackend.finish

    def settle(self: JournaledBackend, checkpoint: Checkpoint) -> None:
        paths = [self._path(stem) for stem in sorted(checkpoint.files)]
        self._fs.sync_files(self._layout.sessions, paths)

    def finish_first(self: JournaledBackend, checkpoint: Checkpoint, *, settled: bool) -> None:
        finish(self, checkpoint, settled=settled)
        self._fs.sync_folder(self._layout.sessions)

    monkeypatch.setattr(JournaledBackend, "settle", settle)
    monkeypatch.setattr(JournaledBackend, "finish", finish_first)


def doubt_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync one that succeeds is believed, also for what was unsynced before."""
    monkeypatch.setattr(WatchedSyncs, "_noticed", lambda _: nullcontext())
    monkeypatch.setattr(JournaledBackend, "_doubt_all_unsynced", lambda _: None)


def void_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that was given up counts when it can be read."""

    def unvoided(data: bytes, journal_id: bytes) -> Any:
        for frame in frames_in(data, journal_id):
            object.__setattr__(frame, "voided", 0)
            yield frame

    monkeypatch.setattr(journals, "frames_in", unvoided)


# Found by the replay of a log on the weak model, each at the level named.
FOUND_BY_REPLAY: Final[dict[str, tuple[Any, Durability]]] = {
    "no journal sync": (no_journal_sync, "journal"),
    "no file sync": (no_file_sync, "journal"),
    "no file sync, level file": (no_temporary_sync, "file"),
    "no folder sync": (no_folder_sync, "journal"),
    "no folder sync, level file": (no_folder_sync, "file"),
    "segment used before it is durable": (segment_used_too_early, "journal"),
    "segment retired before the folder sync": (retired_too_early, "journal"),
}
