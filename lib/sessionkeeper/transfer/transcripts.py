"""Transcripts of Claude Code: a folder of `.jsonl` files, each the records of one session.

A session that came from a transcript says so in its metadata, under `transcript`: the file, how
far it was read, the digest of what was read, and how many messages that made. By that, a later
import goes on where the one before ended, also after a crash in between.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sessionkeeper.errors import (
    Conflict,
    ImportRefused,
    SessionKeeperError,
    SessionNotFound,
    StoreError,
)
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import check_tags
from sessionkeeper.storage.codec import encode
from sessionkeeper.transfer.reading import open_regular, refusing_failures
from sessionkeeper.transfer.records import Damage, Object, Records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader

    from sessionkeeper.session import Changes, Session, SessionInfo
    from sessionkeeper.store import SessionStore
    from sessionkeeper.transfer.staging import Progress

SUFFIX: Final = ".jsonl"
TAG: Final = "claude-code"
MARK: Final = "transcript"
"""The key of the metadata that tells where a session came from, and how far."""

MAX_PROBLEMS: Final = 1000
"""So many are told one by one; the others are only counted."""

# What is stored at once.
_BATCH_BYTES: Final = 4 * 1024 * 1024
# In the first so many records an id is looked for.
_HEAD_RECORDS: Final = 100
_MAX_TITLE: Final = 200
_MAX_TEXT: Final = 4096
_FACTS: Final = ("cwd", "gitBranch", "version")


@dataclass(frozen=True, slots=True)
class TranscriptProblem:
    """Something that was left out.

    Attributes:
        path: The file.
        line: The number of the line, or None for the whole file.
        kind: `torn`: a last line whose end is missing; it is taken when the rest has come.
            `damaged`: a line that is no record. `refused`: the whole file, or what is left of it.
        detail: What is wrong, in words.
    """

    path: Path
    line: int | None
    kind: Literal["torn", "damaged", "refused"]
    detail: str


@dataclass(frozen=True, slots=True)
class TranscriptsImported:
    """What an import of transcripts has stored.

    Attributes:
        path: The folder, or the file.
        files: How many transcripts there are.
        created: Sessions that are new.
        extended: Sessions that were imported before and have more messages now.
        unchanged: Sessions that were imported before, with nothing new.
        empty: Transcripts without a message, of which no session was made.
        messages: Messages stored.
        problems: What was left out, at most `MAX_PROBLEMS`.
        left_out: How many problems there are in all.
    """

    path: Path
    files: int
    created: int
    extended: int
    unchanged: int
    empty: int
    messages: int
    problems: tuple[TranscriptProblem, ...]
    left_out: int


def import_transcripts(
    store: SessionStore,
    folder: Path,
    *,
    tags: Iterable[str] = (),
    dry_run: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> TranscriptsImported:
    """Import the transcripts in a folder, or what was added to them since the last time.

    Each file becomes one session; its id is the `sessionId` of the records, or the file's name
    if there is none or another session has it. Every record is a message, in order and whole;
    only summaries become title and summary instead. A file that is refused does not keep the
    others from being taken.

    Args:
        store: Where to.
        folder: Where the transcripts lie, in it and in the folders below; or one transcript.
        tags: Tags of new sessions, behind `claude-code`.
        dry_run: Only say what would be stored.
        progress: Called with how many bytes were looked at, and how many there are.

    Raises:
        ImportRefused: There is no such folder or file.
        StoreError: The store failed; what was stored before stays, and a second import goes on
            from there.
    """
    run = _Run(store, folder, check_tags((TAG, *tags)), dry_run)
    paths = list(run.transcripts())
    sizes = [_size(path) for path in paths]
    names = {path.stem for path in paths}
    done, total = 0, sum(sizes)
    for path, size in zip(paths, sizes, strict=True):
        run.take(path, names)
        done += size
        progress(done, total)
    return run.outcome(len(paths))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0  # said when it is opened


@dataclass(slots=True)
class _Run:
    """One import, and what it has done so far."""

    store: SessionStore
    folder: Path
    tags: tuple[str, ...]
    dry_run: bool
    claimed: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[TranscriptProblem] = field(default_factory=list)

    def transcripts(self) -> Iterator[Path]:
        """The files, in the order of their paths."""
        if self.folder.is_file():
            yield self.folder
            return
        if not self.folder.is_dir():
            raise ImportRefused(f"{self.folder}: there is no such folder", path=self.folder)

        def refused(error: OSError) -> None:
            self.problem(Path(error.filename), None, "refused", error.strerror or str(error))

        found: list[Path] = []
        for parent, _, files in os.walk(self.folder, onerror=refused):
            found += [Path(parent, name) for name in files if name.endswith(SUFFIX)]
        yield from sorted(found)

    def take(self, path: Path, names: set[str]) -> None:
        """Import one file, or say why not."""
        try:
            if path != self.folder and path.is_symlink():
                raise ImportRefused(f"{path}: a link, which is not followed", path=path)
            with refusing_failures(path):
                file = open_regular(path, sys.maxsize)
            with file:
                done = self._import(path, file, names)
        except StoreError:
            raise
        except (SessionKeeperError, _Refused) as error:
            reason = str(error.args[0]).removeprefix(f"{path}: ")
            self.problem(path, None, "refused", reason)
        else:
            self.count(done)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count of the outcome."""
        self.counts[what] = self.counts.get(what, 0) + number

    def problem(
        self,
        path: Path,
        line: int | None,
        kind: Literal["torn", "damaged", "refused"],
        detail: str,
    ) -> None:
        """Report something that is left out."""
        self.count("left_out")
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(TranscriptProblem(path, line, kind, detail))

    def outcome(self, files: int) -> TranscriptsImported:
        """All of it."""
        names = ("created", "extended", "unchanged", "empty", "messages", "left_out")
        counted = {name: self.counts.get(name, 0) for name in names}
        return TranscriptsImported(self.folder, files, problems=tuple(self.problems), **counted)

    def _import(self, path: Path, file: BufferedReader, names: set[str]) -> str:
        session_id, info, mark = self._place(path, _candidates(path, file, names))
        self.claimed.add(session_id)
        file.seek(0)
        transcript = _Transcript(self, path, Records(file, path), session_id)
        if info is None or mark is None:
            return transcript.create()
        return transcript.extend(info, mark)

    def _place(
        self,
        path: Path,
        candidates: list[str],
    ) -> tuple[str, SessionInfo | None, _Mark | None]:
        """The session that came from this file before, or an id for a new one."""
        free: str | None = None
        for session_id in candidates:
            try:
                info = self.store.load_session(session_id, last=0).info
            except SessionNotFound:
                if free is None and session_id not in self.claimed:
                    free = session_id
                continue
            mark = _Mark.of(info)
            if mark is not None and Path(mark.file).name == path.name:
                return session_id, info, mark
        if free is None:
            taken = ", ".join(repr(session_id[:80]) for session_id in candidates)
            raise _Refused(f"there is another session of the id {taken}")
        return free, None, None


