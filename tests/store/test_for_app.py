"""The store of an application: where the platform, or the environment, says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import AsyncSessionStore, InvalidConfig, SessionStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("SESSIONKEEPER_PATH", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["agent", "My App", "org.example.App-2", "_x"])
def test_it_lies_in_the_data_folder_of_the_user(home: Path, name: str) -> None:
    with SessionStore.for_app(name, watch=False, max_backups=1) as store:
        assert store.path == home / ".local" / "share" / name / "sessions"
        assert store.config.max_backups == 1
        store.save_session("s1", [1])
    with SessionStore.for_app(name, read_only=True) as store:
        assert store.load_session("s1").messages == [1]
    assert store.path.stat().st_mode & 0o777 == 0o700


def test_the_platform_says_which_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with SessionStore.for_app("agent", watch=False) as store:
        assert store.path == tmp_path / "data" / "agent" / "sessions"


def test_the_environment_goes_before_it(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SESSIONKEEPER_PATH", str(tmp_path / "elsewhere"))
    with SessionStore.for_app("agent", watch=False) as store:
        assert store.path == tmp_path / "elsewhere"
    assert not home.exists()


def test_it_goes_before_the_path_of_a_preset(home: Path) -> None:
    with SessionStore.for_app("agent", preset="capture", retention_days=1, watch=False) as store:
        assert store.path == home / ".local" / "share" / "agent" / "sessions"


NAMES = [
    "",
    ".",
    "..",
    "../other",
    "a/b",
    "a\\b",
    "/etc",
    "~",
    "~root",
    ".hidden",
    "a.",
    "a ",
    " a",
]
MORE = ["a ", " a", "-a", "a\0b", "a\nb", "CON", "nul.txt", "a:b", "x" * 101, "\u00fc", "\ud800"]


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_a_hostile_name_is_refused(home: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match="name of an application"):
        SessionStore.for_app(name)
    assert not home.exists()


@pytest.mark.parametrize("name", [None, 7, b"agent"])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(TypeError):
        SessionStore.for_app(name)


def test_a_name_that_lies_is_taken_by_its_characters(home: Path) -> None:
    class Liar(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "../../outside"

        def __format__(self, spec: str) -> str:
            return "../../outside"

        def __fspath__(self) -> str:
            return "/outside"

    with SessionStore.for_app(Liar("agent"), watch=False) as store:
        assert store.path == home / ".local" / "share" / "agent" / "sessions"


def test_an_event_loop_opens_the_same(home: Path) -> None:
    async def scenario() -> Path:
        async with await AsyncSessionStore.for_app("agent", watch=False) as store:
            return store.path

    assert asyncio.run(scenario()) == home / ".local" / "share" / "agent" / "sessions"
