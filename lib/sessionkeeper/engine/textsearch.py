"""Searching in the text of messages: the text index says where, the records say what is shown.

Each look into the text index is a short transaction of its own, and each tells which version of a
session it saw. Where that is not the version that the records show, because the session is just
being changed, the session itself is looked through; so is every session where there is no text
index: in memory, and in a store that is open for reading only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar, get_args

from sessionkeeper.engine.query import matching, page_of, position
from sessionkeeper.errors import InvalidQuery, NotExecuted, SessionKeeperError, StoreClosed
from sessionkeeper.pages import Page
from sessionkeeper.session import MessageHit
from sessionkeeper.storage.fulltext import version_of
from sessionkeeper.storage.orders import NEWEST
from sessionkeeper.storage.texts import Matcher, lines_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sessionkeeper.engine.query import Query
    from sessionkeeper.engine.view import View
    from sessionkeeper.session import SessionInfo
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.fulltext import FullText, Version
    from sessionkeeper.storage.orders import Position
    from sessionkeeper.storage.texts import Words

Order = Literal["newest", "rank"]
T = TypeVar("T")

# Words that are in no more messages than this are rare: all sessions with them are looked up at
# once. Else the sessions are gone through, the newest first, so many at a time.
RARE: Final = 10_000
PAGE: Final = 200

CANDIDATES: Final = 1000
"""So many messages are shown, or ranked, at most: the newest ones."""

# Characters of text that are ranked at most.
_RANKED: Final = 32 * 1024 * 1024


def search_text(
    view: View,
    query: Query,
    words: Words,
    limit: int | None,
    cursor: str | None,
) -> Page[SessionInfo]:
    """One page of the sessions that match and have a message with all the words.

    Raises:
        InvalidQuery: A negative limit, a cursor that is not of this order, or there is no text
            index.
        IndexBehind: The text index was not ready in time.
    """
    view.wait_readable()
    behind = position(query.order, limit, cursor)
    with _Search(view, query, words) as found:
        if limit == 0:
            return Page([], cursor)
        more = None if limit is None else limit + 1
        records = list(islice(found.sessions(behind), more))
    # One that was changed while we looked may come before those found before it.
    return page_of(query.order, query.order.first(records, None), limit)


def search_messages(
    view: View,
    query: Query,
    words: Words,
    limit: int,
    order: Order,
) -> list[MessageHit]:
    """The messages with all the words, in sessions that match.

    Raises:
        InvalidQuery: A limit or an order that there is not, or there is no text index.
        IndexBehind: The text index was not ready in time.
    """
    if type(limit) is not int or not 0 <= limit <= CANDIDATES:
        raise InvalidQuery(
            f"limit must be a number from 0 to {CANDIDATES}, not {limit!r}",
            hint=f"The {CANDIDATES} newest messages are all that is shown; narrow the search down.",
        )
    if order not in get_args(Order):
        raise InvalidQuery(
            f"order must be one of {', '.join(get_args(Order))}, not {order!r}",
            hint="'newest' shows the session changed last first, 'rank' the best match.",
        )
    view.wait_readable()
    with _Search(view, query, words) as found:
        return found.newest(limit) if order == "newest" else found.best(limit)


@dataclass(frozen=True, slots=True)
class _Found:
    """Messages of one session with all the words, the last one first."""

    record: Record
    texts: Sequence[tuple[int, str]]


class _Search:
    """One search, from beginning to end, in one thread.

    Args:
        view: What is visible.
        query: What holds for the sessions.
        words: What a message holds.
    """

    def __init__(self, view: View, query: Query, words: Words) -> None:
        texts = view.texts
        if not (view.reads_texts or (texts is not None and texts.is_on)):
            raise InvalidQuery(
                "the text of messages is not indexed in this store",
                hint="Open the store with full_text=True, or call configure(full_text=True).",
            )
        self._view = view
        self._query = query
        self._words = words
        self._matcher = Matcher(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._matcher.__exit__()

    # --- sessions ---------------------------------------------------------------------------

    def sessions(self, behind: Position | None) -> Iterator[Record]:
        """Those with such a message, about in the order of the query.

        One that moved back while we looked comes where it stands now, lest the next page begin
        behind all that are in between.
        """
        order = self._query.order
        late: list[Record] = []
        for before, now in self._having(behind):
            place = order.position(before)
            while late and order.in_order(order.position(late[0]), place):
                yield late.pop(0)
            if order.in_order(place, order.position(now)):
                late = order.first([*late, now], None)
            else:
                yield now
        yield from late

    def _having(self, behind: Position | None) -> Iterator[tuple[Record, Record]]:
        """Those with such a message: as they were looked for, and as they are."""
        rare = self._rare()
        if rare is None:
            yield from self._gone_through(behind)
            return
        order = self._query.order
        for record in self._records_of(rare):
            if rare[record.session_id] == version_of(record):
                if order.is_behind(record, behind) and self._query.matches(record):
                    yield record, record
            elif (now := self._looked_through(record, behind)) is not None:
                yield record, now

    def _rare(self) -> dict[str, Version] | None:
        """The versions of the sessions with such a message; None if there are too many to say."""
        answer = self._ask(lambda index: index.find(self._words, RARE))
        return answer[0] if answer is not None and answer[1] else None

    def _records_of(self, keys: Iterable[str]) -> list[Record]:
        found = [record for record in map(self._view.record, keys) if record is not None]
        self._view.wait_readable()  # see `_all`
        return self._query.order.first(found, None)

    def _gone_through(self, behind: Position | None) -> Iterator[tuple[Record, Record]]:
        records = matching(self._all(), self._query, behind)
        while page := list(islice(records, PAGE)):
            seen = self._seen([record.session_id for record in page])
            for record in page:
                version, has = seen.get(record.session_id, (None, False))
                if version == version_of(record):
                    if has:
                        yield record, record
                elif (now := self._looked_through(record, behind)) is not None:
                    yield record, now

    def _seen(self, keys: Sequence[str]) -> dict[str, tuple[Version, bool]]:
        return self._ask(lambda index: index.among(self._words, keys)) or {}

    def _looked_through(self, record: Record, behind: Position | None) -> Record | None:
        """The session as it is now, if it has such a message."""
        document = self._document(record, behind)
        if document is None or next(self._matcher.find_in(document.chunks), None) is None:
            return None
        return document.record

    # --- messages ---------------------------------------------------------------------------

    def newest(self, limit: int) -> list[MessageHit]:
        """So many messages: of the session changed last the last one first, and so on."""
        hits: list[MessageHit] = []
        for found in self._messages(limit):
            matches = {match.number: match for match in self._matcher.find(found.texts)}
            hits += [
                MessageHit(found.record.info(), number, matches[number].snippet)
                for number, _ in found.texts
                if number in matches
            ]
        return hits[:limit]

    def best(self, limit: int) -> list[MessageHit]:
        """The best among the newest messages."""
        messages = [
            (found.record, number, text)
            for found in self._messages(CANDIDATES)
            for number, text in found.texts
        ]
        matches = self._matcher.find(enumerate(text for _, _, text in messages))
        matches.sort(key=lambda match: match.rank)  # stable: among equals the newest first
        hits = []
        for match in matches[:limit]:
            record, number, _ = messages[match.number]
            hits.append(MessageHit(record.info(), number, match.snippet))
        return hits

    def _messages(self, most: int) -> Iterator[_Found]:
        """The newest messages, session by session, until there are enough."""
        rare = self._rare()
        records: Iterable[Record] = self._all() if rare is None else self._records_of(rare)
        size = 0
        for record in matching(records, self._query, None):
            if most <= 0 or size >= _RANKED:
                return
            found = self._found_in(record, most)
            if found.texts:
                yield found
            most -= len(found.texts)
            size += sum(len(text) for _, text in found.texts)

    def _found_in(self, record: Record, most: int) -> _Found:
        key = record.session_id
        answer = self._ask(lambda index: index.messages(self._words, key, most))
        if answer is not None and answer[0] == version_of(record):
            return _Found(record, answer[1])
        document = self._document(record, None)
        if document is None:
            return _Found(record, [])
        numbers = {match.number for match in self._matcher.find_in(document.chunks)}
        last = set(sorted(numbers, reverse=True)[:most])
        lines = enumerate(lines_of(document.chunks))
        texts = [(number, text_of(line)) for number, line in lines if number in last]
        return _Found(document.record, texts[::-1])

    # --- where they come from ---------------------------------------------------------------

    def _all(self) -> Iterable[Record]:
        """All sessions in order, before the text index is asked, which then is as new or newer."""
        newest = self._view.newest_first()
        self._view.wait_readable()  # after a close there are none, and that is no answer
        order = self._query.order
        return newest if order is NEWEST else order.first(newest, None)

    def _ask(self, query: Callable[[FullText], T]) -> T | None:
        """What the text index says; None where there is none."""
        texts = self._view.texts
        return None if texts is None else texts.ask(query)

    def _document(self, record: Record, behind: Position | None) -> Document | None:
        """The session as it is now, if it is still wanted."""
        try:
            document = self._view.load(record.session_id)
        except (StoreClosed, NotExecuted):
            raise
        except SessionKeeperError:
            return None  # it cannot be read; whoever loads it is told
        if document is None or not self._query.matches(document.record):
            return None
        return document if self._query.order.is_behind(document.record, behind) else None
