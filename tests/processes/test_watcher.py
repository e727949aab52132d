"""Files changed by hand while the store is open."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionNotFound, SessionStore
from sessionkeeper.processes.actor import Suspects
from sessionkeeper.storage import inotify
from sessionkeeper.testing import EventLog, FakeClock, Injected, crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["inotify", "watchdog"])
def watched(
    request: pytest.FixtureRequest,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SessionStore]:
    """Where Linux' own notices are, the way of other systems is tried too."""
    if request.param == "watchdog":
        monkeypatch.setattr(inotify, "AVAILABLE", False)
    elif not inotify.AVAILABLE:
        pytest.skip("there is no inotify")
    with SessionStore.open(folder) as opened:
        yield opened


def edit(path: Path, **changes: Any) -> bytes:
    """As an editor does it: in place."""
    data = json.dumps({**json.loads(path.read_bytes()), **changes}, indent=1).encode()
    path.write_bytes(data)
    return data


def test_an_edited_file_shows_as_the_next_generation(watched: SessionStore, folder: Path) -> None:
    watched.save_session("s1", [{"text": "Refund?"}], tags=["old"])
    with EventLog(watched) as log:
        edited = edit(folder / "s1.json", messages=[{"text": "By hand"}], tags=["new"])
        log.wait_for("adopted")
        assert log.of_kind("conflict") == []
    wait_until(lambda: watched.load_session("s1").generation == 2)
    assert watched.load_session("s1").messages == [{"text": "By hand"}]
    assert [info.session_id for info in watched.search(tags=["new"])] == ["s1"]
    assert list(watched.search(tags=["old"])) == []
    copies = list((folder / ".sessionkeeper" / "backups" / "s1").iterdir())
    assert edited in [copy.read_bytes() for copy in copies]
    assert watched.append("s1", [2]).generation == 3


def test_an_added_file_shows(watched: SessionStore, folder: Path, tmp_path: Path) -> None:
    watched.save_session("s1", ["original"])
    text = (folder / "s1.json").read_text().replace('"session_id":"s1"', '"session_id":"copy"')
    aside = tmp_path / "copy.json"
    aside.write_text(text)
    aside.rename(folder / "copy.json")
    wait_until(lambda: "copy" in watched)
    assert watched.load_session("copy").messages == ["original"]


def test_a_removed_file_is_gone_and_comes_back_with_it(
    watched: SessionStore,
    folder: Path,
    tmp_path: Path,
) -> None:
    watched.save_session("s1", ["original"])
    (folder / "s1.json").rename(tmp_path / "aside.json")
    wait_until(lambda: "s1" not in watched)
    (tmp_path / "aside.json").rename(folder / "s1.json")
    wait_until(lambda: "s1" in watched)
    assert watched.load_session("s1").messages == ["original"]


def test_an_older_version_put_back_is_a_new_generation(
    watched: SessionStore,
    folder: Path,
) -> None:
    watched.save_session("s1", ["first"])
    old = (folder / "s1.json").read_bytes()
    watched.save_session("s1", ["second"])
    (folder / "s1.json").write_bytes(old)
    wait_until(lambda: watched.load_session("s1").generation == 3)
    assert watched.load_session("s1").messages == ["first"]


def test_files_of_a_namespace_show_and_go_with_its_folder(
    watched: SessionStore,
    folder: Path,
    tmp_path: Path,
) -> None:
    team = watched.scope("team-a")
    for name in ("s1", "s2"):
        team.save_session(name, ["original"])
    watched.save_session("s1", ["of another"])
    edit(folder / "team-a" / "s1.json", messages=["edited"])
    wait_until(lambda: team.load_session("s1").messages == ["edited"])
    # The first may have been found since its folder was new.
    edit(folder / "team-a" / "s2.json", messages=["edited"])
    wait_until(lambda: team.load_session("s2").messages == ["edited"])
    (folder / "team-a").rename(tmp_path / "aside")
    wait_until(lambda: "s1" not in team)
    wait_until(lambda: "s2" not in team)
    (tmp_path / "aside").rename(folder / "team-a")
    wait_until(lambda: "s2" in team)
    edit(folder / "team-a" / "s2.json", messages=["edited, too"])
    wait_until(lambda: team.load_session("s2").messages == ["edited, too"])
    assert watched.load_session("s1").messages == ["of another"]


def test_a_broken_edit_is_quarantined_whole(watched: SessionStore, folder: Path) -> None:
    for _ in range(2):  # a backup is there when the journal is freed
        watched.save_session("s1", ["original"])
    with EventLog(watched) as log:
        (folder / "s1.json").write_bytes(b'{"format": "sessionkeeper", "messages": [')
        log.wait_for("quarantined")
        healed = log.wait_for("healed")
    assert healed[0].session_id == "s1"
    assert watched.load_session("s1").messages == ["original"], "the version before it is back"
    kept = (folder / ".sessionkeeper" / "quarantine").iterdir()
    assert b'{"format": "sessionkeeper", "messages": [' in [path.read_bytes() for path in kept]


def test_an_edit_in_place_is_not_disturbed_while_it_is_half_done(
    watched: SessionStore,
    folder: Path,
) -> None:
    """An editor truncates the file, and writes it some time later."""
    watched.save_session("s1", ["original"])
    text = (folder / "s1.json").read_bytes()
    edited = text.replace(b"original", b"edited")
    with EventLog(watched) as log, (folder / "s1.json").open("wb") as editor:
        inode = os.fstat(editor.fileno()).st_ino
        for part in (edited[:50], edited[50:150], edited[150:]):
            # The watcher and the actor get to see it empty, and cut.
            watched.save_session("other", [1])
            _looked_at(watched)
            editor.write(part)
            editor.flush()
        log.wait_for("adopted")
        assert log.of_kind("quarantined") == []
    assert watched.load_session("s1").messages == ["edited"]
    copies = list((folder / ".sessionkeeper" / "backups" / "s1").iterdir())
    assert inode in [copy.stat().st_ino for copy in copies]


