"""A file system and a backend that fail where a test says."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.answers import BackupInfo, Erased, Trashed
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.backend import Backend, Change, Reconciled, RecoveryReport
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.platform import Signature

Operation = Literal[
    "write_new",
    "write_at",
    "sync",
    "sync_data",
    "sync_files",
    "replace",
    "link",
    "unlink",
    "sync_folder",
    "read",
    "make_folder",
]


@dataclass(slots=True)
class Fault:
    """One planned failure.

    Attributes:
        operation: Which operation fails.
        error: What it raises: an `OSError` is what a medium does, anything else is a crash.
        skip: How many calls pass before it.
        times: How many calls in a row fail.
        after: Whether the operation is done before it fails.
        name: Only calls about a file of that name count; empty: all.
    """

    operation: str
    error: BaseException
    skip: int = 0
    times: int = 1
    after: bool = False
    name: str = ""

    def due(self, operation: str, name: str = "") -> bool:
        """Count a call, and say whether it fails."""
        if operation != self.operation or not self.times or self.name not in ("", name):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class _Plan:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.calls: list[str] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def enter(self, operation: str, name: str = "") -> Fault | None:
        """Note a call; raise if a fault is due before it, return one that is due after it."""
        with self._lock:
            self.calls.append(operation)
            due = next((fault for fault in self._faults if fault.due(operation, name)), None)
        if due is not None and not due.after:
            raise due.error
        return due


def _leave(due: Fault | None) -> None:
    if due is not None:
        raise due.error


class _Gate:
    """Lets pass what comes, or makes it wait."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._reached = threading.Event()

    def close(self) -> None:
        self._reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait_reached(self, timeout: float) -> None:
        if not self._reached.wait(timeout):
            raise AssertionError(f"nothing was synced within {timeout} s")

    def enter(self) -> None:
        if not self._open.is_set():
            self._reached.set()
            self._open.wait()


class FaultyFileSystem(FileSystem):
    """The real file system, until a planned fault is due."""

    def __init__(self) -> None:
        self._plan = _Plan()
        self._gate = _Gate()

    def fail(self, fault: Fault) -> None:
        """Plan a failure."""
        self._plan.add(fault)

    def heal(self) -> None:
        """Forget what was planned."""
        self._plan.clear()

    def hold(self) -> None:
        """Let every sync wait from now on, as on a disk that stalls, until `release`."""
        self._gate.close()

    def release(self) -> None:
        """Let every sync go on that waits, and those to come."""
        self._gate.open()

    def wait_held(self, timeout: float = 5.0) -> None:
        """Return once a sync waits for `release`.

        Raises:
            AssertionError: None came within so many seconds.
        """
        self._gate.wait_reached(timeout)

    @property
    def calls(self) -> list[str]:
        """The operations so far, in order."""
        return self._plan.calls

    def make_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("make_folder")
        super().make_folder(path)
        _leave(due)

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        """See `FileSystem`; its operation is called `write_new`."""
        due = self._plan.enter("write_new")
        descriptor = super().begin_new(path, chunks)
        if due is not None:
            os.close(descriptor)
        _leave(due)
        return descriptor

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("write_at")
        super().write_at(descriptor, chunks, offset)
        _leave(due)

    def sync_data(self, descriptor: int) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("sync_data")
        self._gate.enter()
        super().sync_data(descriptor)
        _leave(due)

    def sync_files(self, folder: Path, paths: Sequence[Path]) -> None:
        """See `FileSystem`; few files are also a `sync` each."""
        due = self._plan.enter("sync_files")
        self._gate.enter()
        super().sync_files(folder, paths)
        _leave(due)

    def sync(self, descriptor: int) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("sync")
        self._gate.enter()
        super().sync(descriptor)
        _leave(due)

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("replace", target.name)
        super().replace(source, target)
        _leave(due)

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("link")
        super().link(source, target)
        _leave(due)

    def unlink(self, path: Path) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("unlink")
        super().unlink(path)
        _leave(due)

    def sync_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        due = self._plan.enter("sync_folder")
        self._gate.enter()
        super().sync_folder(path)
        _leave(due)

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        """See `FileSystem`."""
        due = self._plan.enter("read", path.name)
        found = super().read(path)
        _leave(due)
        return found


class FaultyBackend:
    """A backend around another one that fails where a test says.

    Operations are the names of the methods of `Backend`; a fault with `after=True` lets the
    method do its work first, which for `commit` is a crash after the commit and before its
    publication.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self._plan = _Plan()

    def fail(self, fault: Fault) -> None:
        """Plan a failure."""
        self._plan.add(fault)

    def heal(self) -> None:
        """Forget what was planned."""
        self._plan.clear()

    @property
    def calls(self) -> list[str]:
        """The operations so far, in order."""
        return self._plan.calls

    def _do(self, operation: str, *arguments: Any) -> Any:
        due = self._plan.enter(operation)
        result = getattr(self.inner, operation)(*arguments)
        _leave(due)
        return result

    def recover(self) -> RecoveryReport:
        """See `Backend`."""
        report: RecoveryReport = self._do("recover")
        return report

    def commit(self, batch: Sequence[Change]) -> None:
        """See `Backend`."""
        self._do("commit", batch)

    def read(self, session_id: str) -> Document | None:
        """See `Backend`."""
        document: Document | None = self._do("read", session_id)
        return document

    def keys(self) -> Iterator[str]:
        """See `Backend`."""
        keys: Iterator[str] = self._do("keys")
        return keys

    def trashed(self, session_id: str) -> Document | None:
        """See `Backend`."""
        document: Document | None = self._do("trashed", session_id)
        return document

    def removals(self) -> list[Trashed]:
        """See `Backend`."""
        found: list[Trashed] = self._do("removals")
        return found

    def erase(self, session_id: str, lsn: int) -> Erased:
        """See `Backend`."""
        erased: Erased = self._do("erase", session_id, lsn)
        return erased

    def backups(self, session_id: str) -> list[BackupInfo]:
        """See `Backend`."""
        found: list[BackupInfo] = self._do("backups", session_id)
        return found

    def backup(self, session_id: str, generation: int | None) -> Document:
        """See `Backend`."""
        found: Document = self._do("backup", session_id, generation)
        return found

    def undeleted(self, session_id: str) -> None:
        """See `Backend`."""
        self._do("undeleted", session_id)

    def purge(self, before: datetime) -> list[str]:
        """See `Backend`."""
        gone: list[str] = self._do("purge", before)
        return gone

    def suspects(self) -> list[str]:
        """See `Backend`."""
        names: list[str] = self._do("suspects")
        return names

    def changed(self, names: Iterable[str]) -> list[str]:
        """See `Backend`."""
        found: list[str] = self._do("changed", names)
        return found

    def file_name(self, session_id: str) -> str:
        """See `Backend`."""
        return self.inner.file_name(session_id)

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """See `Backend`."""
        found: Reconciled = self._do("reconcile", names, lsn)
        return found

    def close(self) -> None:
        """See `Backend`."""
        self.inner.close()
