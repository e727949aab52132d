"""Searching in texts: what was acknowledged is found, whatever happens to the text index."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionkeeper import (
    IndexBehind,
    InvalidConfig,
    InvalidQuery,
    SaveSession,
    SessionExists,
    SessionStore,
    StoreClosed,
)
from sessionkeeper.engine import textsearch
from sessionkeeper.engine.texts import WAITS, Texts
from sessionkeeper.engine.view import View
from sessionkeeper.processes import texts as texts_module
from sessionkeeper.processes import writer as writer_module
from sessionkeeper.processes.texts import TextIndexing
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.fulltext import FullText
from sessionkeeper.testing import EventLog, crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sessionkeeper import MessageHit, Page, SessionInfo, SessionScope
    from sessionkeeper.pages import SessionOrder
    from sessionkeeper.storage.fulltext import Piece

TEXTS = ("alpha", "alpha beta", "beta gamma alpha", "gamma", "alps", "")
QUERIES = ("alpha", "gamma", "alpha beta", '"beta gamma"', "al*", "alpha absent")


def text_db(folder: Path) -> Path:
    return folder / ".sessionkeeper" / "text.db"


def texts_of(store: SessionStore) -> Texts:
    texts = store._view.texts
    assert texts is not None
    return texts


def ids(infos: Any) -> list[str]:
    return [info.session_id for info in infos]


def places(hits: Sequence[MessageHit]) -> list[tuple[str, int]]:
    return [(hit.info.session_id, hit.number) for hit in hits]


def holds(query: str, text: str) -> bool:
    """What a text index should say, done in the plainest way."""
    words = re.findall(r"[a-z]+", text.lower())
    if query.startswith('"'):
        return f" {query[1:-1]} " in f" {' '.join(words)} "
    return all(
        any(w.startswith(term[:-1]) if term.endswith("*") else w == term for w in words)
        for term in query.split()
    )


def expected(store: SessionStore | SessionScope, query: str) -> list[tuple[str, int]]:
    return [
        (info.session_id, number)
        for info in store.list_sessions()
        for number, message in reversed(
            list(enumerate(store.load_session(info.session_id).messages)),
        )
        if holds(query, str(message))
    ]


def agrees(store: SessionStore | SessionScope, *, where: object = None) -> None:
    """Every search says what reading all sessions says."""
    for query in QUERIES:
        right = expected(store, query)
        sessions = list(dict.fromkeys(session_id for session_id, _ in right))
        assert ids(store.search(text=query)) == sessions, (where, query)
        assert places(store.search_messages(query, limit=1000)) == right, (where, query)
        found: list[str] = []
        cursor: str | None = None
        while True:
            page: Page[SessionInfo] = store.search(text=query, limit=2, cursor=cursor)
            found += ids(page)
            cursor = page.cursor
            if cursor is None:
                break
        assert found == sessions, (where, query)


@pytest.fixture
def searched(folder: Path) -> Iterator[SessionStore]:
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        yield store


@pytest.fixture(params=["rare", "common"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to find sessions: all at once, or by going through them."""
    if request.param == "common":
        monkeypatch.setattr(textsearch, "RARE", 0)
        monkeypatch.setattr(textsearch, "PAGE", 2)
    return str(request.param)


# --- what is found ------------------------------------------------------------------------


def test_words_are_found_in_one_message(searched: SessionStore, way: str) -> None:
    searched.save_session("s1", [{"role": "user", "content": "Refund my flight"}], tags=["a"])
    searched.save_session("s2", [{"content": "refund"}, {"content": [{"text": "a flight"}]}])
    searched.append("s1", [{"role": "assistant", "content": "The refund was sent."}])
    assert ids(searched.search(text="refund flight")) == ["s1"]
    assert ids(searched.search(text="refund")) == ["s1", "s2"]
    assert ids(searched.search(text="refund", tags=["a"])) == ["s1"]
    assert ids(searched.search(text="refund", tags=["b"])) == []
    assert ids(searched.search(text="refund", limit=0)) == []
    hits = searched.search_messages("refund")
    assert places(hits) == [("s1", 1), ("s1", 0), ("s2", 0)]
    assert hits[0].snippet == "assistant The «refund» was sent."
    assert hits[0].info == searched.search(text="sent")[0]
    assert places(searched.search_messages("refund", limit=2)) == [("s1", 1), ("s1", 0)]
    assert places(searched.search_messages("refund", tags=["a"])) == [("s1", 1), ("s1", 0)]
    assert searched.search_messages("refund", limit=0) == []


