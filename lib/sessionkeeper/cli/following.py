"""Following a store from beside its owner: what changed since the last look.

Nothing is locked and nobody is asked: the files and the journal are looked at again and again.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sessionkeeper.errors import StoreNotFound
from sessionkeeper.keys import id_of, key_of, namespace_of
from sessionkeeper.processes.tree import SystemTime
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.storage.singlereader import SingleFileReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkeeper.layout import Layout
    from sessionkeeper.session import Session, SessionInfo
    from sessionkeeper.storage.backend import Problem
    from sessionkeeper.storage.documents import Record

# A file that is edited in place shows in nothing but itself: so often all of them are looked at.
WHOLE_LOOK: Final = 10
# A change so soon after another one may leave the same time on a file.
UNSETTLED: Final = 50_000_000  # nanoseconds
# So often a look that shows an older version than the one before is repeated.
ATTEMPTS: Final = 5

wait = time.sleep


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a session between two looks.

    Attributes:
        session_id: The session.
        kind: What became of it.
        info: What it is now; None if it is gone.
    """

    session_id: str
    kind: Literal["created", "changed", "gone"]
    info: SessionInfo | None


class Follower:
    """Looks at a store that somebody else may own.

    Args:
        layout: Where it lies.
        interval: Seconds between two looks.
        namespace: Whose sessions are followed.

    Attributes:
        problems: What could not be read at the last look, and was not known before.

    Raises:
        StoreNotFound: There is no store.
    """

    def __init__(self, layout: Layout, interval: float, namespace: str = "") -> None:
        if not layout.private.is_dir():
            raise StoreNotFound(f"there is no store at {layout.root}", path=layout.root)
        self._layout = layout
        self._interval = interval
        self._namespace = namespace
        fs, clock = FileSystem(), SystemTime()
        self._reader = (FolderReader if layout.file is None else SingleFileReader)(
            layout, fs, clock
        )
        self._fs = fs
        self._known_problems: list[Problem] = []
        self._records: dict[str, Record] = {}
        self._stamp: object = None
        self._looks = 0
        self.problems: list[Problem] = []
        self.look()

    def look(self) -> list[Change]:
        """What changed since the last look, the oldest change first."""
        stamp = self._current_stamp()
        self._looks += 1
        if stamp is not None and stamp == self._stamp and self._looks % WHOLE_LOOK:
            return []
        before, self._records = self._records, self._read()
        self._stamp = stamp
        gone = [Change(key, "gone", None) for key in before if key not in self._records]
        changed = [record for key, record in self._records.items() if before.get(key) != record]
        return gone + [
            Change(info.session_id, "changed" if info.session_id in before else "created", info)
            for info in (r.info() for r in sorted(changed, key=lambda record: record.lsn))
        ]

    def changes(self) -> Iterator[list[Change]]:
        """What changes from now on, look by look; without an end."""
        while True:
            wait(self._interval)
            changes = self.look()
            if changes or self.problems:
                yield changes

    def session(self, session_id: str) -> Session | None:
        """A session, at least as it was at the last look; None if there is none.

        Raises:
            SessionKeeperError: Its file cannot be read.
        """
        document = self._reader.read(key_of(self._namespace, session_id))
        return None if document is None else document.session(None, None)

    def _read(self) -> dict[str, Record]:
        # An owner that carries changes on into another segment of its journal, and removes the
        # one before, can do so between our look at the folder and our look into the file.
        for _ in range(ATTEMPTS):
            report = self._reader.recover()
            found = {
                id_of(key): record
                for key, record in report.records.items()
                if namespace_of(key) == self._namespace
            }
            if not any(_is_behind(found.get(key), known) for key, known in self._records.items()):
                break
        self._note(report.problems)
        return found

    def _note(self, problems: list[Problem]) -> None:
        self.problems = [each for each in problems if each not in self._known_problems]
        self._known_problems = problems

    def _current_stamp(self) -> tuple[tuple[str, Signature], ...] | None:
        """What shows whether the owner has done anything; None as long as that may not show."""
        layout = self._layout
        watched = [layout.folder_of(self._namespace), layout.trash]
        if layout.file is not None:
            watched.append(layout.file)
        else:
            with contextlib.suppress(FileNotFoundError):
                watched += [Path(entry.path) for entry in self._fs.entries(layout.journal)]
        statuses = [(str(path), self._fs.status(path)) for path in watched]
        found = tuple((name, Signature.of(status)) for name, status in statuses if status)
        newest = max((signature.mtime_ns for _, signature in found), default=0)
        return None if time.time_ns() - newest < UNSETTLED else found


def _is_behind(record: Record | None, known: Record) -> bool:
    return record is not None and record.lsn < known.lsn
