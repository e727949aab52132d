"""Namespaces: the same ids beside each other, in every layout, and never in each other's way."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest

from sessionkeeper import (
    Conflict,
    CountSessions,
    InvalidNamespace,
    InvalidSessionId,
    NoBackup,
    PathBlocked,
    SaveSession,
    SessionExists,
    SessionManager,
    SessionNotFound,
    SessionStore,
    StoreReadOnly,
    ValidationFailed,
    check_store,
)
from sessionkeeper.engine.query import Query
from sessionkeeper.session import ACTIVE
from sessionkeeper.testing import EventLog, FakeClock, Injected, crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionkeeper import SessionScope
    from sessionkeeper.config import Durability
    from sessionkeeper.layout import LayoutName

Kind = tuple[Literal["flat", "rooted", "single"], Literal["journal", "file", "os", "memory"]]

ON_DISK: list[Kind] = [
    ("flat", "journal"),
    ("flat", "file"),
    ("flat", "os"),
    ("rooted", "journal"),
    ("single", "file"),
]
KINDS: list[Kind] = [*ON_DISK, ("flat", "memory")]
EVERY = pytest.mark.parametrize("kind", KINDS, ids="-".join)
LASTING = pytest.mark.parametrize("kind", ON_DISK, ids="-".join)
IN_FILES = pytest.mark.parametrize("kind", ON_DISK[:4], ids="-".join)


def opened(folder: Path, kind: Kind = ("flat", "journal"), **settings: Any) -> SessionStore:
    layout: LayoutName = kind[0]
    durability: Durability = kind[1]
    given = {"watch": False, "layout": layout, "durability": durability, **settings}
    return SessionStore.open(folder, **given)


def sessions_in(folder: Path) -> Path:
    return folder / "sessions" if (folder / "sessions").is_dir() else folder


def contents(view: SessionStore | SessionScope) -> dict[str, Any]:
    return {session.session_id: session.messages for session in view.load_all()}


# --- what a scope shows -----------------------------------------------------------------------


@EVERY
def test_the_same_id_is_another_session_in_each_namespace(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        views = [store, store.scope("team-a"), store.scope("team_b")]
        for number, view in enumerate(views):
            assert view.create_session("s1", [number], tags=["t"]).generation == 1
            view.append("s1", [number, number])
        for number, view in enumerate(views):
            name = ["", "team-a", "team_b"][number]
            session = view.load_session("s1")
            assert session.messages == [number] * 3
            assert (session.session_id, session.info.namespace) == ("s1", name)
            assert "s1" in view
            assert len(view) == 1
            for page in (view.list_sessions(), view.search(tags=["t"]), view.get_recent()):
                assert [(info.session_id, info.namespace) for info in page] == [("s1", name)]
            assert [info.namespace for info in view.iter_sessions()] == [name]
            assert view.ask(CountSessions()) == 1
        assert store.namespaces() == ["team-a", "team_b"]
        assert store.info().sessions == 3


@EVERY
def test_no_operation_in_one_namespace_touches_another(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        mine, others = store.scope("mine"), [store, store.scope("other")]
        for view in (mine, *others):
            for name in ("s1", "s2", "s3"):
                view.save_session(name, [name], state=1, tags=["before"])
                view.save_session(name, [name], state=2, tags=["before"])
        before = [[(s.info, s.messages, s.state) for s in view.load_all()] for view in others]
        backups = [view.backups("s1") for view in others]

        mine.save_session("s1", ["changed"], expected_generation=2)
        mine.update("s1", lambda session: session.replace(state={"step": 1}))
        mine.add_tags("s1", ["more"])
        mine.remove_tags("s1", ["before"])
        mine.pin("s1")
        mine.annotate("s1", "noted")
        mine.add_event("s1", "happened")
        assert mine.fork_session("s1", "fork").namespace == "mine"
        assert mine.load_session("fork").info.metadata["forked_from"] == "s1"
        assert mine.rename_session("s2", "renamed").session_id == "renamed"
        assert "s2" not in mine
        mine.rewind("renamed", message=0)
        assert mine.delete_session("s3")
        assert not mine.delete_session("s3")
        assert mine.undelete_session("s3").generation == 3
        assert mine.erase_session("s3").namespace == "mine"
        assert sorted(contents(mine)) == ["fork", "renamed", "s1"]
        assert mine.clear() == 3
        assert contents(mine) == {}

        assert [[(s.info, s.messages, s.state) for s in v.load_all()] for v in others] == before
        if kind[0] != "single":  # there all sessions share the versions that are kept
            assert [view.backups("s1") for view in others] == backups
        with pytest.raises(SessionNotFound):
            others[0].undelete_session("renamed")
        assert store.namespaces() == ["other"]


@LASTING
def test_a_store_that_is_opened_again_has_them_all(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        for view in (store, store.scope("a"), store.scope("b")):
            view.save_session("s1", [1])
            view.append("s1", [2])
            view.save_session("x:é", ["encoded"])
            view.save_session("long" * 200, ["hashed"])
    for read_only in (True, False):
        with opened(folder, kind, read_only=read_only) as store:
            assert store.last_recovery.problems == []
            assert store.namespaces() == ["a", "b"]
            for view in (store, store.scope("a"), store.scope("b")):
                assert contents(view) == {
                    "s1": [1, 2],
                    "x:é": ["encoded"],
                    "long" * 200: ["hashed"],
                }
    assert list(check_store(folder)) == []


@LASTING
def test_nothing_is_lost_in_a_crash_of_the_actor(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        scope = store.scope("a")
        scope.save_session("s1", [0])
        receipts = []
        for number in range(1, 40):
            receipts.append(scope.tell(SaveSession("s1", [number])))
            store.append("s1", [number])
            if number % 13 == 0:
                crash_actor(store)
        assert [receipt.result(5).namespace for receipt in receipts] == ["a"] * 39
        assert scope.load_session("s1").generation == 40
        assert store.load_session("s1").messages == list(range(1, 40))
        assert store.last_recovery.problems == []


def test_a_removal_and_a_new_session_of_its_name_keep_apart(folder: Path) -> None:
    with opened(folder) as store:
        scope = store.scope("a")
        store.save_session("s1", ["default"])
        scope.save_session("s1", ["first"])
        scope.append("s1", ["more"])
        scope.delete_session("s1")
        scope.save_session("s1", ["second"])
        scope.delete_session("s1")
        crash_actor(store)
        assert "s1" not in scope
        assert scope.undelete_session("s1").namespace == "a"
        assert contents(scope) == {"s1": ["second"]}
        assert contents(store) == {"s1": ["default"]}


# --- on the disk ------------------------------------------------------------------------------


@IN_FILES
def test_a_namespace_is_a_folder_of_documents(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        store.scope("team-a").save_session("s1", [1])
        store.scope("team-a").save_session("s1", [2])
        store.scope("team-a").save_session("gone", [3])
        store.scope("team-a").delete_session("gone")
        path = sessions_in(folder) / "team-a" / "s1.json"
        first = path.read_bytes().split(b"\n")[0]
        assert b'"session_id":"s1","namespace":"team-a",' in first
        assert path.parent.stat().st_mode & 0o777 == 0o700
        (backup,) = store.scope("team-a").backups("s1")
        assert backup.path.parent.name == "team-a@s1"
        assert (backup.session_id, backup.namespace) == ("s1", "team-a")
        (removal,) = (folder / ".sessionkeeper" / "trash").iterdir()
        assert removal.name.endswith("-team-a@gone")
        manifest = json.loads((removal / "removal.json").read_bytes())
        assert (manifest["session_id"], manifest["namespace"]) == ("gone", "team-a")
        assert store.stats().session_count == 1
        assert store.scope("team-a").restore("s1").namespace == "team-a"
        assert contents(store.scope("team-a")) == {"s1": [1]}


def test_a_session_named_like_a_namespace_has_backups_of_its_own(folder: Path) -> None:
    with opened(folder) as store:
        scope = store.scope("team")
        for turn in range(3):
            store.save_session("team", [turn])
            scope.save_session("team", [turn])
        store.delete_session("team")
        assert [info.generation for info in scope.backups("team")] == [2, 1]
        assert contents(scope) == {"team": [2]}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a.b",
        ".hidden",
        "a/b",
        "../outside",
        "a\\b",
        "-a",
        "a b",
        " a",
        "a\n",
        "a\0",
        "\x1b[31m",
        "é",
        "\uff41",
        "a@b",
        "a%20",
        "a~b",
        "CON",
        "nul",
        "x" * 65,
        "\ud800",
    ],
)
def test_a_name_that_is_not_safe_everywhere_is_refused(
    store: SessionStore,
    folder: Path,
    name: str,
) -> None:
    before = sorted((*folder.parent.iterdir(), *folder.iterdir()))
    with pytest.raises(InvalidNamespace) as caught:
        store.scope(name)
    assert caught.value.namespace == name[:80]
    assert sorted((*folder.parent.iterdir(), *folder.iterdir())) == before


@pytest.mark.parametrize("name", [None, 7, b"team", ["team"]])
def test_a_name_that_is_no_text_is_refused(store: SessionStore, name: Any) -> None:
    with pytest.raises(TypeError):
        store.scope(name)


def test_a_name_that_lies_is_taken_by_its_characters(store: SessionStore) -> None:
    class Liar(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "../outside"

        def __format__(self, spec: str) -> str:
            return "../outside"

    assert store.scope(Liar("team")).save_session("s1", []).namespace == "team"
    assert store.namespaces() == ["team"]


def test_an_id_leads_out_of_no_namespace(store: SessionStore) -> None:
    scope = store.scope("team")
    for name in ("other/s1", "../s1", "a/../s1"):
        with pytest.raises(InvalidSessionId) as caught:
            scope.save_session(name, [])
        assert caught.value.session_id == name
        for view in (store, scope):
            with pytest.raises(InvalidSessionId):
                view.load_session(name)
            with pytest.raises(InvalidSessionId):
                assert name in view


@EVERY
def test_the_second_of_two_names_that_differ_in_capitals_is_refused(
    folder: Path,
    kind: Kind,
) -> None:
    with opened(folder, kind) as store:
        store.scope("Team").save_session("s1", [1])
        with pytest.raises(InvalidNamespace, match="capitals"):
            store.scope("team").save_session("s1", [2])
        with pytest.raises(InvalidNamespace, match="capitals"):
            store.scope("TEAM").append("s2", [2])
        store.scope("Team").save_session("s2", [1])
        assert store.namespaces() == ["Team"]
        store.scope("Team").clear()
        assert store.scope("team").save_session("s1", [2]).generation == 1


@IN_FILES
@pytest.mark.parametrize("what", ["file", "link", "broken link"])
def test_what_stands_in_the_place_of_its_folder_is_left_alone(
    folder: Path,
    tmp_path: Path,
    kind: Kind,
    what: str,
) -> None:
    with opened(folder, kind) as store:
        place = sessions_in(folder) / "team"
        outside = tmp_path / "outside"
        if what == "link":
            outside.mkdir()
        if what == "file":
            place.write_bytes(b"mine")
        else:
            place.symlink_to(outside)
        with pytest.raises(PathBlocked) as caught:
            store.scope("team").save_session("s1", [1])
        assert (caught.value.session_id, caught.value.namespace) == ("s1", "team")
        assert caught.value.path == place
        store.save_session("s1", [2])
        assert not outside.exists() or list(outside.iterdir()) == []
        if what == "file":
            assert place.read_bytes() == b"mine"
        place.unlink()
        assert store.scope("team").save_session("s1", [3]).generation == 1


# --- by hand ----------------------------------------------------------------------------------


@pytest.fixture
def watched(folder: Path) -> Any:
    with SessionStore.open(folder) as opened_store:
        yield opened_store


def test_a_hand_edit_in_a_namespace_shows(watched: SessionStore, folder: Path) -> None:
    scope = watched.scope("team")
    scope.save_session("s1", ["before"])
    watched.save_session("s1", ["default"])
    path = folder / "team" / "s1.json"
    path.write_bytes(path.read_bytes().replace(b"before", b"by hand"))
    wait_until(lambda: scope.load_session("s1").messages == ["by hand"])
    assert scope.load_session("s1").generation == 2
    assert watched.load_session("s1").messages == ["default"]
    path.unlink()
    wait_until(lambda: "s1" not in scope)
    assert "s1" in watched


def test_a_new_folder_with_sessions_shows(watched: SessionStore, folder: Path) -> None:
    document = {"format": "sessionkeeper", "version": 1, "session_id": "s1", "messages": [1]}
    (folder / "made").mkdir()
    (folder / "made" / "s1.json").write_text(json.dumps(document))
    wait_until(lambda: watched.namespaces() == ["made"])
    assert contents(watched.scope("made")) == {"s1": [1]}
    # From now on its folder is watched.
    (folder / "made" / "s2.json").write_text(json.dumps({**document, "session_id": "s2"}))
    wait_until(lambda: "s2" in watched.scope("made"))


def test_a_folder_that_is_renamed_is_another_namespace(watched: SessionStore, folder: Path) -> None:
    before = watched.scope("before")
    for name in ("s1", "s2"):
        before.save_session(name, [name])
    watched.checkpoint()
    (folder / "before").rename(folder / "after")
    wait_until(lambda: watched.namespaces() == ["after"])
    wait_until(lambda: len(watched.scope("after")) == 2)
    assert contents(watched.scope("after")) == {"s1": ["s1"], "s2": ["s2"]}
    assert not list((folder / ".sessionkeeper" / "quarantine").iterdir())
    before.save_session("s1", ["anew"])
    assert contents(before) == {"s1": ["anew"]}


@IN_FILES
def test_a_file_copied_to_another_namespace_is_a_session_there(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        store.save_session("s1", ["default"])
        store.scope("a").save_session("s1", ["a"])
        store.scope("b").save_session("s2", ["b"])
    root = sessions_in(folder)
    (root / "b" / "s1.json").write_bytes((root / "s1.json").read_bytes())
    (root / "s2.json").write_bytes((root / "b" / "s2.json").read_bytes())
    with opened(folder, kind, read_only=True) as store:
        assert contents(store.scope("b")) == {"s1": ["default"], "s2": ["b"]}
        assert contents(store) == {"s1": ["default"], "s2": ["b"]}
    with opened(folder, kind) as store:
        assert [p.kind for p in store.last_recovery.problems] == ["adopted", "adopted"]
        assert contents(store.scope("b")) == {"s1": ["default"], "s2": ["b"]}
        assert contents(store) == {"s1": ["default"], "s2": ["b"]}
        assert contents(store.scope("a")) == {"s1": ["a"]}
    with opened(folder, kind) as store:
        assert store.last_recovery.problems == []
    assert b'"namespace":"b"' in (root / "b" / "s1.json").read_bytes()


@IN_FILES
def test_a_damaged_file_is_quarantined_and_healed(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store:
        for turn in range(2):
            store.scope("a").save_session("s1", [turn])
            store.save_session("s1", ["default"])
    root = sessions_in(folder)
    (root / "a" / "s1.json").write_bytes(b"\0" * 300)
    with opened(folder, kind, read_only=True) as store:
        assert [problem.kind for problem in store.last_recovery.problems] == ["corrupt"]
    with opened(folder, kind) as store:
        kinds = {p.kind: p.session_id for p in store.last_recovery.problems}
        assert kinds["healed"] == "a/s1"
        assert contents(store.scope("a")) == {"s1": [0]}
        assert contents(store) == {"s1": ["default"]}
        (note,) = (folder / ".sessionkeeper" / "quarantine").glob("*.why.json")
        assert json.loads(note.read_bytes())["file"] == "a/s1.json"


def test_a_folder_of_another_program_is_left_alone(folder: Path) -> None:
    with opened(folder) as store:
        store.save_session("s1", [1])
        foreign = folder / "node_modules"
        foreign.mkdir()
        files = {"package.json": b'{"name": "other"}', "broken.json": b"{", "x.txt": b"text"}
        for name, content in files.items():
            (foreign / name).write_bytes(content)
        crash_actor(store)
        store.flush()
        assert {p.kind for p in store.last_recovery.problems} == {"foreign"}
        assert store.namespaces() == []
    assert {path.name: path.read_bytes() for path in foreign.iterdir()} == files
    assert [f for f in check_store(folder) if f.severity == "damage"] == []


def test_a_folder_removed_by_hand_comes_back_with_the_next_session(folder: Path) -> None:
    with opened(folder) as store:
        scope = store.scope("team")
        scope.save_session("s1", [1])
        scope.append("s1", [2])
        for path in (folder / "team").iterdir():
            path.unlink()
        (folder / "team").rmdir()
        scope.save_session("s2", [3])
        store.checkpoint()
        assert contents(scope)["s2"] == [3]
        assert (folder / "team" / "s2.json").is_file()


# --- the rest of the store ----------------------------------------------------------------------


@LASTING
def test_an_erasure_leaves_no_byte_of_it_and_every_byte_of_the_others(
    folder: Path,
    kind: Kind,
) -> None:
    with opened(folder, kind) as store:
        for name in ("", "a", "b"):
            view = store.scope(name) if name else store
            for turn in range(3):
                view.save_session("s1", [f"secret of {name or 'default'}", turn])
                view.append("s1", [f"secret of {name or 'default'}"])
            view.delete_session("s1")
            for _ in range(2):
                view.save_session("s1", [f"secret of {name or 'default'}"])
        erased = store.scope("a").erase_session("s1")
        assert (erased.session_id, erased.namespace) == ("s1", "a")
        assert erased.files > 2
        found = [path for path in folder.rglob("*") if path.is_file()]
        assert [p for p in found if b"secret of a" in p.read_bytes()] == []
        assert contents(store) == {"s1": ["secret of default"]}
        assert contents(store.scope("b")) == {"s1": ["secret of b"]}
        for view in (store, store.scope("b")):
            assert view.backups("s1") or kind[0] == "single"
            view.delete_session("s1")
            assert view.undelete_session("s1").generation
        with pytest.raises(NoBackup):
            store.scope("a").restore("s1")


def test_an_erasure_takes_the_temporaries_of_its_session_only(folder: Path) -> None:
    with opened(folder) as store:
        left = folder / ".sessionkeeper" / "tmp"
        for name in ("", "a", "b"):
            view = store.scope(name) if name else store
            view.save_session("s1", [name])
            source = folder / name / "s1.json"
            (left / f"dead-{name}.tmp").write_bytes(source.read_bytes())
        store.scope("a").erase_session("s1")
        assert sorted(path.name for path in left.iterdir()) == ["dead-.tmp", "dead-b.tmp"]
        store.erase_session("s1")
        assert sorted(path.name for path in left.iterdir()) == ["dead-b.tmp"]


@EVERY
def test_retention_goes_over_the_whole_store(folder: Path, kind: Kind) -> None:
    with opened(folder, kind, max_sessions=2) as store, EventLog(store) as log:
        for name in ("a", "b", "c"):
            store.scope(name).save_session("s1", [name])
        log.wait_for("trashed")
        store.flush()
        assert store.namespaces() == ["b", "c"]
        (event,) = log.of_kind("trashed")
        assert (event.session_id, event.namespace) == ("s1", "a")
        assert store.cleanup(dry_run=True) == []


def test_old_sessions_of_all_namespaces_go(folder: Path, clock: FakeClock) -> None:
    with opened(folder, retention_days=1, inject=Injected(clock=clock)) as store:
        store.scope("a").save_session("s1", [])
        store.save_session("s1", [])
        clock.advance(60)
        store.scope("b").save_session("s1", [])
        removals = store.cleanup(dry_run=True)
        assert removals == []
        with pytest.raises(AttributeError):
            store.scope("a").cleanup()  # type: ignore[attr-defined]


def test_errors_name_the_namespace(store: SessionStore) -> None:
    scope = store.scope("team")
    scope.save_session("s1", [])
    with pytest.raises(SessionNotFound, match=r"'s2' of namespace 'team'") as missing:
        scope.load_session("s2")
    with pytest.raises(SessionExists, match="'s1' of namespace 'team'") as exists:
        scope.create_session("s1")
    with pytest.raises(Conflict) as conflict:
        scope.save_session("s1", [], expected_generation=7)
    for caught, name in ((missing, "s2"), (exists, "s1"), (conflict, "s1")):
        assert (caught.value.session_id, caught.value.namespace) == (name, "team")
    with pytest.raises(SessionNotFound, match="no session 's2' ") as default:
        store.load_session("s2")
    assert default.value.namespace == ""


def test_events_and_changes_name_the_namespace_and_a_scope_hears_of_its_own(
    store: SessionStore,
) -> None:
    scope = store.scope("team")
    heard: list[tuple[str | None, str]] = []
    stop = scope.subscribe(lambda event: heard.append((event.session_id, event.namespace)))
    with EventLog(store) as log, scope.watch() as watch, store.watch() as default:
        store.save_session("s1", [])
        scope.save_session("s1", [])
        scope.save_session("s2", [])
        store.flush()
        first = watch.next(5)
        assert first is not None
        assert (first.session_id, first.namespace) == ("s1", "team")
        assert first.info is not None
        assert first.info.namespace == "team"
        second = watch.next(5)
        assert second is not None
        assert second.session_id == "s2"
        assert watch.take() is None
        change = default.next(5)
        assert change is not None
        assert (change.session_id, change.namespace) == ("s1", "")
        assert default.take() is None
        saved = [(event.session_id, event.namespace) for event in log.of_kind("saved")]
    assert saved == [("s1", ""), ("s1", "team"), ("s2", "team")]
    assert heard == [("s1", "team"), ("s2", "team")]
    stop()
    with scope.watch("s1") as one:
        scope.save_session("s2", [])
        store.save_session("s1", [])
        scope.save_session("s1", [])
        store.flush()
        change = one.next(5)
        assert change is not None
        assert change.info is not None
        assert change.info.generation == 2
        assert one.take() is None


def test_pages_of_a_namespace_follow_each_other(store: SessionStore) -> None:
    for number in range(30):
        store.scope(f"n{number % 3}").save_session(f"s{number:02}", [], tags=["t"])
        store.save_session(f"s{number:02}", [])
    scope = store.scope("n1")
    expected = [f"s{number:02}" for number in range(28, 0, -3)]
    for find in (scope.list_sessions, lambda **page: scope.search(tags=["t"], **page)):
        found: list[str] = []
        cursor = None
        while True:
            page = find(limit=4, cursor=cursor)
            found += [info.session_id for info in page]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == expected
    assert [info.session_id for info in scope.iter_sessions()] == sorted(expected)
    # The index finds them by itself; if it did not, the records in memory would be asked.
    catalog = store._view._catalog
    assert catalog is not None
    records = catalog.page(Query.of(namespace="n1"), None, 4)
    assert records is not None
    assert [record.session_id for record in records] == [f"n1/{name}" for name in expected[:4]]


def test_the_index_and_the_records_give_the_same(folder: Path) -> None:
    """Whoever is asked: what SQLite answers, and what is answered while it cannot be used."""
    with opened(folder) as store:
        for name in ("a", "ab", "b"):
            for number in range(5):
                store.scope(name).save_session(f"s{number}", [], tags=[f"t{number % 2}"])
            store.save_session(name, [], tags=["t1"])
        views = [store, *(store.scope(name) for name in ("a", "ab", "b", "none"))]

        def answers() -> list[Any]:
            return [
                (list(v.list_sessions()), list(v.search(tags=["t1"])), list(v.iter_sessions()))
                for v in views
            ]

        by_index = answers()
        catalog = store._view._catalog
        assert catalog is not None
        store._view._catalog = None
        assert answers() == by_index
        store._view._catalog = catalog


def test_closing_a_scope_closes_nothing_and_the_store_closes_it(folder: Path) -> None:
    store = opened(folder)
    with store.scope("team") as scope:
        scope.save_session("s1", [1])
    scope.close()
    assert scope.append("s1", [2]).message_count == 2
    assert scope.path == store.path
    assert "team" in repr(scope)
    with pytest.raises(AttributeError):
        scope.scope("nested")  # type: ignore[attr-defined]
    store.close()
    with pytest.raises(Exception, match="closed"):
        scope.load_session("s1")
    with pytest.raises(Exception, match="closed"):
        scope.watch()


def test_a_store_open_for_reading_has_scopes(folder: Path) -> None:
    with opened(folder) as store:
        store.scope("team").save_session("s1", [1])
        with opened(folder, read_only=True) as reader:
            scope = reader.scope("team")
            assert contents(scope) == {"s1": [1]}
            assert reader.namespaces() == ["team"]
            with pytest.raises(StoreReadOnly):
                scope.save_session("s1", [2])
            with pytest.raises(StoreReadOnly):
                scope.watch()


def test_validators_and_conversions_hold_in_a_scope(folder: Path) -> None:
    hidden: Callable[[Any], Any] = lambda m: {**m, "text": m["text"].replace("1234", "…")}  # noqa: E731
    with opened(folder, validators=["description"], on_write=[hidden]) as store:
        scope = store.scope("team")
        with pytest.raises(ValidationFailed, match="'s1' of namespace 'team'"):
            scope.save_session("s1", [])
        scope.save_session("s1", [{"text": "pin 1234"}], title="Title")
        scope.append("s1", [{"text": "1234"}])
        assert scope.load_session("s1").messages == [{"text": "pin …"}, {"text": "…"}]
        assert scope.validate_session("s1") == []


def test_a_manager_works_on_a_scope(folder: Path) -> None:
    store = opened(folder)
    manager = SessionManager(store.scope("team"))
    session_id = manager.start_session("Something")
    manager.append([{"role": "user"}])
    manager.force_save()
    assert store.scope("team").load_session(session_id).status == ACTIVE
    assert len(store) == 0
    crash_actor(store)
    manager.annotate("after the crash")
    assert manager.stop_session().info.namespace == "team"
    store.close()


def test_sessions_left_unfinished_are_those_of_the_namespace(folder: Path) -> None:
    with opened(folder) as store:
        store.scope("team").save_session("s1", [], status="interrupted")
        store.save_session("s2", [], status="interrupted")
        assert [i.session_id for i in store.scope("team").interrupted_sessions()] == ["s1"]
        assert store.scope("team").resume("s1").status == ACTIVE
        assert [i.session_id for i in store.interrupted_sessions()] == ["s2"]


def test_large_messages_are_staged_for_their_namespace(folder: Path) -> None:
    messages = ["x" * 50_000] * 4
    with opened(folder) as store:
        store.scope("team").save_session("s1", messages)
        store.scope("team").append("s1", ["more"])
    with opened(folder) as store:
        assert store.scope("team").load_session("s1").messages == [*messages, "more"]
        assert b'"namespace":"team"' in (folder / "team" / "s1.json").read_bytes()[:200]


def test_the_index_json_names_the_namespace(folder: Path) -> None:
    with opened(folder, index_json=True) as store:
        store.scope("team").save_session("s1", [])
        store.save_session("s1", [])
    listed = orjson.loads((folder / ".sessionkeeper" / "index.json").read_bytes())["sessions"]
    assert sorted((one["namespace"], one["session_id"]) for one in listed) == [
        ("", "s1"),
        ("team", "s1"),
    ]


def test_a_fallen_over_name_of_many_threads_is_one_namespace(folder: Path) -> None:
    with opened(folder) as store:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(20):
                    store.scope(f"n{number % 2}").append("shared", [turn])
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [len(store.scope(f"n{n}").load_session("shared").messages) for n in (0, 1)] == [
            80,
            80,
        ]
