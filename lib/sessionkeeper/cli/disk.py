"""How many bytes the parts of a store take; beside a live owner, as they are met."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sessionkeeper.layout import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.layout import Layout


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Bytes in files.

    Attributes:
        sessions: The session files.
        backups: Replaced and conflicting versions.
        trash: Deleted sessions.
        quarantine: Files that could not be read.
    """

    sessions: int
    backups: int
    trash: int
    quarantine: int


def disk_usage(layout: Layout) -> DiskUsage:
    """Add up the files of a store."""
    return DiskUsage(
        sessions=_total(_session_files(layout.sessions)),
        backups=_total(_all_files(layout.backups)),
        trash=_total(_all_files(layout.trash)),
        quarantine=_total(_all_files(layout.quarantine)),
    )


def _session_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.endswith(SUFFIX) and not path.name.startswith("."):
            yield path


def _all_files(folder: Path) -> Iterator[Path]:
    # os.walk passes over folders that vanish under it.
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _total(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # the owner moved it meanwhile
        if stat.S_ISREG(status.st_mode):
            total += status.st_size
    return total
