"""Reading: every way to look at sessions; nothing of it enters the mailbox."""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import TYPE_CHECKING, Any

from sessionkeeper.engine.parts import check_bounds, messages_in_steps
from sessionkeeper.engine.query import Query, position
from sessionkeeper.engine.textsearch import search_messages, search_text
from sessionkeeper.engine.validation import INTEGRITY, issues_of
from sessionkeeper.errors import SessionNotFound
from sessionkeeper.keys import key_of, named
from sessionkeeper.layout import check_session_id
from sessionkeeper.pages import merge_newest
from sessionkeeper.storage.orders import NEWEST
from sessionkeeper.storage.texts import Words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date, datetime

    from sessionkeeper.answers import Trashed
    from sessionkeeper.engine.textsearch import Order
    from sessionkeeper.engine.validation import Validator
    from sessionkeeper.engine.values import Values
    from sessionkeeper.engine.view import View
    from sessionkeeper.pages import L, Page, SessionOrder
    from sessionkeeper.session import MessageHit, Session, SessionInfo
    from sessionkeeper.storage.documents import Document


class Reading:
    """The sessions of a store, as whoever asks may see them now.

    Subclasses set what it looks at: the namespace, the view, the conversion of values, the
    validators.
    """

    _namespace: str
    _view: View
    _values: Values
    _validators: tuple[Validator, ...]

    def load_session(self, session_id: str, *, last: int | None = None) -> Session:
        """Load one session; it never waits behind writers.

        Args:
            session_id: The session.
            last: Only so many messages, from the end; None for all.

        Returns:
            A session of the caller's own.

        Raises:
            SessionNotFound: There is no such session.
            CorruptDocument: Its file is damaged; it was moved to the quarantine.
            NewerVersion: Its file was written by a newer version.
            PathBlocked: Its file cannot be read.
            StoreClosed: The store is closed.
        """
        if last is not None and (type(last) is not int or last < 0):
            raise ValueError(f"last must be None or 0 or more, not {last!r}")
        return self._document(session_id).session(last, self._values.revive)

    def iter_messages(
        self,
        session_id: str,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[Any]:
        """Some messages of a session, one after the other, oldest first.

        All are of one version of the session, whatever is added to it meanwhile. What is not
        asked for is not decoded, and what is, in steps of about 64 KiB, as the iteration goes on.

        Args:
            session_id: The session.
            start: The first one, counted from 0; below 0, from the end.
            stop: The first one that is not wanted any more, counted so too; None for all.

        Raises:
            SessionNotFound: There is no such session.
            ValueError: `start` or `stop` is no whole number.
            SessionKeeperError: See `load_session`.
        """
        return chain.from_iterable(self._messages_in_steps(session_id, start, stop))

    def _messages_in_steps(
        self,
        session_id: str,
        start: int,
        stop: int | None,
    ) -> Iterator[list[Any]]:
        part = check_bounds(start, stop)
        return messages_in_steps(self._document(session_id), part, self._values.revive)

    def validate_session(self, session_id: str) -> list[str]:
        """Say what is wrong with a session as it is stored.

        Looked at are times, counts and ids, and whatever the validators of this store look at.

        Returns:
            The issues, in words; none if all is well.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: See `load_session`.
        """
        return issues_of(self.load_session(session_id), (*INTEGRITY, *self._validators))

    def __contains__(self, session_id: object) -> bool:
        key = self._key(session_id)
        self._view.wait_readable()
        return self._view.record(key) is not None

    def __len__(self) -> int:
        self._view.wait_readable()
        return self._view.count(self._namespace)

    def list_sessions(
        self,
        *,
        order: SessionOrder = "-changed",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of all sessions, the one changed last first unless another order is given.

        Args:
            order: What they are listed by, the lowest first; with a `-` in front, the highest.
                `changed`: the order of the changes themselves; `created` and `updated`: those
                times; `title`: its first 100 characters, capitals make no difference, and what
                has none comes behind; `cost`; `messages`: how many; `id`. Equals go by their ids.
            limit: The size of a page; None for all.
            cursor: The `cursor` of the page before, in the same order.

        Raises:
            InvalidQuery: An order that there is not, a negative limit, or a cursor that is not of
                this order.
            IndexBehind: What was saved before is not in the index in time.
        """
        return self.search(order=order, limit=limit, cursor=cursor)

    def search(
        self,
        *,
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
        text: str | None = None,
        order: SessionOrder = "-changed",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of the sessions that meet every condition, the one changed last first.

        Args:
            tags: With any of these.
            all_tags: With all of these.
            after: Changed at or after; a date is midnight UTC.
            before: Changed before; a date is midnight UTC.
            min_cost: Costing at least this.
            max_cost: Costing at most this.
            status: With this status.
            text: With a message that holds all of these: words, "quoted phrases", beginnings of
                words with a `*` behind them. Capitals and accents make no difference.
            order: See `list_sessions`.
            limit: The size of a page; None for all.
            cursor: The `cursor` of the page before, in the same order.

        Raises:
            InvalidQuery: A naive datetime, a negative limit, an order that there is not, a cursor
                that is not of this order; a text without a word in it, or one where `full_text`
                is off.
            IndexBehind: What was saved before is not in the index in time.
            TypeError: An unknown condition.
        """
        query = Query.of(
            tags=tags,
            all_tags=all_tags,
            after=after,
            before=before,
            min_cost=min_cost,
            max_cost=max_cost,
            status=status,
            namespace=self._namespace,
            order=order,
        )
        if text is not None:
            return search_text(self._view, query, Words.of(text), limit, cursor)
        return self._view.search(query, limit, cursor)

    def search_messages(
        self,
        text: str,
        *,
        limit: int = 20,
        order: Order = "newest",
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
    ) -> list[MessageHit]:
        """The messages that hold all words of a text, in the sessions that meet every condition.

        Args:
            text: See `search`.
            limit: How many, at most 1,000.
            order: `newest`: of the session changed last the last message first, and so on.
                `rank`: the best match first (BM25), among the 1,000 newest messages that match,
                and 32 Mi characters of them.
            tags: See `search`, as all that follow.
            all_tags: With all of these.
            after: Changed at or after; a date is midnight UTC.
            before: Changed before; a date is midnight UTC.
            min_cost: Costing at least this.
            max_cost: Costing at most this.
            status: With this status.

        Raises:
            InvalidQuery: A condition that cannot be understood, a text without a word in it, or
                `full_text` is off.
            IndexBehind: What was saved before is not in the text index in time.
        """
        query = Query.of(
            tags=tags,
            all_tags=all_tags,
            after=after,
            before=before,
            min_cost=min_cost,
            max_cost=max_cost,
            status=status,
            namespace=self._namespace,
        )
        return search_messages(self._view, query, Words.of(text), limit, order)

    def get_recent(self, limit: int = 5) -> Page[SessionInfo]:
        """The sessions changed last, whatever their status."""
        return self.list_sessions(limit=limit)

    def merge_recent(
        self,
        live: Iterable[L],
        *,
        limit: int | None = 5,
    ) -> list[L | SessionInfo]:
        """The sessions changed last: those the application is at work on and those stored.

        Args:
            live: Any objects with `session_id` and `updated_at`. One that is stored too is
                listed as the live object only.
            limit: How many; None for all.

        Returns:
            The live objects themselves, and `SessionInfo` for the others, the one changed last
            first.

        Raises:
            InvalidQuery: A negative limit, or an `updated_at` without a time zone.
            IndexBehind: What was saved before is not in the index in time.
        """
        working = list(live)
        position(NEWEST, limit, None)  # refuses a wrong limit
        # Each of the live ones hides at most one of the stored.
        stored = self.list_sessions(limit=None if limit is None else limit + len(working))
        return merge_newest(working, stored)[:limit]

    def iter_sessions(self) -> Iterator[SessionInfo]:
        """The metadata of all sessions, one at a time, in the order of their ids.

        Sessions may change meanwhile: each is given as it is when its turn comes, and one that
        is there all the time is given once.
        """
        for record in self._view.iterate(self._namespace):
            yield record.info()

    def list_trash(self) -> list[Trashed]:
        """The sessions that `undelete_session` can bring back, the one removed last first.

        One that is there again is not among them.

        Raises:
            StoreClosed: The store is closed.
        """
        return self._view.removals(self._namespace)

    def load_all(self) -> Iterator[Session]:
        """All sessions, loaded one at a time; one deleted meanwhile is left out."""
        for info in self.iter_sessions():
            with contextlib.suppress(SessionNotFound):
                yield self.load_session(info.session_id)

    def _document(self, session_id: str) -> Document:
        key = self._key(session_id)
        document = self._view.load(key)
        if document is None:
            raise SessionNotFound(f"there is no session {named(key)}", session_id=key)
        return document

    def _key(self, session_id: object) -> str:
        """The key of a session here, once its id is checked."""
        return key_of(self._namespace, check_session_id(session_id))
