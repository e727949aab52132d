"""The index: what it is told it finds again, and what is damaged in it is never believed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.catalog import Catalog
from sessionkeeper.engine.query import Query, page_of, position, select
from sessionkeeper.engine.view import View
from sessionkeeper.processes.indexer import Indexing
from sessionkeeper.storage import database as database_module
from sessionkeeper.storage import index as index_module
from sessionkeeper.storage import platform as platform_module
from sessionkeeper.storage import selecting
from sessionkeeper.storage.backend import RecoveryReport
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.documents import Record, Request, decode_record, encode_record
from sessionkeeper.storage.examine import Known
from sessionkeeper.storage.index import Entry, Index, Reached
from sessionkeeper.storage.memory import MemoryBackend
from sessionkeeper.storage.orders import NEWEST, ORDERS
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sessionkeeper.events import Event
    from sessionkeeper.storage.orders import Order, Position

NOW = datetime(2025, 1, 1, tzinfo=UTC)
EVERYTHING = Query()
QUERIES = [
    EVERYTHING,
    Query(tags=frozenset(["odd"])),
    Query(tags=frozenset(["odd", "fifth"])),
    Query(all_tags=frozenset(["odd", "fifth"])),
    Query(tags=frozenset(["odd"]), all_tags=frozenset(["fifth"])),
    Query(status="active"),
    Query(min_cost=3.0, max_cost=7.5),
    Query(after=NOW + timedelta(days=3), before=NOW + timedelta(days=11)),
    *(Query(order=order) for order in ORDERS.values()),
    Query(tags=frozenset(["odd", "fifth"]), order=ORDERS["title"]),
]


def record(number: int, **changes: Any) -> Record:
    made = Record(
        session_id=f"s{number}",
        generation=1,
        lsn=number + 1,
        created_at=NOW,
        updated_at=NOW + timedelta(days=number, microseconds=number),
        completed_at=None,
        persisted_until=None,
        status="active" if number % 3 == 0 else None,
        title=f"Title — {number}",
        summary=None,
        tags=(("odd",) if number % 2 else ()) + (("fifth",) if number % 5 == 0 else ()),
        message_count=number,
        total_cost=number / 2,
        metadata=b'{"a":[1,2.5,"x"]}',
        requests=(Request("r", 1, number, keyed=True),),
        extra=b'{"theirs":1}',
    )
    return replace(made, **changes)


def signature(number: int) -> Signature:
    return Signature(2**64 - 1 - number, 100 + number, 10**18 + number)


def entry(number: int, **changes: Any) -> Entry:
    made = record(number, **changes)
    return Entry(made, made.session_id, signature(number))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index(tmp_path / "index.db")
    made.open()
    yield made
    made.close()


def ids(records: Sequence[Record]) -> list[str]:
    return [record.session_id for record in records]


def flip(path: Path, offset: int, bit: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


# --- what is written is found -------------------------------------------------------------


def test_a_record_comes_back_equal() -> None:
    made = record(
        7,
        session_id="ключ:é@",
        completed_at=NOW,
        persisted_until=NOW + timedelta(milliseconds=5),
        summary="a\nb",
        status="\0odd",
        total_cost=0.1,
    )
    assert decode_record(encode_record(made)) == made


def test_what_is_written_is_found_in_the_order_of_changes(index: Index) -> None:
    index.write([entry(number) for number in range(20)], reached=Reached(20))
    index.write([entry(3, lsn=30, generation=2)], removed=["s5", "absent"], reached=Reached(31))
    assert ids(index.page(EVERYTHING, None, 4)) == ["s3", "s19", "s18", "s17"]
    assert len(index.page(EVERYTHING, None, None)) == 19
    assert ids(index.page(EVERYTHING, (3, ""), None)) == ["s1", "s0"]
    assert index.page(EVERYTHING, None, 1) == [record(3, lsn=30, generation=2)]
    assert ids(index.page(Query(tags=frozenset(["fifth"])), None, None)) == ["s15", "s10", "s0"]


@pytest.mark.parametrize("query", QUERIES)
def test_it_finds_what_a_search_of_the_records_finds(index: Index, query: Query) -> None:
    records = [record(number) for number in range(30)]
    index.write([Entry(record) for record in records])
    in_order = query.order.first(records, None)
    places: list[Position | None] = [None, query.order.position(record(19))]
    if query.order is NEWEST:
        places += [(20, ""), (20, "s19"), (20, "s2"), (0, ""), (10**30, "")]
    for behind in places:
        expected = [r for r in in_order if query.order.is_behind(r, behind) and query.matches(r)]
        assert index.page(query, behind, None) == expected
        assert index.page(query, behind, 3) == expected[:3]


ALIKE = ("", "a", "A", "b", "ä", "Z", "z" * 99 + "a", "z" * 101, "\U0001f600", None)

numbered = st.integers(0, 3)
records = st.lists(
    st.builds(
        lambda number, title, created, updated, cost, messages, tags: record(
            number,
            session_id=f"s{number}" if number % 3 else f"team/s{number}",
            title=title,
            created_at=NOW + timedelta(microseconds=created),
            updated_at=NOW + timedelta(days=1 + updated),
            total_cost=cost,
            message_count=messages,
            lsn=number // 2,
            tags=tuple(sorted(tags)),
        ),
        st.integers(0, 60),
        st.sampled_from(ALIKE),
        numbered,
        numbered,
        st.sampled_from([0.0, -0.0, 0.1, 1e300]),
        numbered,
        st.sets(st.sampled_from(["odd", "fifth", "more"])),
    ),
    max_size=25,
    unique_by=lambda made: made.session_id,
)
wanted = st.builds(
    Query,
    tags=st.frozensets(st.sampled_from(["odd", "fifth"])),
    all_tags=st.frozensets(st.sampled_from(["odd", "more"])),
    after=st.sampled_from([None, NOW + timedelta(days=2)]),
    before=st.sampled_from([None, NOW + timedelta(days=3)]),
    min_cost=st.sampled_from([None, 0.1]),
    max_cost=st.sampled_from([None, 0.1]),
    namespace=st.sampled_from(["", "team"]),
    order=st.sampled_from(list(ORDERS.values())),
)


@settings(max_examples=150)
@given(records, wanted, st.integers(1, 6), st.sampled_from([0, 3, 2000]))
def test_in_every_order_it_finds_what_a_search_of_the_records_finds(
    made: list[Record],
    query: Query,
    limit: int,
    few: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Whether the sessions with a tag are sorted, or the order is gone through.
        patch.setattr(index_module, "FEW", few)
        index = Index(Path(folder) / "index.db")
        index.open()
        index.write([Entry(record) for record in made])
        matching = [record for record in made if query.matches(record)]
        cursor: str | None = None
        seen: list[Record] = []
        while True:
            behind = position(query.order, limit, cursor)
            found = index.page(query, behind, limit + 1)
            page = select(NEWEST.first(made, None), query, limit, cursor)
            assert page_of(query.order, found, limit) == page
            seen += found[:limit]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == index.page(query, None, None) == query.order.first(matching, None)
        assert sorted(ids(seen)) == sorted(ids(matching)), "each once"
        index.close()


@pytest.mark.parametrize("order", ORDERS.values(), ids=lambda order: order.name)
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"after": NOW, "before": NOW, "min_cost": 1.0, "max_cost": 1.0, "status": "active"},
        {"all_tags": frozenset(["odd", "fifth"])},
    ],
)
@pytest.mark.parametrize("continued", [False, True])
def test_a_page_is_read_and_not_sorted(
    order: Order,
    conditions: dict[str, Any],
    continued: bool,  # noqa: FBT001 - a parameter of the test
    index: Index,
) -> None:
    query = Query(order=order, **conditions)
    behind = order.position(record(3)) if continued else None
    statement, values = selecting.select(query, behind, 50, few=False)
    plan = index._open_writer().execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    steps = [step[-1] for step in plan]
    assert not any("TEMP B-TREE" in step for step in steps), steps
    begun = next(step for step in steps if step.startswith("SEARCH"))
    assert not continued or "<" in begun or ">" in begun, "it begins behind the cursor"


def test_the_sessions_with_a_rare_tag_are_looked_up(index: Index) -> None:
    """Whatever the order: else a page by id would go through all ids."""
    for order in ORDERS.values():
        query = Query(order=order, tags=frozenset(["odd", "fifth"]))
        behind = order.position(record(3))
        statement, values = selecting.select(query, behind, 50, few=True)
        plan = index._open_writer().execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        steps = [step[-1] for step in plan]
        assert "(namespace=? AND session_id=?)" in steps[0], steps


@pytest.mark.parametrize("order", ["title", "-title", "cost", "messages", "created", "updated"])
def test_a_row_in_the_wrong_place_is_noticed(order: str, index: Index) -> None:
    """Its checksum is right, and it still does not say what its record says."""
    index.write([entry(number, created_at=NOW + timedelta(days=number)) for number in range(9)])
    writer = index._open_writer()
    row = list(writer.execute("SELECT * FROM sessions WHERE session_id = 's4'").fetchone())
    row[3:8] = [1, 1, "title — 90", 99, 99.0]
    row[-1] = index_module._crc(tuple(row))
    writer.execute(index_module._PUT, row)
    query = Query(order=ORDERS[order])
    with pytest.raises(IndexFailed, match="should not"):
        index.page(query, None, None)
    if order in {"title", "cost", "messages"}:
        # Alone behind the cursor, where its record does not belong.
        with pytest.raises(IndexFailed, match="should not"):
            index.page(query, query.order.position(record(8)), None)


def test_many_tags_at_once(index: Index) -> None:
    tags = tuple(f"t{number}" for number in range(1000))
    index.write([Entry(record(1, tags=tags)), Entry(record(2, tags=tags[1:]))])
    assert ids(index.page(Query(all_tags=frozenset(tags)), None, None)) == ["s1"]
    assert ids(index.page(Query(tags=frozenset(tags)), None, None)) == ["s2", "s1"]


def test_a_tag_that_was_removed_is_not_found_any_more(index: Index) -> None:
    index.write([Entry(record(1, tags=("a", "b")))])
    index.write([Entry(record(1, tags=("b",), lsn=9))])
    assert index.page(Query(tags=frozenset("a")), None, None) == []
    assert ids(index.page(Query(tags=frozenset("b")), None, None)) == ["s1"]


@pytest.mark.parametrize("cost", [0, -0.0, 5, 1e308, 5e-324])
def test_odd_numbers_are_no_damage(index: Index, cost: float) -> None:
    index.write([Entry(record(1, total_cost=cost))])
    assert index.page(EVERYTHING, None, None)[0].total_cost == cost
    assert all(row.intact for row in index.rows())


def test_what_it_cannot_hold_is_refused_whole(index: Index) -> None:
    with pytest.raises(IndexFailed) as caught:
        index.write([entry(1), entry(2, lsn=2**63)])
    assert caught.value.passing
    assert index.page(EVERYTHING, None, None) == []
    index.write([entry(1)])


def test_sessions_by_their_ids(index: Index) -> None:
    names = ["Z", "a", "é", "я", "𝄞"]
    index.write([Entry(record(n, session_id=name)) for n, name in enumerate(reversed(names))])
    assert ids(index.after("", 3)) == names[:3]
    assert ids(index.after("é", 3)) == names[3:] == sorted(names)[3:]


def test_a_file_that_caught_up_is_filed_unless_there_is_a_later_version(index: Index) -> None:
    index.write([Entry(record(1)), Entry(record(2, lsn=9))])
    index.write([], filed=[entry(1), entry(2), entry(3)])
    assert [row.intact for row in index.rows()] == [True, True]
    index.close()
    assert index.recall().files == {"s1": Known(record(1), signature(1))}


# --- when a store comes up ----------------------------------------------------------------


def test_it_knows_the_files_as_they_were_published(index: Index, tmp_path: Path) -> None:
    index.write([entry(1), entry(2), Entry(record(3))], reached=Reached(77))
    recalled = index.recall()
    assert recalled.lsn == 77
    assert recalled.files == {f"s{n}": Known(record(n), signature(n)) for n in (1, 2)}
    assert Index(tmp_path / "absent.db").recall().files == {}
    assert not (tmp_path / "absent.db").exists()


def test_a_row_that_is_not_as_it_was_written_is_left_out(index: Index) -> None:
    index.write([entry(1), entry(2)], reached=Reached(2))
    index.close()
    with closing(sqlite3.connect(index.path)) as raw, raw:
        raw.execute("UPDATE sessions SET size = size + 1 WHERE session_id = 's1'")
        raw.execute("UPDATE reached SET lsn = 999")
    assert index.recall().files == {"s2": Known(record(2), signature(2))}
    assert index.recall().lsn == 3, "that of the highest version"
    index.open()
    with pytest.raises(IndexFailed, match="not as it was written"):
        index.page(EVERYTHING, None, None)
    assert [row.intact for row in index.rows()] == [False, True]


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 2",
        "CREATE TABLE more (a)",
        "CREATE TRIGGER t AFTER INSERT ON tags BEGIN DELETE FROM sessions; END",
        "DROP INDEX tags_newest",
        "DROP INDEX sessions_by_title",
    ],
)
def test_a_database_that_is_not_ours_is_not_used(index: Index, statement: str) -> None:
    index.write([entry(1)])
    index.close()
    with closing(sqlite3.connect(index.path)) as raw, raw:
        raw.execute(statement)
    assert index.recall().files == {}
    with pytest.raises(IndexFailed) as caught:
        index.open()
    assert not caught.value.passing
    index.discard()
    index.open()
    assert index.page(EVERYTHING, None, None) == []


def test_its_files_are_for_the_owner_only(index: Index) -> None:
    old = os.umask(0)
    try:
        index.discard()
        index.open()
        index.write([entry(1)])
        found = {path.name: path.stat().st_mode & 0o777 for path in index.path.parent.iterdir()}
    finally:
        os.umask(old)
    assert found == dict.fromkeys(["index.db", "index.db-wal", "index.db-shm"], 0o600)


def test_no_two_files_that_are_written_look_alike(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a row that is behind could pass for current: inodes and sizes come again."""
    fs = FileSystem()
    path = tmp_path / "temporary"
    fs.write_unsynced(path, [b"000"])
    times = []
    with monkeypatch.context() as patch:
        patch.setattr(platform_module, "time", SimpleNamespace(time_ns=lambda: 10**18))
        for number in range(100):
            path.unlink()
            times.append(fs.write_unsynced(path, [b"%03d" % number]).mtime_ns)
    assert [after - before for before, after in pairwise(times)] == [1000] * 99
    assert times[-1] == path.stat().st_mtime_ns
    assert fs.rewrite_end(path, [b"x"], 2).mtime_ns not in times