class _Refused(Exception):
    """A file of which nothing can be taken."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a transcript was read, as it stands in the metadata of its session."""

    file: str
    offset: int
    digest: str
    messages: int
    title: str | None

    @classmethod
    def of(cls, info: SessionInfo) -> _Mark | None:
        """The mark of a session that came from a transcript, else None."""
        match info.metadata.get(MARK):
            case {
                "file": str() as file,
                "offset": int() as offset,
                "digest": str() as digest,
                "messages": int() as messages,
                "title": (str() | None) as title,
            } if offset >= 0 and messages >= 0:
                return cls(file, offset, digest, messages, title)
        return None


def _candidates(path: Path, file: BufferedReader, names: set[str]) -> list[str]:
    """The ids that a transcript may have, the best first."""
    stem = check_session_id(path.stem)
    for number, record in enumerate(Records(file, path)):
        inner = record.value.get("sessionId") if isinstance(record, Object) else None
        if inner is not None:
            if not isinstance(inner, str):
                raise _Refused(f"its sessionId is {type(inner).__name__}, not a text")
            inner = check_session_id(inner)
            # Transcripts of agents carry the id of the session that started them.
            return [stem] if inner == stem or inner in names else [inner, stem]
        if number >= _HEAD_RECORDS:
            break
    return [stem]


