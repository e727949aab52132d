"""Writing sessions from outside into a store: all of a file, or nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from sessionkeeper.engine.commands import ABSENT
from sessionkeeper.errors import Conflict, ImportRefused, SessionKeeperError, SessionNotFound
from sessionkeeper.transfer.conflicts import Before, OnConflict, Plan, check_on_conflict, plan
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES
from sessionkeeper.transfer.staging import StagedFile, stage_file
from sessionkeeper.transfer.whole import PreparedWhole, Ready

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sessionkeeper.answers import Saved
    from sessionkeeper.changing import Changing
    from sessionkeeper.receipts import Receipt
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
        replaced: How many of the sessions existed before and were replaced.
        skipped: How many sessions of the file existed before and were left as they are.
        renamed: The ids under which others were stored, by the id in the file.
    """

    path: Path
    sessions: int
    messages: int
    replaced: int
    skipped: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)


def import_session(
    store: Changing,
    path: Path,
    *,
    on_conflict: OnConflict = "refuse",
    max_bytes: int = MAX_IMPORT_BYTES,
) -> str:
    """Import the one session of a file.

    Args:
        store: Where to.
        path: A session document, as `export_session` writes it, or plain JSON: an object with
            `session_id` (or `id`) and `messages`, or the list of its messages.
        on_conflict: What to do if there is a session of that id.
        max_bytes: The bound of its content.

    Returns:
        The id under which the session is there now.

    Raises:
        ImportRefused: The file is not acceptable, holds more or less than one session, or the
            session exists; nothing was changed.
    """
    check_on_conflict(on_conflict)
    staged = stage_file(path, max_bytes=max_bytes)
    if len(staged.commands) != 1:
        raise ImportRefused(
            f"{path}: it holds {len(staged.commands)} sessions, not one",
            path=path,
            hint="import_file takes files of several sessions.",
        )
    renamed = write_staged(store, staged, on_conflict=on_conflict).renamed
    session_id = staged.commands[0].session_id
    return renamed.get(session_id, session_id)