def test_the_best_match_comes_first_when_asked_for(searched: SessionStore, way: str) -> None:
    searched.save_session("best", ["refund refund"])
    searched.save_session("long", ["refund " + "and so many other words " * 20])
    searched.save_session("fair", ["a refund of it"])
    assert ids(hit.info for hit in searched.search_messages("refund", order="rank"))[0] == "best"
    (only,) = searched.search_messages("refund", order="rank", limit=1)
    assert (only.info.session_id, only.number) == ("best", 0)


def test_only_the_newest_are_ranked(
    searched: SessionStore,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched.save_session("old", ["refund refund"])
    searched.save_session("new", ["a refund of it"] * 3)
    monkeypatch.setattr(textsearch, "CANDIDATES", 2)
    assert places(searched.search_messages("refund", order="rank", limit=2)) == [
        ("new", 2),
        ("new", 1),
    ]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": None}, "limit"),
        ({"order": "best"}, "order"),
        ({"min_cost": "1"}, "min_cost"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    searched: SessionStore,
    more: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(InvalidQuery, match=says) as caught:
        searched.search_messages("refund", **more)
    assert caught.value.hint
    for text in ("", '"', 5):
        with pytest.raises(InvalidQuery):
            searched.search(text=text)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery):
        searched.search(text="refund", cursor="ours")


def test_without_the_setting_it_is_refused_by_name(store: SessionStore, folder: Path) -> None:
    store.save_session("s1", ["alpha"])
    for search in (lambda: store.search(text="alpha"), lambda: store.search_messages("alpha")):
        with pytest.raises(InvalidQuery) as caught:
            search()
        assert "full_text=True" in str(caught.value.hint)
    assert not text_db(folder).exists()
    with pytest.raises(InvalidConfig, match="full_text"):
        SessionStore.open(folder / "other", full_text=1)


def test_a_namespace_is_searched_alone(searched: SessionStore, way: str) -> None:
    team = searched.scope("team-a")
    searched.save_session("s1", ["alpha"])
    team.save_session("s1", ["alpha beta"])
    team.save_session("s2", ["gamma"])
    for view in (searched, team):
        agrees(view)
    assert [info.namespace for info in team.search(text="alpha")] == ["team-a"]


# --- all that was acknowledged ------------------------------------------------------------

KEYS = ("s1", "s2", "s3")
keys = st.sampled_from(KEYS)
messages = st.lists(st.sampled_from(TEXTS), max_size=4)
steps = st.one_of(
    st.tuples(st.just("save"), keys, messages),
    st.tuples(st.just("append"), keys, messages),
    st.tuples(st.just("append"), keys, messages),
    st.tuples(st.just("rewind"), keys, st.integers(0, 3)),
    st.tuples(st.just("rename"), keys, keys),
    st.tuples(st.just("fork"), keys, keys),
    st.tuples(st.sampled_from(["delete", "undelete", "tag", "erase"]), keys, st.none()),
    st.tuples(st.sampled_from(["look", "look", "crash", "reopen", "drop"]), keys, st.none()),
)


def undelete(store: SessionStore, key: str) -> None:
    with contextlib.suppress(LookupError, SessionExists):
        store.undelete_session(key)


ACTIONS: dict[str, Callable[[SessionStore, str, Any], object]] = {
    "save": lambda store, key, new: store.save_session(key, new),
    "append": lambda store, key, new: store.append(key, new),
    "rewind": lambda store, key, n: store.rewind(key, message=min(n, len(store.load_session(key)))),
    "rename": lambda store, key, to: to in store or store.rename_session(key, to),
    "fork": lambda store, key, to: to in store or store.fork_session(key, to),
    "delete": lambda store, key, _: store.delete_session(key),
    "undelete": lambda store, key, _: undelete(store, key),
    "tag": lambda store, key, _: store.add_tags(key, ["t"]),
    "erase": lambda store, key, _: store.erase_session(key, timeout=30),
    "crash": lambda store, *_: crash_actor(store),
}
NEEDED = ("rewind", "rename", "fork", "tag")


def do(store: SessionStore, name: str, key: str, value: Any) -> None:
    if name not in NEEDED or key in store:
        ACTIONS[name](store, key, value)


@settings(max_examples=25)
@given(st.lists(steps, max_size=12), st.booleans(), st.sampled_from(["journal", "file"]))
def test_it_finds_what_reading_all_sessions_finds(
    plan: list[Any],
    gone_through: bool,  # noqa: FBT001 - drawn
    durability: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_module, "PIECE", 8)
        if gone_through:
            patch.setattr(textsearch, "RARE", 0)
            patch.setattr(textsearch, "PAGE", 2)

        def opened() -> SessionStore:
            return SessionStore.open(
                folder,
                watch=False,
                full_text=True,
                durability=durability,
                max_restarts=100,
                call_timeout=30.0,
            )

        store = opened()
        try:
            for name, key, value in plan:
                if name in ("reopen", "drop"):
                    store.close()
                    if name == "drop":
                        text_db(Path(folder)).unlink(missing_ok=True)
                    store = opened()
                elif name == "look":
                    agrees(store, where=plan)
                else:
                    do(store, name, key, value)
            agrees(store, where=plan)
        finally:
            store.close()


def test_searches_of_many_threads_see_their_own_saves(searched: SessionStore, way: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(12):
                searched.append(f"s{number}", [f"common by{number} turn{turn}"])
                assert ids(searched.search(text=f"turn{turn} by{number}")) == [f"s{number}"]
                assert f"s{number}" in ids(searched.search(text="common"))
                hits = searched.search_messages(f"by{number}")
                assert places(hits) == [(f"s{number}", past) for past in range(turn, -1, -1)]
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_session_that_never_stops_changing_is_always_found(
    searched: SessionStore,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It holds the word before and after each change, so at no moment is it without."""
    monkeypatch.setattr(texts_module, "PIECE", 8)
    searched.save_session("s1", ["alpha word"] * 5)
    stop = threading.Event()
    rng = random.Random(1)

    def change() -> None:
        while not stop.is_set():
            searched.save_session("s1", ["alpha " + rng.choice(TEXTS)] * rng.randint(1, 9))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(60):
            assert ids(searched.search(text="alpha")) == ["s1"]
            assert searched.search_messages("alpha", limit=1)
    finally:
        stop.set()
        writer.join()
    agrees(searched)


def test_a_search_never_mixes_two_versions(
    searched: SessionStore,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session has the word or the tag, never both; it changes while it is looked for."""
    ask = Texts.ask
    asked: list[int] = []

    def change(word: str, tag: str) -> None:
        searched.save_session("s1", [word], tags=[tag])

    def changing(texts: Texts, query: Callable[[FullText], Any]) -> Any:
        asked.append(1)
        if len(asked) == 2:  # what is shown was looked up, what it says was not
            change("alpha", "other")
        answer = ask(texts, query)
        if len(asked) == 1:  # what it says was looked up, what is shown was not
            change("gamma", "wanted")
        return answer

    monkeypatch.setattr(Texts, "ask", changing)
    for search in (
        lambda: searched.search(text="alpha", tags=["wanted"]),
        lambda: searched.search_messages("alpha", tags=["wanted"]),
    ):
        change("alpha", "other")
        asked.clear()
        assert list(search()) == []
        assert asked
    monkeypatch.undo()
    agrees(searched)


ORDERS: tuple[SessionOrder, ...] = ("title", "-title", "messages", "-messages", "id", "changed")


@pytest.mark.parametrize("order", ORDERS)
def test_what_has_the_words_is_shown_in_any_order(
    order: SessionOrder,
    searched: SessionStore,
    way: str,
) -> None:
    for number, title in enumerate(["b", "D", "a", None, "C", "e"]):
        texts = ["alpha"] * (number % 4) + ["beta"]
        searched.save_session(f"s{number}", texts, title=title, tags=["odd"] * (number % 2))
    for conditions in ({}, {"tags": ["odd"]}):
        listed = searched.search(order=order, **conditions)  # type: ignore[arg-type]
        expected = [info.session_id for info in listed if info.session_id not in {"s0", "s4"}]
        assert ids(searched.search(text="alpha", order=order, **conditions)) == expected  # type: ignore[arg-type]
        page = searched.search(text="alpha", order=order, limit=1, **conditions)  # type: ignore[arg-type]
        found = ids(page)
        while page.cursor is not None:
            page = searched.search(
                text="alpha",
                order=order,
                limit=1,
                cursor=page.cursor,
                **conditions,  # type: ignore[arg-type]
            )
            found += ids(page)
        assert found == expected


@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_pages_leave_nothing_out_when_some_move_back_while_they_are_looked_for(
    limit: int | None,
    searched: SessionStore,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page would end with one of them, and the next begin behind it."""
    for number, title in enumerate("abcdef"):
        searched.save_session(f"s{number}", ["alpha"], title=title)
    seen = {name: getattr(textsearch._Search, name) for name in ("_rare", "_records_of", "_all")}

    def then(name: str, change: Callable[[], object]) -> None:
        """Have something changed just after the search has looked."""

        def look(*given: Any) -> Any:
            found = seen[name](*given)
            monkeypatch.setattr(textsearch._Search, name, seen[name])
            change()
            return found

        monkeypatch.setattr(textsearch._Search, name, look)

    def change(**changes: Any) -> None:
        for number in range(3):
            searched.save_session(f"s{number}", **changes)

    # So that the sessions themselves are looked through, and then they move.
    then("_rare", lambda: change(messages=["alpha", "alpha"]))
    then("_records_of" if way == "rare" else "_all", lambda: change(title="dd"))
    page = searched.search(text="alpha", order="title", limit=limit)
    found = ids(page)
    while page.cursor is not None:
        page = searched.search(text="alpha", order="title", limit=limit, cursor=page.cursor)
        found += ids(page)
    assert found == ["s3", "s0", "s1", "s2", "s4", "s5"]


def test_what_was_read_already_is_not_added_again(
    searched: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session grows just before it is read for a change that came earlier."""
    wait_until(lambda: texts_of(searched).is_current())
    document, has_grown = TextIndexing._document, threading.Event()

    def grown(indexing: TextIndexing, key: str, record: Any) -> Any:
        monkeypatch.setattr(TextIndexing, "_document", document)
        searched.append("s1", ["alpha beta"])
        has_grown.set()
        return document(indexing, key, record)

    monkeypatch.setattr(TextIndexing, "_document", grown)
    searched.save_session("s1", ["alpha"])
    texts_of(searched).rouse()
    assert has_grown.wait(10)
    agrees(searched)
    searched.append("s1", ["gamma"])
    agrees(searched)


@pytest.mark.parametrize("more", [{"layout": "rooted"}, {"layout": "single"}, {"durability": "os"}])
def test_it_is_there_whatever_the_layout(folder: Path, more: dict[str, Any]) -> None:
    for _ in range(2):
        with SessionStore.open(folder, watch=False, full_text=True, **more) as store:
            store.append("s1", ["alpha beta"])
            store.save_session("s2", ["gamma"])
            agrees(store)
            store.delete_session("s2")
            agrees(store)
            assert text_db(folder).exists()


def test_a_store_in_memory_looks_through_its_sessions(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "never", persistence=False, full_text=True) as store:
        store.save_session("s1", ["alpha beta", "gamma"])
        store.append("s2", ["alpha"])
        agrees(store)
        store.configure(full_text=False)
        with pytest.raises(InvalidQuery):
            store.search(text="alpha")
    assert not (tmp_path / "never").exists()


def test_a_store_for_reading_looks_through_its_sessions(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["alpha beta", "gamma"])
        store.save_session("s2", ["alpha"])
        with SessionStore.open(folder, read_only=True) as beside:
            agrees(beside)
            assert places(beside.search_messages("alpha", order="rank")) == [("s2", 0), ("s1", 0)]
        before = sorted(p.name for p in text_db(folder).parent.iterdir())
    with SessionStore.open(folder, read_only=True) as alone:
        agrees(alone)
    assert "text.db" not in before


def test_a_closed_store_says_so(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False, full_text=True)
    store.save_session("s1", ["alpha"])
    store.close()
    with pytest.raises(StoreClosed):
        store.search(text="alpha")
    with pytest.raises(StoreClosed):
        store.search_messages("alpha")


# --- what it costs ------------------------------------------------------------------------


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Of each piece that is entered the session, the first message and how many there are."""
    pieces: list[tuple[str, int, int]] = []
    write = FullText.write

    def noted(index: FullText, new: Sequence[Piece], removed: Any = ()) -> None:
        pieces.extend((piece.key, piece.first, len(piece.texts)) for piece in new)
        write(index, new, removed)

    monkeypatch.setattr(FullText, "write", noted)
    return pieces


def test_only_what_is_new_is_entered_and_nobody_reads_the_session_for_it(
    searched: SessionStore,
    entered: list[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched.save_session("s1", ["alpha", "beta"])
    assert searched.search(text="alpha")
    monkeypatch.setattr(View, "document", lambda *_: pytest.fail("it was read"))
    for number in range(3):
        searched.append("s1", ["gamma"])
        assert len(searched.search_messages("gamma")) == number + 1
    assert entered == [("s1", 0, 2), ("s1", 2, 1), ("s1", 3, 1), ("s1", 4, 1)]


def test_what_grew_is_entered_from_where_it_grew_and_what_differs_anew(
    searched: SessionStore,
    entered: list[tuple[str, int, int]],
) -> None:
    for new in (["alpha", "beta"], ["alpha", "beta", "gamma"], ["alpha", "other", "gamma"], ["a"]):
        searched.save_session("s1", new)
        agrees(searched)
    searched.add_tags("s1", ["t"])
    agrees(searched)
    assert entered == [("s1", 0, 2), ("s1", 2, 1), ("s1", 0, 3), ("s1", 0, 1), ("s1", 1, 0)]


def test_an_opening_enters_nothing_that_is_there(
    folder: Path,
    entered: list[tuple[str, int, int]],
) -> None:
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        for number in range(5):
            store.save_session(f"s{number}", ["alpha"])
        agrees(store)
    entered.clear()
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        agrees(store)
        assert entered == []
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s2", ["alpha", "beta"])
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        agrees(store)
        assert len(entered) == 5, "it was switched off, and removed"


def test_a_large_session_is_entered_in_pieces_and_gone_on_with(
    folder: Path,
    entered: list[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(texts_module, "PIECE", 50)
    write = FullText.write
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        store.save_session("s1", [f"alpha {number}" for number in range(40)])
        agrees(store)
        assert len(entered) > 5
        with monkeypatch.context() as patch:
            calls: list[int] = []

            def full(index: FullText, new: Sequence[Piece], removed: Any = ()) -> None:
                calls.append(1)
                if len(calls) > 2:
                    raise IndexFailed("full", passing=True)
                write(index, new, removed)

            patch.setattr(FullText, "write", full)
            store.save_session("s1", [f"beta {number}" for number in range(40)])
            texts_of(store).rouse()
            wait_until(lambda: len(calls) > 2)
            entered.clear()
        wait_until(lambda: not texts_of(store).is_current() or len(calls) > 3)
        agrees(store)
        assert entered[0][:2] != ("s1", 0), "what was entered before counts"
        assert sum(count for _, _, count in entered) < 40


def test_a_text_index_that_cannot_keep_up_slows_writers_and_stops_nobody(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Texts.__init__, "__kwdefaults__", {"limit": 5, "patience": 0.05})
    gate, waiting = threading.Event(), threading.Event()
    write = FullText.write

    def held(index: FullText, new: Sequence[Piece], removed: Any = ()) -> None:
        waiting.set()
        assert gate.wait(20)
        write(index, new, removed)

    with SessionStore.open(folder, watch=False, full_text=True, call_timeout=0.5) as store:
        wait_until(lambda: texts_of(store).is_current())
        monkeypatch.setattr(FullText, "write", held)
        try:
            store.save_session("first", ["alpha"])
            texts_of(store).rouse()
            assert waiting.wait(5)
            waits: list[float] = []
            wait_for = texts_of(store)._changed.wait_for

            def counted(predicate: Callable[[], Any], timeout: float | None = None) -> Any:
                waits.append(timeout or 0)
                return wait_for(predicate, timeout)

            monkeypatch.setattr(texts_of(store)._changed, "wait_for", counted)
            for number in range(5):
                store.save_session(f"s{number}", ["alpha"], tags=["t"])
            assert waits == [], "there is room"
            for number in range(5, 25):
                store.save_session(f"s{number}", ["alpha"], tags=["t"])
            assert waits == [0.05] * WAITS, "so often writers waited, then it was given up"
            assert len(texts_of(store)._records) <= 16
            assert len(store.search(tags=["t"])) == 25, "other queries go on"
            with pytest.raises(IndexBehind) as caught:
                store.search(text="alpha")
            assert caught.value.hint
        finally:
            gate.set()
        store.configure(call_timeout=30.0)
        agrees(store)


def test_what_appends_leave_to_be_entered_is_bounded(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessionkeeper.engine.texts.BYTES", 200)
    monkeypatch.setattr(Texts.__init__, "__kwdefaults__", {"limit": 100, "patience": 20.0})
    full: list[bool] = []
    make_room = Texts.make_room

    def noted(texts: Texts) -> None:
        full.append(texts._is_full())
        make_room(texts)
        assert texts._added_bytes <= 200
        assert not texts._is_full(), "whoever writes waits"

    with SessionStore.open(folder, watch=False, full_text=True) as store:
        wait_until(lambda: texts_of(store).is_current())
        monkeypatch.setattr(Texts, "make_room", noted)
        receipts = [
            store.tell(SaveSession(f"s{number}", ["alpha " * (number % 9)])) for number in range(40)
        ]
        for number in range(40):
            store.append(f"s{number % 3}", [f"alpha {number}"])
        assert [receipt.exception(5) for receipt in receipts] == [None] * 40
        assert True in full
        agrees(store)


# --- switching ----------------------------------------------------------------------------


def test_it_is_switched_while_the_store_is_open(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["alpha"])
        store.configure(full_text=True)
        agrees(store)
        store.append("s1", ["alpha beta"])
        agrees(store)
        assert text_db(folder).exists()
        store.configure(full_text=False)
        with pytest.raises(InvalidQuery):
            store.search(text="alpha")
        wait_until(lambda: not list(text_db(folder).parent.glob("text.db*")))
        store.append("s1", ["gamma"])
        store.configure(full_text=True)
        agrees(store)
    with SessionStore.open(folder, watch=False) as store:
        assert store.config.full_text, "it is kept with the store"
        agrees(store)
    with SessionStore.open(folder, watch=False, full_text=False) as store:
        wait_until(lambda: not text_db(folder).exists())


def test_nothing_is_written_while_persistence_is_off(
    folder: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "COLLECT", 1000.0)  # nobody looks who is not told to

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in text_db(folder).parent.glob("text.db*")}

    with SessionStore.open(folder, watch=False, full_text=True) as store:
        store.save_session("s1", ["alpha"])
        agrees(store)
        store.enable_persistence(enabled=False)
        before = content()
        store.append("s1", ["alpha beta"])
        store.save_session("s2", ["gamma"])
        agrees(store)
        store.configure(full_text=False)
        with pytest.raises(InvalidQuery):
            store.search(text="alpha")
        store.configure(full_text=True)
        agrees(store)
        assert content() == before
        store.enable_persistence(enabled=True)
        agrees(store)
        assert texts_of(store).is_current()
        assert content() != before


def test_a_short_life_with_it_switched_off_removes_it(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        store.save_session("s1", ["alpha"])
        agrees(store)
    monkeypatch.setattr(TextIndexing, "step", lambda _: False)
    SessionStore.open(folder, watch=False).close()
    assert not text_db(folder).exists()


# --- damage and death ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["text.db", "text.db-wal", "all", "a folder"])
def test_it_can_be_deleted_at_any_time(what: str, folder: Path) -> None:
    private = folder / ".sessionkeeper"
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        for number in range(5):
            store.save_session(f"s{number}", ["alpha"])
        agrees(store)
        for path in private.glob("text.db*"):
            if what in (path.name, "all", "a folder"):
                path.unlink()
        if what == "a folder":
            (private / "text.db").mkdir()
            (private / "text.db").rmdir()
        store.save_session("s5", ["alpha beta"])
        agrees(store)
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        agrees(store)


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_noticed_told_and_made_good(seed: int, folder: Path) -> None:
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        for number in range(30):
            store.save_session(f"s{number}", [TEXTS[number % 6], TEXTS[number % 5]])
        agrees(store)
    rng = random.Random(seed)
    data = bytearray(text_db(folder).read_bytes())
    for _ in range(40):
        data[rng.randrange(100, len(data))] ^= 1 << rng.randrange(8)
    text_db(folder).write_bytes(data)
    with SessionStore.open(folder, watch=False, full_text=True) as store, EventLog(store):
        agrees(store)
        store.append("s3", ["alpha"])
        agrees(store)


def test_damage_while_it_is_used_is_noticed_by_the_query(searched: SessionStore) -> None:
    log = EventLog(searched)
    searched.save_session("s1", ["alpha"])
    agrees(searched)
    writer = texts_of(searched).index._open_writer()
    writer.execute("UPDATE sessions SET lsn = lsn + 1")
    assert ids(searched.search(text="alpha")) == ["s1"]
    assert "text index" in log.wait_for("damaged")[0].detail
    agrees(searched)


def test_what_was_read_while_it_was_given_up_is_no_answer(searched: SessionStore) -> None:
    searched.save_session("s1", ["alpha"])
    agrees(searched)
    read: list[FullText] = []

    def query(index: FullText) -> int:
        read.append(index)
        if len(read) == 1:
            texts_of(searched).give_up()
        return len(read)

    assert texts_of(searched).ask(query) == 2


def test_a_crash_of_the_actor_changes_nothing(searched: SessionStore) -> None:
    searched.save_session("s1", ["alpha"])
    crash_actor(searched)
    searched.append("s1", ["alpha beta"])
    agrees(searched)


def test_a_crash_of_the_writer_loses_nothing(
    searched: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched.save_session("s1", ["alpha"])
    agrees(searched)
    step = TextIndexing.step

    def crash(_: TextIndexing) -> bool:
        monkeypatch.setattr(TextIndexing, "step", step)
        raise RuntimeError("on purpose")

    monkeypatch.setattr(TextIndexing, "step", crash)
    searched.append("s1", ["beta gamma alpha"])
    agrees(searched)
    (writer,) = [process for process in searched.processes() if process.name == "texts"]
    assert writer.restarts == 1


def test_a_session_that_cannot_be_read_is_no_trouble_for_others(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, max_backups=0) as store:
        store.save_session("bad", ["alpha"])
        store.save_session("good", ["alpha"])
    path = folder / "bad.json"
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"alpha", b"alpho"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with SessionStore.open(folder, watch=False, full_text=True, max_backups=0) as store:
        wait_until(lambda: ids(store.search(text="alpha")) == ["good"])
        store.save_session("bad", ["alpha"])
        assert ids(store.search(text="alpha")) == ["bad", "good"]


def test_a_hand_edit_is_found(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, full_text=True) as store, EventLog(store) as log:
        store.save_session("s1", ["alpha"])
        agrees(store)
        text = (folder / "s1.json").read_text()
        (folder / "s1.json").write_text(text.replace("alpha", "gamma"))
        store._tree._suspect("s1")  # type: ignore[union-attr]
        log.wait_for("adopted")
        store.flush()
        assert ids(store.search(text="gamma")) == ["s1"]
        agrees(store)


def test_a_hand_edit_behind_an_append_is_found_whole(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both come before anybody looks, so they are entered as one."""
    monkeypatch.setattr(writer_module, "COLLECT", 1000.0)
    with SessionStore.open(folder, watch=False, full_text=True) as store, EventLog(store) as log:
        store.save_session("s1", ["alpha"])
        agrees(store)
        store.append("s1", ["beta"])
        store.checkpoint()
        text = (folder / "s1.json").read_text()
        (folder / "s1.json").write_text(text.replace("beta", "gamma"))
        store._tree._suspect("s1")  # type: ignore[union-attr]
        log.wait_for("adopted")
        store.flush()
        agrees(store)
        assert len(store.search_messages("gamma")) == 1


def test_a_row_of_another_life_of_the_folder_is_not_believed(folder: Path, tmp_path: Path) -> None:
    """Numbers begin anew in a folder of which only the text index was kept."""
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        store.save_session("s1", ["alpha"])
        lsn = store.get_recent(1)[0].lsn
        agrees(store)
    kept = shutil.copyfile(text_db(folder), tmp_path / "kept.db")
    shutil.rmtree(folder)
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["gamma"])
        assert store.get_recent(1)[0].lsn == lsn
    shutil.copyfile(kept, text_db(folder))
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        agrees(store)


WORK = """
import sys
from sessionkeeper import SessionStore
store = SessionStore.open(sys.argv[1], full_text=True, watch=False)
print("open", flush=True)
number = 0
while True:
    number += 1
    store.append(f"s{number % 5}", [("alpha ", "beta gamma alpha ", "alps ")[number % 3]])
    if number % 7 == 0:
        store.save_session(f"s{number % 4}", ["alpha beta"] * (number % 6))
    if number % 11 == 0:
        store.search(text="alpha")
    if number % 50 == 0:
        print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_after_a_kill_it_finds_what_there_is(lines: int, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        for _ in range(lines):
            assert worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
    with SessionStore.open(folder, watch=False, full_text=True, call_timeout=30.0) as store:
        agrees(store)


# --- closing ------------------------------------------------------------------------------


def test_closing_does_not_wait_for_a_long_check(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        for number in range(5):
            store.save_session(f"s{number}", ["alpha"])
        agrees(store)
    inside = threading.Event()
    interrupted: list[bool] = []
    interrupt: Callable[[FullText], None] = FullText.interrupt

    def noted(index: FullText) -> None:
        interrupted.append(index._long is not None)
        interrupt(index)

    check = FullText.check

    def long_check(index: FullText) -> None:
        def progress() -> int:
            inside.set()
            wait_until(lambda: interrupted)
            return 0

        index._open_writer().set_progress_handler(progress, 100)
        check(index)

    monkeypatch.setattr(FullText, "interrupt", noted)
    monkeypatch.setattr(FullText, "check", long_check)
    store = SessionStore.open(folder, watch=False, full_text=True)
    assert inside.wait(10)
    store.close()
    assert interrupted
    monkeypatch.undo()
    with SessionStore.open(folder, watch=False, full_text=True) as store:
        agrees(store)
    assert not list(text_db(folder).parent.glob("text.db-*"))