# --- threads ------------------------------------------------------------------------------


def test_any_thread_reads_while_one_writes(index: Index) -> None:
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                numbers = [r.generation for r in index.page(EVERYTHING, None, None)]
                assert len(set(numbers)) <= 1, "half a transaction"
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation in range(1, 40):
        index.write([entry(number, generation=generation) for number in range(10)])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_closing_waits_for_queries_and_leaves_nothing_open(index: Index) -> None:
    index.write([entry(1)])
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        with index.borrowed() as connection:
            inside.set()
            go.wait(5)
            connection.execute("SELECT 1").fetchone()

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(5)
    closer = threading.Thread(target=index.close)
    closer.start()
    go.set()
    thread.join()
    closer.join()
    assert sorted(path.name for path in index.path.parent.iterdir()) == ["index.db"]
    with pytest.raises(IndexFailed):
        index.page(EVERYTHING, None, None)


def test_a_query_that_does_not_end_is_not_waited_for_for_ever(
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "PATIENCE", 0.01)
    with index.borrowed(), pytest.raises(IndexFailed, match="not ended"):
        index.discard()
    assert index.path.exists()


# --- damage -------------------------------------------------------------------------------

COUNT = 40


class Indexed:
    """An index with a catalog and a view, and nobody in between: the test does the steps."""

    def __init__(self, path: Path) -> None:
        self.records = {f"s{number}": record(number) for number in range(COUNT)}
        self.events: list[Event] = []
        self.catalog = Catalog(Index(path), 5.0)
        cache = SessionCache(10**6, 60, FakeClock())
        self.view = View(MemoryBackend(), cache, 5.0, lambda _: None, self.catalog)
        self.indexing = Indexing(self.catalog, self.view, self._published, self.events.append)
        self.view.recovered(RecoveryReport(records=self.records, lsn=COUNT))

    def _published(self, record: Record) -> tuple[str, Signature] | None:
        number = int(record.session_id[1:])
        return (record.session_id, signature(number)) if number % 4 else None

    def check(self, where: object) -> None:
        """The index answers, and as a search of the records would."""
        newest = sorted(self.records.values(), key=lambda record: -record.lsn)
        for query in QUERIES:
            expected = select(newest, query, 7, None)
            assert self.view.search(query, 7, None) == expected, where
        while self.indexing.step():
            pass
        for query in QUERIES:
            found = self.catalog.page(query, None, None)
            assert found is not None, where
            matching = filter(query.matches, self.records.values())
            assert found == query.order.first(matching, None), where
        found = self.catalog.after("", 10**6)
        assert found == sorted(self.records.values(), key=lambda r: r.session_id), where


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "index.db"
    made = Indexed(path)
    made.check("new")
    made.catalog.index.close()
    assert made.events == []
    return path


