"""Changing the marks of a session: its tags, its pin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import check_tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.storage.documents import Document


@dataclass(frozen=True)
class AddTags(Command[Saved], Prepared[Saved]):
    """Add tags to a session, behind those it has; one it has already stays where it is."""

    session_id: str
    tags: Iterable[str]

    def prepare(self) -> AddTags:
        """See `Command.prepare`."""
        return AddTags(check_session_id(self.session_id), check_tags(self.tags))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, self._added)

    def _added(self, document: Document) -> Document:
        return _tagged(document, check_tags([*document.record.tags, *self.tags]))


@dataclass(frozen=True)
class RemoveTags(Command[Saved], Prepared[Saved]):
    """Take tags from a session; one it does not have is no error."""

    session_id: str
    tags: Iterable[str]

    def prepare(self) -> RemoveTags:
        """See `Command.prepare`."""
        return RemoveTags(check_session_id(self.session_id), check_tags(self.tags))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, self._removed)

    def _removed(self, document: Document) -> Document:
        gone = frozenset(self.tags)
        return _tagged(document, tuple(tag for tag in document.record.tags if tag not in gone))


@dataclass(frozen=True)
class PinSession(Command[Saved], Prepared[Saved]):
    """Keep a session whatever the retention settings say."""

    session_id: str

    def prepare(self) -> PinSession:
        """See `Command.prepare`."""
        return PinSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, _pinned)


@dataclass(frozen=True)
class UnpinSession(Command[Saved], Prepared[Saved]):
    """Let the retention settings decide about a session again."""

    session_id: str

    def prepare(self) -> UnpinSession:
        """See `Command.prepare`."""
        return UnpinSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, _unpinned)


def _tagged(document: Document, tags: tuple[str, ...]) -> Document:
    if tags == document.record.tags:
        return document
    return replace(document, record=replace(document.record, tags=tags))


def _pinned(document: Document) -> Document:
    if document.record.pinned:
        return document
    return replace(document, record=replace(document.record, pinned=True))


def _unpinned(document: Document) -> Document:
    if not document.record.pinned:
        return document
    return replace(document, record=replace(document.record, pinned=False))
