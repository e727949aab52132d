"""Settings from arguments, environment and config.json, and changed while the store is open."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    Configure,
    InvalidConfig,
    OutcomeUnknown,
    SessionKeeperError,
    SessionStore,
    StorageFailed,
    StoreReadOnly,
)
from sessionkeeper.config import Config
from sessionkeeper.settings import LIVE, from_environment, known
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend, Change


def config_file(folder: Path) -> Path:
    return folder / ".sessionkeeper" / "config.json"


# --- where they come from ----------------------------------------------------------------------


def test_arguments_go_before_the_environment_before_the_file_before_defaults(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        assert store.config.max_backups == 5
    stored = {"max_backups": 1, "trash_days": 1.5, "retention_days": 11}
    config_file(folder).write_text(json.dumps(stored))
    monkeypatch.setenv("SESSIONKEEPER_TRASH_DAYS", "2.5")
    monkeypatch.setenv("SESSIONKEEPER_RETENTION_DAYS", "22")
    with SessionStore.open(folder, watch=False, retention_days=33) as store:
        assert store.config.max_backups == 1
        assert store.config.trash_days == 2.5
        assert store.config.retention_days == 33
        assert store.config.max_sessions is None


def test_the_folder_can_come_from_the_environment(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SESSIONKEEPER_PATH", str(folder))
    with SessionStore.open(watch=False) as store:
        assert store.path == folder
    monkeypatch.delenv("SESSIONKEEPER_PATH")
    with pytest.raises(InvalidConfig, match="SESSIONKEEPER_PATH"):
        SessionStore.open()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("RETENTION_DAYS", "30", 30.0),
        ("RETENTION_DAYS", "none", None),
        ("MAX_SESSIONS", "100", 100),
        ("MAX_SESSIONS", "None", None),
        ("PERSISTENCE", "off", False),
        ("WATCH", "Yes", True),
        ("DURABILITY", "file", "file"),
        ("CHECKPOINT_BYTES", "1048576", 1048576),
    ],
)
def test_the_environment_is_read_as_the_setting_wants_it(
    name: str,
    text: str,
    value: object,
) -> None:
    found = from_environment({f"SESSIONKEEPER_{name}": text, "OTHER": "1"})
    assert found == {name.lower(): value}
    assert type(found[name.lower()]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SESSIONKEEPER_RETENTION", "30"),
        ("SESSIONKEEPER_RETENTION_DAYS", "soon"),
        ("SESSIONKEEPER_MAX_SESSIONS", "1.5"),
        ("SESSIONKEEPER_PERSISTENCE", "perhaps"),
        ("SESSIONKEEPER_DURABILITY", "very"),
        ("SESSIONKEEPER_MAX_SESSIONS", "0"),
    ],
)
def test_a_variable_that_says_nothing_sensible_is_refused(
    name: str,
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(InvalidConfig):
        SessionStore.open(folder)
    assert not folder.exists(), "nothing was made before it was refused"


@pytest.mark.parametrize("content", ["[]", "{", '{"retention": 3}', '{"max_backups": -1}'])
def test_a_file_that_holds_no_settings_is_refused(content: str, folder: Path) -> None:
    SessionStore.open(folder, watch=False).close()
    config_file(folder).write_text(content)
    with pytest.raises(InvalidConfig):
        SessionStore.open(folder)
    assert config_file(folder).read_text() == content


def test_every_setting_can_be_read_from_the_environment() -> None:
    """A new one of a kind that cannot be read shows here."""
    defaults = {f.name: f.default for f in fields(Config)}
    for name in known():
        text = str(defaults[name])
        found = from_environment({f"SESSIONKEEPER_{name.upper()}": text})
        assert found[name] == defaults[name]


# --- what they do, where no other test shows it ------------------------------------------------


def test_the_age_counts_from_the_basis_set(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, inject=inject) as store:
        store.save_session("old")
        clock.advance(days=20)
        store.save_session("old", status="completed")
        store.save_session("young", status="completed")
    clock.advance(days=5)
    settings: dict[str, Any] = {"retention_days": 10, "retention_basis": "created"}
    with SessionStore.open(folder, watch=False, inject=inject, **settings) as store:
        store.cleanup()
        assert [info.session_id for info in store.list_sessions()] == ["young"]


def test_the_cleanup_comes_as_often_as_set(folder: Path, clock: FakeClock) -> None:
    settings: dict[str, Any] = {"retention_days": 1, "cleanup_interval": 10}
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock), **settings) as store:
        store.save_session("s1", [1])
        store.flush()
        clock.advance(days=1)
        store.flush()
        assert "s1" in store
        clock.advance(11)
        store.flush()
        assert "s1" not in store


def test_files_are_brought_up_to_date_as_often_as_set(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with (
        SessionStore.open(folder, watch=False, checkpoint_interval=10, inject=inject) as store,
        EventLog(store) as log,
    ):
        store.save_session("s1", ["x" * 1000])
        store.checkpoint()
        before = len(log.of_kind("checkpointed"))
        store.append("s1", ["behind"])
        clock.advance(9)
        store.flush()
        assert b"behind" not in (folder / "s1.json").read_bytes()
        clock.advance(2)
        log.wait_for("checkpointed", before + 1)
        assert b"behind" in (folder / "s1.json").read_bytes()


def test_a_caller_waits_as_long_as_set(folder: Path) -> None:
    backends: list[Gated] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(Gated(backend))
        return backends[-1]

    inject = Injected(wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, call_timeout=0.05, inject=inject) as store:
        errors: list[BaseException] = []

        def save() -> None:
            try:
                store.save_session("s1", [1])
            except SessionKeeperError as error:
                errors.append(error)

        backends[0].gate.clear()
        caller = threading.Thread(target=save)
        caller.start()
        try:
            caller.join(3)
            assert not caller.is_alive(), "it waits longer than it should"
            assert [type(error) for error in errors] == [OutcomeUnknown]
        finally:
            backends[0].gate.set()
            caller.join()
        store.flush(timeout=10)


class Gated(FaultyBackend):
    """Commits when its gate is open."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.gate.set()

    def commit(self, batch: Sequence[Change]) -> None:
        assert self.gate.wait(30)
        super().commit(batch)