def test_a_new_index_is_made_without_a_word(pristine: Path) -> None:
    assert Index(pristine).recall().files.keys() == {f"s{n}" for n in range(COUNT) if n % 4}


@pytest.mark.parametrize("block", range(4))
def test_a_flipped_bit_anywhere_never_makes_a_wrong_answer(
    block: int,
    pristine: Path,
    tmp_path: Path,
) -> None:
    rng = random.Random(block)
    path = tmp_path / "index.db"
    size = pristine.stat().st_size
    places = [*range(block, 100, 4), *(rng.randrange(size) for _ in range(35))]
    noticed = 0
    for place in places:
        shutil.copyfile(pristine, path)
        flip(path, place, 1 << rng.randrange(8))
        damaged = Indexed(path)
        for stem, known in damaged.catalog.index.recall().files.items():
            assert known == Known(damaged.records[stem], signature(int(stem[1:]))), place
        damaged.check(place)
        noticed += len(damaged.events)
        damaged.catalog.index.close()
    assert noticed > len(places) // 20, "the flips must have hit something"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 8192),
        lambda path: path.write_bytes(b"no database at all" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:-4096]),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.unlink(),
        lambda path: path.with_name("index.db-wal").write_bytes(b"stale" * 1000),
        lambda path: (path.unlink(), path.symlink_to(path.parent / "elsewhere.db")),
        lambda path: (path.rename(path.parent / "e.db"), path.symlink_to(path.parent / "e.db")),
    ],
)
def test_whatever_stands_there_is_replaced(damage: Any, pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    shutil.copyfile(pristine, path)
    damage(path)
    damaged = Indexed(path)
    damaged.catalog.index.recall()
    damaged.check("damaged")
    damaged.catalog.index.close()
    assert not path.is_symlink()
    assert len(Index(path).recall().files) == COUNT * 3 // 4


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM sessions WHERE session_id = 's7'",
        "DELETE FROM tags WHERE session_id = 's7'",
        "INSERT INTO tags VALUES ('', 's7', 'fifth', 8)",
        "INSERT INTO tags VALUES ('', 'nobody', 'odd', 8)",
        "UPDATE tags SET lsn = 1000 WHERE session_id = 's7'",
        "UPDATE sessions SET lsn = 1000 WHERE session_id = 's7'",
        "UPDATE sessions SET status = 'active'",
        "UPDATE sessions SET title = 'A' WHERE session_id = 's7'",
        "UPDATE sessions SET created_at = 0",
        "UPDATE sessions SET message_count = 1 WHERE session_id = 's7'",
        "UPDATE sessions SET session_id = 's700' WHERE session_id = 's7'",
        "UPDATE sessions SET record = CAST('{}' AS BLOB)",
        "UPDATE sessions SET crc = crc + 1 WHERE session_id = 's7'",
        "DELETE FROM reached",
    ],
)
def test_rows_that_are_wrong_are_made_good(change: str, pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    shutil.copyfile(pristine, path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(change)
    damaged = Indexed(path)
    damaged.check(change)
    damaged.catalog.index.close()


def test_a_row_that_goes_bad_while_it_is_used_is_noticed_by_the_query(tmp_path: Path) -> None:
    indexed = Indexed(tmp_path / "index.db")
    indexed.check("new")
    with closing(sqlite3.connect(tmp_path / "index.db")) as raw, raw:
        raw.execute("UPDATE sessions SET total_cost = 3 WHERE session_id = 's9'")
    newest = sorted(indexed.records.values(), key=lambda record: -record.lsn)
    assert indexed.view.search(EVERYTHING, None, None) == select(newest, EVERYTHING, None, None)
    assert indexed.catalog.page(EVERYTHING, None, None) is None, "not before it is compared"
    indexed.check("again")
    indexed.catalog.index.close()


def test_scrubbing_leaves_no_byte_also_where_pages_were_not_written_over(index: Index) -> None:
    index.open()
    index._open_writer().execute("PRAGMA secure_delete = OFF")
    index.write([entry(number, session_id=f"zebra-{number}") for number in range(200)])
    index.write([], removed=["zebra-77"])
    assert any(b"zebra-77" in path.read_bytes() for path in index.path.parent.glob("index.db*"))
    index.scrub("zebra-77")
    assert not any(b"zebra-77" in path.read_bytes() for path in index.path.parent.glob("index.db*"))
    assert len(list(index.rows())) == 199
