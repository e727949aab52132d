"""Presets: defaults for one kind of program, behind everything that anybody says."""

from __future__ import annotations

import asyncio
import inspect
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

import sessionkeeper
from sessionkeeper import (
    AsyncSessionStore,
    InvalidConfig,
    SessionManager,
    SessionStore,
    presets,
    transfer,
)
from sessionkeeper.config import Config

if TYPE_CHECKING:
    from pathlib import Path

# What each puts in the place of defaults, and what a store of that kind then goes by.
IN_FORCE: dict[presets.PresetName, dict[str, Any]] = {
    "capture": {"layout": "flat", "retention_basis": "completed", "max_sessions": None},
    "agent": {"layout": "flat", "retention_days": 30, "retention_basis": "updated"},
    "history": {
        "layout": "flat",
        "retention_days": 3,
        "max_sessions": 100,
        "cleanup_interval": 3600.0,
        "index_json": True,
        "persistence": True,
    },
    "bot": {"layout": "single", "retention_days": None},
    "recorder": {"layout": "rooted", "max_backups": 5, "retention_days": 30},
}


def asked(name: str) -> dict[str, Any]:
    return dict.fromkeys(presets.get(name).asked, 14)


def test_there_are_five() -> None:
    assert set(presets.NAMES) == set(IN_FORCE)


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_store_goes_by_its_preset(name: presets.PresetName, folder: Path) -> None:
    with SessionStore.open(folder, preset=name, watch=False, **asked(name)) as store:
        found = asdict(store.config)
        assert IN_FORCE[name].items() <= found.items()
        store.save_session("s1", [1])
    plain = asdict(Config(path=folder, watch=False, **{**presets.settings(name), **asked(name)}))
    assert found == plain, "nothing but what settings() tells"
    there = {path.relative_to(folder).as_posix() for path in folder.glob("**/*.json")}
    expected = {"bot": "sessions.json", "recorder": "sessions/s1.json"}
    assert expected.get(name, "s1.json") in there
    assert (".sessionkeeper/index.json" in there) == (name == "history")


def test_what_is_told_cannot_change_a_preset() -> None:
    presets.settings("agent")["retention_days"] = 1
    assert presets.settings("agent")["retention_days"] == 30


def test_a_preset_comes_behind_arguments_environment_and_file(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, preset="history", watch=False) as store:
        store.configure(max_sessions=10)
        assert store.config.max_sessions == 10
        assert store.config.retention_days == 3, "what was not changed is the preset's"
    stored = json.loads((folder / ".sessionkeeper" / "config.json").read_text())
    assert stored == {"max_sessions": 10}, "nothing of the preset is written"
    with SessionStore.open(folder, preset="history", watch=False) as store:
        assert store.config.max_sessions == 10
    monkeypatch.setenv("SESSIONKEEPER_MAX_SESSIONS", "20")
    monkeypatch.setenv("SESSIONKEEPER_RETENTION_DAYS", "4")
    with SessionStore.open(folder, preset="history", watch=False, max_sessions=30) as store:
        assert store.config.max_sessions == 30
        assert store.config.retention_days == 4
    with SessionStore.open(folder, watch=False, preset="history", retention_days=None) as store:
        assert store.config.retention_days is None, "None is said, too"
        assert store.config.max_sessions == 20


def test_an_unknown_preset_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="capture, agent, history, bot, recorder"):
        SessionStore.open(folder, preset="agents")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig):
        presets.settings("")
    assert not folder.exists()


def test_what_a_preset_asks_for_can_be_said_anywhere(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidConfig, match="retention_days") as refused:
        SessionStore.open(folder, preset="capture")
    assert "SESSIONKEEPER_RETENTION_DAYS" in str(refused.value.hint)
    assert not folder.exists(), "nothing was made before it was refused"
    monkeypatch.setenv("SESSIONKEEPER_RETENTION_DAYS", "7")
    with SessionStore.open(folder, preset="capture", watch=False) as store:
        assert store.config.retention_days == 7
        store.configure(retention_days=8)
    monkeypatch.delenv("SESSIONKEEPER_RETENTION_DAYS")
    with SessionStore.open(folder, preset="capture", watch=False) as store:
        assert store.config.retention_days == 8


def test_who_only_reads_is_asked_for_nothing(folder: Path) -> None:
    with SessionStore.open(folder, preset="capture", watch=False, retention_days=1) as store:
        store.save_session("s1", [1])
    with SessionStore.open(folder, preset="capture", read_only=True) as reader:
        assert reader.load_session("s1").messages == [1]


# --- where they lie ----------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a program runs, with an environment that says nothing."""
    for variable in ("SESSIONKEEPER_PATH", "SESSION_STORE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_captured_sessions_lie_in_the_project(project: Path) -> None:
    with SessionStore.open(preset="capture", retention_days=1, watch=False) as store:
        store.save_session("s1", [1])
    assert (project / "docs" / "sessions" / "s1.json").is_file()


@pytest.mark.parametrize(
    ("theirs", "ours", "argument", "file"),
    [
        (None, None, None, ".sessions.json"),
        (None, "ours.json", None, "ours.json"),
        ("theirs.json", "ours.json", None, "theirs.json"),
        ("theirs.json", "ours.json", "argument.json", "argument.json"),
        ("", "ours.json", None, "ours.json"),
    ],
)
def test_the_file_of_a_bot_is_named_by_either_variable(
    theirs: str | None,
    ours: str | None,
    argument: str | None,
    file: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, text in (("SESSION_STORE_PATH", theirs), ("SESSIONKEEPER_PATH", ours)):
        if text is not None:
            monkeypatch.setenv(variable, text)
    with SessionStore.open(argument, preset="bot", watch=False) as store:
        store.save_session("s1", [1])
    assert [path.name for path in project.glob("*.json")] == [file]


@pytest.mark.parametrize("name", ["agent", "history", "recorder"])
def test_the_others_have_to_be_told(name: presets.PresetName, project: Path) -> None:
    with pytest.raises(InvalidConfig, match="no folder") as refused:
        SessionStore.open(preset=name)
    assert "SESSIONKEEPER_PATH" in str(refused.value.hint)
    with pytest.raises(InvalidConfig, match="empty"):
        SessionStore.open("", preset=name)
    assert not list(project.iterdir())


def test_a_store_that_is_laid_out_otherwise_is_refused(folder: Path) -> None:
    SessionStore.open(folder, preset="agent", watch=False).close()
    with pytest.raises(InvalidConfig, match="flat"):
        SessionStore.open(folder, preset="recorder")


# --- for event loops, and for the documents ----------------------------------------------------


def test_an_event_loop_opens_with_a_preset_too(folder: Path) -> None:
    async def main() -> None:
        async with await AsyncSessionStore.open(folder, preset="agent", watch=False) as store:
            assert store.config.retention_days == 30
        with pytest.raises(InvalidConfig):
            await AsyncSessionStore.open(folder, preset="capture")

    asyncio.run(main())


@pytest.mark.parametrize("name", presets.NAMES)
def test_the_calls_that_a_preset_names_exist(name: str) -> None:
    assert presets.get(name).purpose
    assert presets.get(name).calls
    for call in presets.get(name).calls:
        found: Any = transfer if call.startswith("transfer.") else sessionkeeper
        for part in call.removeprefix("transfer.").split("."):
            found = getattr(found, part)
        assert callable(found), call


def test_the_manager_of_a_recorder_saves_every_30_seconds() -> None:
    assert inspect.signature(SessionManager).parameters["auto_save_interval"].default == 30