def test_crashes_count_within_the_window_set(folder: Path) -> None:
    settings: dict[str, Any] = {"max_restarts": 1, "max_seconds": 1e-6}
    with SessionStore.open(folder, watch=False, **settings) as store:
        for number in range(4):
            crash_actor(store)
            store.append("s1", [number])
        assert store.info().restarts == 4


# --- changed while open ------------------------------------------------------------------------


def test_retention_is_changed_at_once(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        log = EventLog(store)
        for number in range(5):
            store.save_session(f"s{number}", [number])
        store.configure(max_sessions=2)
        log.wait_for("trashed", 3)
        assert [info.session_id for info in store.list_sessions()] == ["s4", "s3"]
        clock.advance(days=2)
        store.save_session("s5", [5])
        store.configure(max_sessions=None, retention_days=1, retention_basis="updated")
        log.wait_for("trashed", 5)
        assert [info.session_id for info in store.list_sessions()] == ["s5"]
        store.configure(trash_days=1)
        clock.advance(days=1, seconds=1)
        log.wait_for("purged", 5)


def test_the_timers_take_another_pace(folder: Path, clock: FakeClock) -> None:
    settings: dict[str, Any] = {"cleanup_interval": 10**9, "checkpoint_interval": 10**9}
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, retention_days=1, inject=inject, **settings) as s:
        log = EventLog(s)
        s.save_session("s1", [1])
        s.configure(cleanup_interval=10**5, checkpoint_interval=10**9)
        clock.advance(10**5 + 1)
        log.wait_for("trashed")
        s.checkpoint()
        before = len(log.of_kind("checkpointed"))
        s.append("s2", [1])
        s.configure(checkpoint_interval=50)
        clock.advance(51)
        log.wait_for("checkpointed", before + 1)


