"""Writing a staged file into a store: all of it, or nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessionkeeper.engine.commands import ABSENT, Command, PreparedSave
from sessionkeeper.errors import Conflict, ImportRefused, SessionKeeperError, SessionNotFound
from sessionkeeper.session import Saved
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES
from sessionkeeper.transfer.staging import StagedFile, stage_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sessionkeeper.receipts import Receipt
    from sessionkeeper.session import Session
    from sessionkeeper.store import SessionStore
    from sessionkeeper.transfer.mapping import FieldMapping
    from sessionkeeper.transfer.staging import Progress

# So many commands, or bytes, may be on their way: enough to fill the actor's turns, and well
# below the bounds of the mailbox, so that a slow disk slows the import instead of failing it.
WINDOW_COMMANDS: Final = 512
WINDOW_BYTES: Final = 16 * 1024 * 1024

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has stored.

    Attributes:
        path: The file.
        sessions: How many sessions.
        messages: How many messages in them.
        replaced: How many of the sessions existed before.
    """

    path: Path
    sessions: int
    messages: int
    replaced: int


def import_file(
    store: SessionStore,
    path: Path,
    mapping: FieldMapping | None = None,
    *,
    overwrite: bool = False,
    max_bytes: int = MAX_IMPORT_BYTES,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Import one file, whole or not at all.

    Only a process that is killed in the middle leaves part of it: whole sessions, which a second
    import with `overwrite` replaces.

    Args:
        store: Where to.
        path: See `stage_file`.
        mapping: Where its items keep what a session consists of.
        overwrite: Replace sessions that exist; else the file is refused.
        max_bytes: The bound of its content.
        progress: Called with how many sessions are stored, and how many there are.

    Raises:
        ImportRefused: Nothing of it was taken.
    """
    staged = stage_file(path, mapping, max_bytes=max_bytes)
    return write_staged(store, staged, overwrite=overwrite, progress=progress)


def write_staged(
    store: SessionStore,
    staged: StagedFile,
    *,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Store all sessions of a staged file, or none.

    Args:
        store: Where to.
        staged: What to store.
        overwrite: Replace sessions that exist; else the file is refused.
        progress: Called with how many sessions are stored, and how many there are.

    Raises:
        ImportRefused: A session exists, or storing failed half-way and what had been stored was
            taken back; the text says so.
    """
    before = _existing(store, staged, overwrite=overwrite)
    writing = _Writing(store, staged, before, progress)
    try:
        writing.run()
    except Exception as error:
        raise _failed(staged, error, writing.take_back()) from error
    except BaseException:  # Ctrl-C: half a file is not left behind either
        writing.take_back()
        raise
    return Imported(staged.path, len(staged.commands), staged.message_count, len(before))


def _existing(store: SessionStore, staged: StagedFile, *, overwrite: bool) -> dict[str, Session]:
    """The sessions that stand where the file's are to be; to be put back if storing fails."""
    found = [c.session_id for c in staged.commands if c.session_id in store]
    if found and not overwrite:
        named = ", ".join(repr(session_id[:80]) for session_id in found[:_NAMED])
        more = ", …" if len(found) > _NAMED else ""
        raise ImportRefused(
            f"{staged.path}: {len(found)} of its sessions exist already: {named}{more}",
            path=staged.path,
            hint="Nothing was changed. With overwrite (--overwrite) they are replaced.",
        )
    return {session_id: store.load_session(session_id) for session_id in found}


@dataclass(frozen=True)
class _Ready(Command[Saved]):
    """A save that is encoded already; encoding it again would double the time."""

    prepared: PreparedSave

    def prepare(self) -> PreparedSave:
        return self.prepared


class _Writing:
    """The commands of one file on their way, and what has become of them."""

    def __init__(
        self,
        store: SessionStore,
        staged: StagedFile,
        before: Mapping[str, Session],
        progress: Progress,
    ) -> None:
        self._store = store
        self._staged = staged
        self._before = before
        self._progress = progress
        self._saved: list[Saved] = []
        self._on_the_way: deque[tuple[int, Receipt[Saved]]] = deque()
        self._bytes = 0

    def run(self) -> None:
        for command in self._staged.commands:
            size = command.size()
            while self._on_the_way and self._is_full(size):
                self._settle_first()
            before = self._before.get(command.session_id)
            # Whoever comes between the check and this turns it into a Conflict.
            generation = ABSENT if before is None else before.generation
            ready = _Ready(replace(command, expected_generation=generation))
            self._on_the_way.append((size, self._store.tell(ready)))
            self._bytes += size
        while self._on_the_way:
            self._settle_first()

    def _is_full(self, size: int) -> bool:
        return len(self._on_the_way) >= WINDOW_COMMANDS or self._bytes + size > WINDOW_BYTES

    def _settle_first(self) -> None:
        size, receipt = self._on_the_way.popleft()
        self._bytes -= size
        self._saved.append(receipt.result())
        self._progress(len(self._saved), len(self._staged.commands))

    def take_back(self) -> list[str]:
        """Undo what was stored; returns, in words, what could not be undone."""
        for _, receipt in self._on_the_way:
            if receipt.exception() is None:
                self._saved.append(receipt.result())
        self._on_the_way.clear()
        left: list[str] = []
        for saved in self._saved:
            try:
                self._take_back(saved)
            except SessionKeeperError as error:
                left.append(f"{saved.session_id!r} was stored and stays: {error.args[0]}")
        return left

    def _take_back(self, saved: Saved) -> None:
        before = self._before.get(saved.session_id)
        if before is None:
            self._remove(saved)
            return
        self._store.save_session(
            before.session_id,
            before.messages,
            state=before.state,
            metadata=before.metadata,
            tags=before.tags,
            title=before.title,
            summary=before.summary,
            status=before.status,
            expected_generation=saved.generation,
            total_cost=before.total_cost,
        )

    def _remove(self, saved: Saved) -> None:
        try:
            actual = self._store.load_session(saved.session_id, last=0).generation
        except SessionNotFound:
            return
        if actual != saved.generation:
            raise Conflict(
                "somebody has changed it since",
                session_id=saved.session_id,
                expected=saved.generation,
                actual=actual,
            )
        self._store.delete_session(saved.session_id)


def _failed(staged: StagedFile, error: Exception, left: list[str]) -> ImportRefused:
    outcome = "what had been stored of it was taken back"
    if left:
        more = "; …" if len(left) > _NAMED else ""
        outcome = f"not all of it could be taken back: {'; '.join(left[:_NAMED])}{more}"
    reason = error.args[0] if isinstance(error, SessionKeeperError) else repr(error)
    return ImportRefused(
        f"{staged.path}: storing failed: {reason}; {outcome}",
        path=staged.path,
        hint=error.hint if isinstance(error, SessionKeeperError) else None,
    )
