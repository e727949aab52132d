"""Giving a session another name, copying it, and going back in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.engine.commands.checks import check_count, check_metadata
from sessionkeeper.engine.commands.restoring import RestoreBackup
from sessionkeeper.errors import InvalidValue
from sessionkeeper.keys import id_of, named
from sessionkeeper.layout import check_session_id
from sessionkeeper.messages import calculate_cost
from sessionkeeper.session import decode_messages
from sessionkeeper.storage.backend import fulfilled
from sessionkeeper.storage.codec import decode
from sessionkeeper.storage.lines import JOINT, Lines, last_lines

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.documents import Document

FORKED_FROM: Final = "forked_from"
"""The metadata of a fork says here which session it was made from …"""

FORKED_AT: Final = "forked_at"
"""… and here with how many messages."""


@dataclass(frozen=True)
class RenameSession(Command[Saved], Prepared[Saved]):
    """Give a session another id; what had the old one goes to the trash.

    Attributes:
        session_id: The session.
        new_id: Its id from now on; there must be no session of that id.
    """

    session_id: str
    new_id: str

    def prepare(self) -> RenameSession:
        """See `Command.prepare`."""
        return RenameSession(check_session_id(self.session_id), check_session_id(self.new_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        # Of the new session nobody would see after a crash that the old one is still there.
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        made = transaction.record(self.new_id)
        answer = None if made is None else fulfilled(made, request_id)
        if made is None or answer is None:
            return self._renamed(transaction, request_id)
        # A crash came before the answer, and perhaps before the removal.
        left = transaction.record(self.session_id)
        if left is not None and fulfilled(made, _mark(request_id, left.lsn)) is not None:
            self._remove(transaction, request_id)
        return answer

    def _renamed(self, transaction: Transaction, request_id: str) -> Saved:
        document = transaction.existing(self.session_id)
        transaction.require_absent(self.new_id)
        record = document.record
        renamed = replace(document, record=replace(record, session_id=self.new_id))
        answer = transaction.put(renamed, request_id, _mark(request_id, record.lsn))
        self._remove(transaction, request_id)
        return answer

    def _remove(self, transaction: Transaction, request_id: str) -> None:
        transaction.trash(self.session_id, f"renamed to {id_of(self.new_id)}", f"{request_id}.old")


def _mark(request_id: str, lsn: int) -> str:
    """By which the new session tells the version it was made of from a later one of that id."""
    return f"{request_id}.of-{lsn}"


@dataclass(frozen=True)
class ForkSession(Command[Saved], Prepared[Saved]):
    """Make a new session of what another one holds; that one stays as it is.

    Attributes:
        session_id: The session to copy.
        new_id: The id of the copy; there must be no session of that id.
        at: How many messages are copied, from the first one; None for all.
    """

    session_id: str
    new_id: str
    at: int | None = None

    def prepare(self) -> ForkSession:
        """See `Command.prepare`."""
        at = None if self.at is None else check_count("at", self.at)
        return ForkSession(check_session_id(self.session_id), check_session_id(self.new_id), at)

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.new_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        source = transaction.existing(self.session_id)
        transaction.require_absent(self.new_id)
        count = source.record.message_count if self.at is None else self.at
        copied = _cut(source, count)
        made = transaction.new(self.new_id)
        origin = {FORKED_FROM: id_of(self.session_id), FORKED_AT: count}
        record = replace(
            made.record,
            title=source.record.title,
            summary=source.record.summary,
            tags=source.record.tags,
            metadata=check_metadata({**decode(source.record.metadata), **origin}),
            message_count=count,
            total_cost=copied.record.total_cost,
        )
        fork = replace(made, record=record, chunks=copied.chunks, state=source.state)
        return transaction.put(fork, request_id)


@dataclass(frozen=True)
class RewindSession(Command[Saved], Prepared[Saved]):
    """Take a session back to its first messages; what is behind them goes.

    Attributes:
        session_id: The session.
        message: How many messages stay.
    """

    session_id: str
    message: int

    def prepare(self) -> RewindSession:
        """See `Command.prepare`."""
        return RewindSession(
            check_session_id(self.session_id),
            check_count("message", self.message),
        )

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(
            self.session_id,
            request_id,
            lambda document: _cut(document, self.message),
        )


def rewinding(session_id: str, generation: int | None, message: int | None) -> Command[Saved]:
    """The command that takes a session back, to one or the other.

    Raises:
        TypeError: None or both are given.
    """
    if generation is not None and message is None:
        return RestoreBackup(session_id, generation)
    if message is not None and generation is None:
        return RewindSession(session_id, message)
    raise TypeError("rewind takes either generation or message")


def _cut(document: Document, count: int) -> Document:
    """The session with its first messages only, and with what these cost."""
    record = document.record
    if count > record.message_count:
        raise InvalidValue(
            f"session {named(record.session_id)} has {record.message_count} messages, not {count}",
            session_id=record.session_id,
            hint="Name a number of messages that it has.",
        )
    if count == record.message_count:
        return document
    # A cost that the application gave cannot be divided up, so only what is known is taken off.
    cut_off = calculate_cost(
        decode_messages(last_lines(document.chunks, record.message_count - count))
    )
    cost = max(record.total_cost - cut_off, min(record.total_cost, 0.0))
    return replace(
        document,
        record=replace(record, message_count=count, total_cost=cost),
        chunks=Lines(_first_lines(document.chunks, count)),
    )


def _first_lines(chunks: Lines, count: int) -> list[Chunk]:
    found: list[Chunk] = []
    for chunk in chunks:
        if count <= 0:
            break
        lines = bytes(chunk).split(JOINT, count)
        if len(lines) <= count:
            found.append(chunk)
            count -= len(lines)
        else:
            found.append(JOINT.join(lines[:count]))
            count = 0
    return found