def test_cache_and_backups_and_timeouts_go_by_it(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["x" * 1000])
        assert store.info().cached_sessions == 1
        store.configure(cache_bytes=100, max_backups=1, call_timeout=2.5, checkpoint_bytes=2**20)
        store.save_session("s1", ["y" * 1000])
        store.save_session("s1", ["z" * 1000])
        assert store.info().cached_sessions == 0
        assert len(store.backups("s1")) == 1
        assert store.config.call_timeout == 2.5
        assert store.load_session("s1").messages == ["z" * 1000]


def test_it_stays_with_the_folder_and_over_a_crash(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.configure(max_backups=2, retention_days=7)
        assert json.loads(config_file(folder).read_text()) == {
            "max_backups": 2,
            "retention_days": 7,
        }
        assert config_file(folder).stat().st_mode & 0o777 == 0o600
        crash_actor(store)
        store.flush()
        assert store.config.max_backups == 2
    with SessionStore.open(folder, watch=False, retention_days=8) as store:
        assert (store.config.max_backups, store.config.retention_days) == (2, 8)
        store.configure(retention_days=9)
        assert store.config.retention_days == 9, "said now, it goes before what was given"
    with SessionStore.open(folder, watch=False) as store:
        assert (store.config.max_backups, store.config.retention_days) == (2, 9)


def test_the_owner_takes_what_others_write(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    settings: dict[str, Any] = {"watch": False, "reconcile_interval": 60, "max_backups": 3}
    with SessionStore.open(folder, inject=inject, **settings) as store:
        log = EventLog(store)
        for number in range(5):
            store.save_session(f"s{number}", [number])
        changes = {"max_sessions": 1, "max_backups": 9, "durability": "file"}
        config_file(folder).write_text(json.dumps(changes))
        clock.advance(61)
        log.wait_for("trashed", 4)
        assert store.config.max_sessions == 1
        assert store.config.max_backups == 3, "given as an argument"
        assert store.config.durability == "journal", "counts at the opening"
        config_file(folder).write_text("{torn")
        clock.advance(61)
        store.flush()
        store.save_session("s6", [6])
        assert store.config.max_sessions == 1, "what cannot be read changes nothing"
        config_file(folder).unlink()
        clock.advance(61)
        wait_until(lambda: store.config.max_sessions is None)


# Persistence can be switched; see test_persistence.py.
@pytest.mark.parametrize("name", sorted(set(known()) - LIVE - {"persistence"}))
def test_what_counts_at_the_opening_is_refused_later(name: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        before = store.config
        value = getattr(before, name)
        with pytest.raises(InvalidConfig, match=name):
            store.configure(**{name: value})
        assert store.config == before
        assert not config_file(folder).exists()


def test_nonsense_is_refused_and_changes_nothing(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        before = store.config
        with pytest.raises(TypeError, match="retention"):
            store.configure(retention=3)
        with pytest.raises(InvalidConfig):
            store.configure(max_backups=1, retention_days=-1)
        assert store.config == before
        assert not config_file(folder).exists()
    with SessionStore.open(folder, read_only=True) as store, pytest.raises(StoreReadOnly):
        store.configure(max_backups=1)


def test_a_medium_that_refuses_the_file_changes_nothing(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.configure(max_backups=2)
        fs.fail(Fault("replace", OSError(errno.EIO, os.strerror(errno.EIO)), name="config.json"))
        with pytest.raises(StorageFailed):
            store.configure(max_backups=3)
        assert store.config.max_backups == 2
        assert json.loads(config_file(folder).read_text()) == {"max_backups": 2}


def test_it_has_its_place_among_the_commands(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        receipts = [store.tell(Configure({"max_backups": n})) for n in (1, 2, 3)]
        assert [receipt.exception(10) for receipt in receipts] == [None] * 3
        assert store.config.max_backups == 3


def test_without_a_disk_it_holds_until_the_store_is_closed(clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open("unused", persistence=False, inject=inject) as store:
        log = EventLog(store)
        store.save_session("s1", [1])
        store.configure(retention_days=1)
        clock.advance(timedelta(days=2).total_seconds())
        log.wait_for("trashed")
