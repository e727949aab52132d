"""`--namespace`: which sessions of a store a command works on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.cli import following
from sessionkeeper.transfer import export_bundle, export_session, import_bundle, import_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


@pytest.fixture
def shared(folder: Path) -> Path:
    """A store with the id `s1` in three namespaces, and one more session in each."""
    with SessionStore.open(folder, watch=False) as store:
        for name in ("", "team-a", "team-b"):
            view = store.scope(name) if name else store
            view.save_session("s1", [{"role": "user", "content": f"of {name or 'default'}"}])
            view.append("s1", ["more"])
            view.save_session(f"own{name}", [], tags=["t"])
    return folder


def lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("name", ["", "team-a"])
def test_reading_commands_show_one_namespace(run: Run, shared: Path, name: str) -> None:
    which = ["--namespace", name] if name else []
    listed = lines(run("--path", shared, "list", "--json", *which))
    assert [(i["session_id"], i["namespace"]) for i in listed] == [
        (f"own{name}", name),
        ("s1", name),
    ]
    found = lines(run("--path", shared, "search", "--tag", "t", "--json", *which))
    assert [i["session_id"] for i in found] == [f"own{name}"]
    (shown,) = lines(run("--path", shared, "show", "s1", "--json", *which))
    assert shown["messages"][0]["content"] == f"of {name or 'default'}"
    followed = run("--path", shared, "tail", "s1", "--no-follow", *which)
    assert f"of {name or 'default'}" in followed.stdout


def test_changing_commands_change_one_namespace(run: Run, shared: Path) -> None:
    def changed(*words: str) -> None:
        result = run("--path", shared, *words, "--namespace", "team-a")
        assert result.exit_code == 0, result.stderr

    changed("tag", "s1", "--add", "new")
    changed("pin", "s1")
    changed("delete", "own" + "team-a")
    changed("undelete", "own" + "team-a")
    changed("restore", "s1")
    changed("erase", "s1", "--yes")
    with SessionStore.open(shared, watch=False) as store:
        assert [i.session_id for i in store.scope("team-a").iter_sessions()] == ["ownteam-a"]
        for view in (store, store.scope("team-b")):
            session = view.load_session("s1")
            assert (session.generation, session.tags, session.info.pinned) == (2, (), False)


def test_export_takes_one_namespace_and_import_brings_it_into_another(
    run: Run,
    shared: Path,
    tmp_path: Path,
) -> None:
    bundle, document = tmp_path / "team.tar.gz", tmp_path / "s1.json"
    assert (
        run("--path", shared, "export", "--all", "-o", bundle, "--namespace", "team-a").exit_code
        == 0
    )
    assert (
        run("--path", shared, "export", "s1", "-o", document, "--namespace", "team-b").exit_code
        == 0
    )
    assert json.loads(document.read_bytes())["namespace"] == "team-b"
    for file in (bundle, document):
        words = ["import", file, "--namespace", "new", "--on-conflict", "rename"]
        assert run("--path", shared, *words).exit_code == 0
    with SessionStore.open(shared, watch=False) as store:
        texts = {s.session_id: s.messages for s in store.scope("new").load_all()}
        assert texts["s1"][0]["content"] == "of team-a"
        assert texts["s1-2"][0]["content"] == "of team-b"
        assert store.load_session("s1").generation == 2
        assert "ownteam-a" not in store


def test_an_import_that_fails_takes_back_what_it_stored_in_its_namespace_only(
    shared: Path,
    tmp_path: Path,
) -> None:
    with SessionStore.open(shared, watch=False) as store:
        scope = store.scope("team-a")
        path = tmp_path / "all.tar.gz"
        export_bundle(scope, path)
        before = {s.session_id: s.messages for s in store.load_all()}
        scope.save_session("s1", ["changed"])
        imported = import_bundle(scope, path, on_conflict="replace")
        assert imported.replaced == 2
        assert scope.load_session("s1").messages[-1] == "more"
        assert {s.session_id: s.messages for s in store.load_all()} == before
        export_session(scope, "s1", tmp_path / "s1.json")
        scope.save_session("s1", ["mine"])
        store.save_session("s1", ["the default one"])

        def stop(done: int, _total: int) -> None:
            if done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_bundle(scope, path, on_conflict="replace", progress=stop)
        assert scope.load_session("s1").messages == ["mine"]
        assert store.load_session("s1").messages == ["the default one"]
        assert import_session(store.scope("other"), tmp_path / "s1.json") == "s1"


def test_a_name_that_is_none_is_refused(run: Run, shared: Path) -> None:
    result = run("--path", shared, "list", "--namespace", "../outside")
    assert result.exit_code != 0
    assert "cannot name a namespace" in result.stderr


def test_the_whole_store_is_counted_and_cleaned(run: Run, shared: Path) -> None:
    (stats,) = lines(run("--path", shared, "stats", "--json"))
    assert (stats["sessions"], stats["storage"]["session_count"]) == (6, 6)
    plan = run("--path", shared, "cleanup", "--dry-run", "--max-sessions", "2")
    rows = [line.split("\t")[:2] for line in plan.stdout.splitlines()]
    assert rows == [
        ["team-b/ownteam-b", "keep"],
        ["team-b/s1", "keep"],
        ["team-a/ownteam-a", "remove"],
        ["team-a/s1", "remove"],
        ["own", "remove"],
        ["s1", "remove"],
    ]
    assert run("--path", shared, "cleanup", "--max-sessions", "2").exit_code == 0
    with SessionStore.open(shared, watch=False) as store:
        assert store.namespaces() == ["team-b"]
        assert len(store) == 0
    assert run("--path", shared, "doctor").exit_code == 0


def test_watching_shows_the_changes_of_one_namespace(
    run: Run,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(shared, watch=False) as store:

        def change(_seconds: float) -> None:
            store.save_session("default", [])
            store.scope("team-a").append("s1", ["again"])

        monkeypatch.setattr(following, "wait", change)
        (seen,) = lines(
            run("--path", shared, "watch", "--count", "1", "--json", "--namespace", "team-a")
        )
    assert (seen["session_id"], seen["change"]) == ("s1", "changed")
    assert seen["info"]["namespace"] == "team-a"
