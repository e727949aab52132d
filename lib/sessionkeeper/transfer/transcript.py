"""One transcript on its way into one session.

A session that came from a transcript says so in its metadata, under `transcript`: the file, how
far it was read, the digest of what was read, and how many messages that made. By that, a later
import goes on where the one before ended, also after a crash in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.errors import Conflict
from sessionkeeper.storage.codec import encode
from sessionkeeper.transfer.records import Damage, Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sessionkeeper.changing import Changing
    from sessionkeeper.session import Changes, Session, SessionInfo
    from sessionkeeper.transfer.report import ProblemKind, Report

MARK: Final = "transcript"
"""The key of the metadata that tells where a session came from, and how far."""

# What is stored at once.
_BATCH_BYTES: Final = 4 * 1024 * 1024
_MAX_TITLE: Final = 200
_MAX_TEXT: Final = 4096
_FACTS: Final = ("cwd", "gitBranch", "version")


class Refused(Exception):
    """A file of which nothing can be taken."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a transcript was read, as it stands in the metadata of its session."""

    file: str
    offset: int
    digest: str
    messages: int
    title: str | None

    @classmethod
    def of(cls, info: SessionInfo) -> Mark | None:
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


@dataclass(frozen=True, slots=True)
class Target:
    """Where transcripts go to.

    Attributes:
        store: The store.
        tags: Tags of new sessions.
        dry_run: Whether nothing is stored.
        report: Is told what becomes of them.
    """

    store: Changing
    tags: tuple[str, ...]
    dry_run: bool
    report: Report


class Transcript:
    """One file, one session.

    Args:
        target: Where it goes to.
        path: The file, for what is told of it.
        name: What the session calls it.
        records: What is in it.
        session_id: The session.
    """

    def __init__(
        self,
        target: Target,
        path: Path,
        name: str,
        records: Records,
        session_id: str,
    ) -> None:
        self._to = target
        self._path = path
        self._name = name
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

    def extend(self, info: SessionInfo, mark: Mark) -> str:
        """Add to the session what was added to the file; what became of it, in a word."""
        records = self._records
        if not records.skip(mark.offset) or records.digest() != mark.digest:
            raise Refused("it is not the file that was imported before: its beginning differs")
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

    def _there(self, info: SessionInfo, mark: Mark) -> list[Any]:
        """The messages that an import has stored without coming to its end."""
        ahead = info.message_count - mark.messages
        if ahead < 0:
            raise self._changed()
        if not ahead:
            return []
        return self._to.store.load_session(self._session_id, last=ahead).messages

    def _changed(self) -> Refused:
        return Refused(
            f"session {self._session_id!r} was changed by somebody else since it was imported",
        )

    def _batches(self) -> Iterator[list[Any]]:
        """The messages that are still to come, some at a time; the last batch may be empty."""
        batch: list[Any] = []
        size = 0
        for record in self._records:
            if isinstance(record, Damage):
                kind: ProblemKind = "torn" if record.torn else "damaged"
                self._to.report.problem(self._path, record.line, kind, record.detail)
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
        if not self._to.dry_run:
            self._to.store.create_session(
                self._session_id,
                messages,
                metadata=self._metadata({}, len(messages), self._title()),
                tags=self._to.tags,
                title=self._title(),
                summary=self._summary(None),
            )
        self._count(messages)
        self._marked = self._records.offset
        self._summaries.clear()

    def _append(self, messages: list[Any]) -> None:
        if not self._to.dry_run:
            saved = self._to.store.append(self._session_id, messages)
            if saved.message_count != self._stored + len(messages):
                raise self._changed()
        self._count(messages)

    def _count(self, messages: list[Any]) -> None:
        self._stored += len(messages)
        self._to.report.count("messages", len(messages))

    def _annotate(self) -> None:
        """Write down how far it was read, and what the records say."""
        if self._to.dry_run:
            return
        try:
            self._to.store.update(self._session_id, self._annotated)
        except Conflict as error:
            raise self._changed() from error

    def _annotated(self, session: Session) -> Changes:
        if session.info.message_count != self._stored:
            raise self._changed()
        mark = Mark.of(session.info)
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
        mark = {
            "file": self._name,
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