def import_file(
    store: Changing,
    path: Path,
    mapping: FieldMapping | None = None,
    *,
    on_conflict: OnConflict = "refuse",
    max_bytes: int = MAX_IMPORT_BYTES,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Import one file, whole or not at all.

    Only a process that is killed in the middle leaves part of it: whole sessions, which a second
    import that skips or replaces them completes.

    Args:
        store: Where to.
        path: See `stage_file`.
        mapping: Where its items keep what a session consists of.
        on_conflict: What to do about sessions that exist.
        max_bytes: The bound of its content.
        progress: Called with how many sessions are stored, and how many there are.

    Raises:
        ImportRefused: Nothing of it was taken.
    """
    check_on_conflict(on_conflict)
    staged = stage_file(path, mapping, max_bytes=max_bytes)
    return write_staged(store, staged, on_conflict=on_conflict, progress=progress)


def write_staged(
    store: Changing,
    staged: StagedFile,
    *,
    on_conflict: OnConflict = "refuse",
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Store all sessions of a staged file, or none.

    Args:
        store: Where to.
        staged: What to store.
        on_conflict: What to do about sessions that exist.
        progress: Called with how many sessions are stored, and how many there are.

    Raises:
        ImportRefused: A session exists, or storing failed half-way and what had been stored was
            taken back; the text says so.
    """
    ids = [command.session_id for command in staged.commands]
    with Before() as before:
        made = plan(store, staged.path, ids, check_on_conflict(on_conflict), before)
        return write_all(store, staged.commands, len(ids), made, progress)


def planned(
    store: Changing,
    staged: StagedFile,
    *,
    on_conflict: OnConflict = "refuse",
) -> Imported:
    """What `write_staged` would store; nothing is written. Arguments and errors are the same."""
    ids = [command.session_id for command in staged.commands]
    with Before() as before:
        made = plan(store, staged.path, ids, check_on_conflict(on_conflict), before)
        messages = sum(
            command.fields.message_count
            for command in staged.commands
            if command.session_id not in made.skipped
        )
        return imported(len(ids) - len(made.skipped), messages, made)


def write_all(
    store: Changing,
    commands: Iterable[PreparedWhole],
    total: int,
    made: Plan,
    progress: Progress,
) -> Imported:
    """Store sessions, all or none.

    Args:
        store: Where to.
        commands: One for each session of the file; what this raises ends the import.
        total: How many there are.
        made: What is to be done about those that exist.
        progress: Called with how many sessions are stored, and how many will be.

    Raises:
        ImportRefused: Storing failed half-way and what had been stored was taken back; the text
            says so.
    """
    writing = _Writing(store, made, total - len(made.skipped), progress)
    try:
        writing.run(commands)
    except Exception as error:
        raise _failed(made.path, error, writing.take_back()) from error
    except BaseException:  # Ctrl-C: half a file is not left behind either
        writing.take_back()
        raise
    return imported(len(writing.saved), sum(s.message_count for s in writing.saved), made)


def imported(sessions: int, messages: int, made: Plan) -> Imported:
    """The outcome of a plan, with how many sessions were stored and the messages in them."""
    skipped = len(made.skipped)
    return Imported(
        made.path,
        sessions,
        messages,
        len(made.before),
        skipped,
        dict(made.renamed),
    )


class _Writing:
    """The commands of one file on their way, and what has become of them."""

    def __init__(self, store: Changing, made: Plan, total: int, progress: Progress) -> None:
        self.saved: list[Saved] = []
        self._store = store
        self._plan = made
        self._total = total
        self._progress = progress
        self._on_the_way: deque[tuple[int, Receipt[Saved]]] = deque()
        self._bytes = 0

    def run(self, commands: Iterable[PreparedWhole]) -> None:
        for command in commands:
            if command.session_id not in self._plan.skipped:
                self._send(command)
        while self._on_the_way:
            self._settle_first()

    def _send(self, command: PreparedWhole) -> None:
        size = command.size()
        while self._on_the_way and self._is_full(size):
            self._settle_first()
        session_id = self._plan.renamed.get(command.session_id, command.session_id)
        before = self._plan.before.generation(session_id)
        # Whoever comes between the check and this turns it into a Conflict.
        generation = ABSENT if before is None else before
        ready = replace(command, session_id=session_id, expected_generation=generation)
        self._on_the_way.append((size, self._store.tell(Ready(ready))))
        self._bytes += size

    def _is_full(self, size: int) -> bool:
        return len(self._on_the_way) >= WINDOW_COMMANDS or self._bytes + size > WINDOW_BYTES

    def _settle_first(self) -> None:
        size, receipt = self._on_the_way.popleft()
        self._bytes -= size
        self.saved.append(receipt.result())
        self._progress(len(self.saved), self._total)

    def take_back(self) -> list[str]:
        """Undo what was stored; returns, in words, what could not be undone."""
        for _, receipt in self._on_the_way:
            if receipt.exception() is None:
                self.saved.append(receipt.result())
        self._on_the_way.clear()
        left: list[str] = []
        for saved in self.saved:
            try:
                self._take_back(saved)
            except SessionKeeperError as error:
                left.append(f"{saved.session_id!r} was stored and stays: {error.args[0]}")
        return left

    def _take_back(self, saved: Saved) -> None:
        before = self._plan.before.document(saved.session_id)
        if before is None:
            self._remove(saved)
        else:
            self._store.ask(Ready(PreparedWhole.of_document(before, saved.generation)))

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


def _failed(path: Path, error: Exception, left: list[str]) -> ImportRefused:
    outcome = "what had been stored of it was taken back"
    if left:
        more = "; …" if len(left) > _NAMED else ""
        outcome = f"not all of it could be taken back: {'; '.join(left[:_NAMED])}{more}"
    reason = error.args[0] if isinstance(error, SessionKeeperError) else repr(error)
    return ImportRefused(
        f"{path}: storing failed: {reason}; {outcome}",
        path=path,
        hint=error.hint if isinstance(error, SessionKeeperError) else None,
    )