class _Transcript:
    """One file on its way into one session."""

    def __init__(self, run: _Run, path: Path, records: Records, session_id: str) -> None:
        self._run = run
        self._path = path
        self._records = records
        self._session_id = session_id
        self._facts: dict[str, str] = {}
        self._summaries: list[str] = []
        self._stored = 0  # messages in the session that came from this file
        self._marked = 0  # the offset in the session's mark

    def create(self) -> str:
        """Make a new session of it; what became of it, in a word."""
        records = self._records
        for messages in self._batches():
            if self._stored and messages:
                self._append(messages)
            elif messages:
                self._create(messages)
        if not self._stored:
            return "empty"
        if records.offset != self._marked:
            self._annotate()
        return "created"

    def extend(self, info: SessionInfo, mark: _Mark) -> str:
        """Add to the session what was added to the file; what became of it, in a word."""
        records = self._records
        if not records.skip(mark.offset) or records.digest() != mark.digest:
            raise _Refused("it is not the file that was imported before: its beginning differs")
        self._stored = mark.messages
        there = self._there(info, mark)
        added = False
        for messages in self._batches():
            known, new = messages[: len(there)], messages[len(there) :]
            if [encode(m) for m in known] != [encode(m) for m in there[: len(known)]]:
                raise self._changed()
            del there[: len(known)]
            self._stored += len(known)
            if new:
                self._append(new)
                added = True
        if there:
            raise self._changed()
        if records.offset == mark.offset:
            return "unchanged"
        self._annotate()
        return "extended" if added else "unchanged"

    def _there(self, info: SessionInfo, mark: _Mark) -> list[Any]:
        """The messages that an import has stored without coming to its end."""
        ahead = info.message_count - mark.messages
        if ahead < 0:
            raise self._changed()
        if not ahead:
            return []
        return self._run.store.load_session(self._session_id, last=ahead).messages

    def _changed(self) -> _Refused:
        return _Refused(
            f"session {self._session_id!r} was changed by somebody else since it was imported",
        )

    def _batches(self) -> Iterator[list[Any]]:
        """The messages that are still to come, some at a time; the last batch may be empty."""
        batch: list[Any] = []
        size = 0
        for record in self._records:
            if isinstance(record, Damage):
                kind: Literal["torn", "damaged"] = "torn" if record.torn else "damaged"
                self._run.problem(self._path, record.line, kind, record.detail)
                continue
            self._note(record.value)
            if record.value.get("type") == "summary":
                continue
            batch.append(record.value)
            size += record.size
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        yield batch

    def _note(self, value: dict[str, Any]) -> None:
        for name in _FACTS:
            fact = value.get(name)
            if isinstance(fact, str) and fact and len(fact) <= _MAX_TEXT:
                self._facts[name] = fact
        summary = value.get("summary")
        if value.get("type") == "summary" and isinstance(summary, str) and summary.strip():
            self._summaries.append(summary)

    # --- storing ----------------------------------------------------------------------------

    def _create(self, messages: list[Any]) -> None:
        if not self._run.dry_run:
            self._run.store.create_session(
                self._session_id,
                messages,
                metadata=self._metadata({}, len(messages), self._title()),
                tags=self._run.tags,
                title=self._title(),
                summary=self._summary(None),
            )
        self._count(messages)
        self._marked = self._records.offset
        self._summaries.clear()

    def _append(self, messages: list[Any]) -> None:
        if not self._run.dry_run:
            saved = self._run.store.append(self._session_id, messages)
            if saved.message_count != self._stored + len(messages):
                raise self._changed()
        self._count(messages)

    def _count(self, messages: list[Any]) -> None:
        self._stored += len(messages)
        self._run.count("messages", len(messages))

    def _annotate(self) -> None:
        """Write down how far it was read, and what the records say."""
        if self._run.dry_run:
            return
        try:
            self._run.store.update(self._session_id, self._annotated)
        except Conflict as error:
            raise self._changed() from error

    def _annotated(self, session: Session) -> Changes:
        if session.info.message_count != self._stored:
            raise self._changed()
        mark = _Mark.of(session.info)
        title = session.title
        if self._summaries and title in (None, mark.title if mark else None):
            title = self._title()
        metadata = self._metadata(session.metadata, self._stored, title)
        return session.replace(
            metadata=metadata,
            title=title,
            summary=self._summary(session.summary),
        )

    def _metadata(self, before: dict[str, Any], messages: int, title: str | None) -> dict[str, Any]:
        records = self._records
        folder = self._run.folder
        inside = self._path.relative_to(folder) if self._path != folder else self._path.name
        mark = {
            "file": Path(inside).as_posix(),
            "offset": records.offset,
            "digest": records.digest(),
            "messages": messages,
            "title": title,
        }
        return {**before, **self._facts, MARK: mark}

    def _title(self) -> str | None:
        if not self._summaries:
            return None
        return " ".join(self._summaries[-1].split())[:_MAX_TITLE]

    def _summary(self, before: str | None) -> str | None:
        texts = [*([before] if before else []), *self._summaries]
        return "\n".join(texts)[-_MAX_TEXT:] or None
