"""How many files the parts of a store are, and their bytes; beside a live owner, as met."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sessionkeeper.answers import StorageStats
from sessionkeeper.layout import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.layout import Layout


def measure(layout: Layout) -> StorageStats:
    """Add up the files of a store, without reading or remembering any.

    Raises:
        OSError: The folder cannot be listed.
    """
    sessions = _total([layout.file] if layout.file is not None else _all_session_files(layout))
    backups = _total(_all_files(layout.backups))
    trash = _total(_all_files(layout.trash))
    quarantine = _total(_all_files(layout.quarantine))
    journal = _total(_all_files(layout.journal))
    parts = (sessions, backups, trash, quarantine, journal)
    return StorageStats(
        session_count=sessions[0],
        session_size=sessions[1],
        backup_count=backups[0],
        backup_size=backups[1],
        trash_size=trash[1],
        quarantine_size=quarantine[1],
        journal_size=journal[1],
        total_size=sum(size for _, size in parts) + _total(_index_files(layout))[1],
    )


def _all_session_files(layout: Layout) -> Iterator[Path]:
    yield from _session_files(layout.sessions)
    if not layout.namespaces.is_dir():
        return
    for mark in layout.namespaces.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a person has removed it
            yield from _session_files(layout.folder_of(mark.name))


def _session_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                yield Path(entry.path)


def _all_files(folder: Path) -> Iterator[Path]:
    # os.walk passes over folders that vanish under it.
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _index_files(layout: Layout) -> Iterator[Path]:
    for path in (layout.index, layout.text_index):
        yield from path.parent.glob(f"{path.name}*")


def _total(paths: Iterable[Path]) -> tuple[int, int]:
    count = size = 0
    for path in paths:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # the owner moved it meanwhile
        if stat.S_ISREG(status.st_mode):
            count += 1
            size += status.st_size
    return count, size