def _looked_at(store: SessionStore) -> None:
    tree = store._tree
    assert tree is not None
    tree.actor.post(Suspects(("s1.json",)))
    store.flush()


def test_own_writes_are_not_taken_for_edits(watched: SessionStore) -> None:
    with EventLog(watched) as log:
        for number in range(50):
            watched.append(f"s{number % 7}", [number])
        watched.delete_session("s1")
        watched.flush()
        for kind in ("adopted", "conflict", "vanished", "quarantined", "ignored"):
            assert log.of_kind(kind) == []
    assert all(info.generation <= 8 for info in watched.list_sessions())


def test_it_still_watches_after_a_crash(watched: SessionStore, folder: Path) -> None:
    watched.save_session("s1", ["original"])
    crash_actor(watched)
    watched.flush()
    edit(folder / "s1.json", messages=["edited"])
    wait_until(lambda: watched.load_session("s1").messages == ["edited"])


def test_an_edit_during_a_crash_is_found_by_the_recovery(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["original"])
        edit(folder / "s1.json", messages=["edited"])
        crash_actor(store)
        store.flush()
        assert store.load_session("s1").messages == ["edited"]
        assert store.load_session("s1").generation == 2


def test_a_removal_during_a_crash_is_found_by_the_recovery(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["original"])
        (folder / "s1.json").unlink()
        crash_actor(store)
        store.flush()
        with pytest.raises(SessionNotFound):
            store.load_session("s1")


def test_a_reader_that_meets_an_edit_gets_it_also_without_a_watcher(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, cache_bytes=1) as store:
        store.save_session("s1", ["original"])
        edit(folder / "s1.json", messages=["edited"])
        assert store.load_session("s1").messages == ["edited"]


def test_lost_notifications_are_made_up_for_by_comparing(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(folder, reconcile_interval=20, inject=Injected(clock=clock)) as store:
        store.save_session("s1", ["original"])
        # A change that no notification tells of: below the watched folder's own entries.
        watcher = next(child for child in store_children(store) if child.name.endswith("watcher"))
        watcher.stop()
        edit(folder / "s1.json", messages=["edited"])
        clock.advance(21)
        store.flush()
        # The watcher comes back and looks at everything at its next interval.
        wait_until(lambda: watcher.state == "ready")
        clock.advance(21)
        wait_until(lambda: store.load_session("s1").messages == ["edited"])


@pytest.mark.skipif(not inotify.AVAILABLE, reason="there is no inotify")
@pytest.mark.parametrize("refused", ["__init__", "watch"])
def test_a_store_that_is_given_no_notices_compares(
    folder: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: str,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many of them")

    monkeypatch.setattr(inotify.Inotify, refused, refuse)
    with SessionStore.open(folder, reconcile_interval=20, inject=Injected(clock=clock)) as store:
        store.save_session("s1", ["original"])
        edit(folder / "s1.json", messages=["edited"])
        watcher = next(child for child in store_children(store) if child.name.endswith("watcher"))
        wait_until(lambda: watcher.state == "ready")
        clock.advance(21)
        wait_until(lambda: store.load_session("s1").messages == ["edited"])
    assert "too many of them" in caplog.text


@pytest.mark.skipif(not inotify.AVAILABLE, reason="there is no inotify")
def test_what_lost_notices_would_have_told_of_is_found_at_once(
    folder: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, reconcile_interval=1e6, inject=inject) as store:
        store.save_session("s1", ["original"])
        monkeypatch.setattr(inotify.Inotify, "read", lambda _: ([], True))
        edit(folder / "s1.json", messages=["edited"])

        def shown() -> bool:
            clock.advance(0.06)
            return bool(store.load_session("s1").messages == ["edited"])

        wait_until(shown)


def store_children(store: SessionStore) -> list[Any]:
    tree = store._tree
    assert tree is not None
    return [child.ref for child in tree.supervisor.which_children()]


def test_the_watcher_can_be_switched_off(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        names = [ref.name for ref in store_children(store)]
        assert names == [
            f"sessionkeeper.{name}" for name in ("store", "checkpointer", "indexer", "texts")
        ]


def test_a_file_with_a_hostile_id_reaches_nothing(
    watched: SessionStore,
    folder: Path,
    tmp_path: Path,
) -> None:
    watched.save_session("s1", ["original"])
    outside = tmp_path / "victim.json"
    outside.write_text("precious")
    text = (folder / "s1.json").read_text()
    with EventLog(watched) as log:
        (folder / "s2.json").write_text(
            text.replace('"session_id":"s1"', '"session_id":"../victim"')
        )
        log.wait_for("quarantined")
    assert outside.read_text() == "precious"
    assert watched.load_session("s1").messages == ["original"]


def test_touching_a_file_changes_nothing(watched: SessionStore, folder: Path) -> None:
    watched.save_session("s1", ["original"])
    os.utime(folder / "s1.json")
    watched.save_session("s2", ["other"])
    with EventLog(watched) as log:
        edit(folder / "s2.json", messages=["edited"])  # comes after the touch
        log.wait_for("adopted")
        assert [event.session_id for event in log.of_kind("adopted")] == ["s2"]
    assert watched.load_session("s1").generation == 1
