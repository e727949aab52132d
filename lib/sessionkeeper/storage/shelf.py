"""The index as the place where sessions lie that memory has no room for.

What it says of a session is what was published of it last. Whether that still stands is for the
session's file to say, which is compared by whoever asks.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from sessionkeeper.keys import namespace_of
from sessionkeeper.storage.database import IndexFailed, translated
from sessionkeeper.storage.index import Index, Reached, entry_of, reached_in
from sessionkeeper.storage.platform import Signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.storage.index import Entry

# So many are looked up, or gone through, at a time.
PAGE: Final = 500

_BY_KEY: Final = """SELECT s.* FROM json_each(?) AS k CROSS JOIN sessions AS s
ON s.namespace = json_extract(k.value, '$[0]') AND s.session_id = json_extract(k.value, '$[1]')"""
_BY_STEM: Final = """SELECT s.* FROM json_each(?) AS k CROSS JOIN sessions AS s
ON s.stem = k.value COLLATE NOCASE"""
_NEXT: Final = """SELECT * FROM sessions WHERE (namespace, session_id) > (?, ?)
ORDER BY namespace, session_id LIMIT ?"""

_FILES: Final = """SELECT rowid, stem, inode, size, mtime_ns FROM sessions WHERE rowid > ?
ORDER BY rowid LIMIT ?"""


class Shelf:
    """Looks sessions up in an index; any thread.

    Args:
        index: The index; whoever writes it has opened it.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._process = os.getpid()

    def of_keys(self, keys: Iterable[str]) -> dict[str, Entry]:
        """What is known of sessions, by key.

        Raises:
            IndexFailed: The index cannot be read, or is damaged.
        """
        found: dict[str, Entry] = {}
        for some in in_pages(keys):
            pairs = [(namespace_of(key), key) for key in some]
            for entry in self._entries(_BY_KEY, orjson.dumps(pairs).decode()):
                found[entry.record.session_id] = entry
        return found

    def of_stems(self, stems: Iterable[str]) -> dict[str, Entry]:
        """The sessions in files of those names, whatever their capitals; by the file's own name.

        Raises:
            IndexFailed: See `of_keys`.
        """
        found: dict[str, Entry] = {}
        for some in in_pages(stems):
            for entry in self._entries(_BY_STEM, orjson.dumps(some).decode()):
                if entry.stem is not None:
                    found[entry.stem] = entry
        return found

    def unfiled(self, limit: int) -> list[str]:
        """Sessions of which it is not known which file holds them, so many at most.

        Raises:
            IndexFailed: See `of_keys`.
        """
        rows = self._rows("SELECT session_id FROM sessions WHERE stem IS NULL LIMIT ?", limit)
        return [row[0] for row in rows]

    def entries(self) -> Iterator[list[Entry]]:
        """All sessions in the order of their keys, some at a time, each as it is at its turn.

        Raises:
            IndexFailed: See `of_keys`.
        """
        last = ("", "")
        while page := self._entries(_NEXT, *last, PAGE):
            yield page
            key = page[-1].record.session_id
            last = (namespace_of(key), key)

    def files(self) -> Iterator[list[tuple[str, Signature]]]:
        """The stem and signature of each file, some at a time, without a look at their checksums.

        Raises:
            IndexFailed: See `of_keys`.
        """
        last = 0
        while rows := self._rows(_FILES, last, PAGE):
            last = rows[-1][0]
            yield [(row[1], Signature(row[2] % 2**64, *row[3:])) for row in rows if row[1]]

    def counts(self) -> Counter[str]:
        """How many sessions there are in each namespace.

        Raises:
            IndexFailed: See `of_keys`.
        """
        rows = self._rows("SELECT namespace, count(*) FROM sessions GROUP BY namespace")
        return Counter(dict(rows))

    def reached(self) -> Reached:
        """How far the index has come.

        Raises:
            IndexFailed: See `of_keys`.
        """
        with translated(), self._index.borrowed() as connection:
            return reached_in(connection)

    def _entries(self, query: str, *values: object) -> list[Entry]:
        return [entry_of(row) for row in self._rows(query, *values)]

    def _rows(self, query: str, *values: object) -> list[Any]:
        if os.getpid() != self._process:
            raise IndexFailed("its connections do not survive a fork", passing=True)
        with translated(), self._index.borrowed() as connection:
            return connection.execute(query, values).fetchall()


def in_pages(texts: Iterable[str]) -> Iterator[list[str]]:
    """Those texts, so many at a time as are looked up together."""
    left = iter(texts)
    while some := list(islice(left, PAGE)):
        yield some
