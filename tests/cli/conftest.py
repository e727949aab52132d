"""The command line, run in this process or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from sessionkeeper import SessionStore
from sessionkeeper.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]
    RunProcess = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSIONKEEPER_PATH", raising=False)
    # What is held in a buffer is lost with its process; that must show here as well.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def run() -> Run:
    def runner(*arguments: object, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(
            app,
            [str(argument) for argument in arguments],
            env=env,
            catch_exceptions=False,
            prog_name="sessionkeeper",
        )

    return runner


@pytest.fixture
def run_process() -> RunProcess:
    def runner(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sessionkeeper.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **options.pop("env", {})},
            **options,
        )

    return runner


@pytest.fixture
def filled(folder: Path) -> Path:
    """A store of three sessions that nobody has open; `refund` was changed last."""
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("greeting", [{"role": "user", "content": "Hi"}], tags=["a", "b"])
        store.save_session("empty", [], title="Nothing yet", status="active", total_cost=2.0)
        store.save_session(
            "refund",
            [
                {"role": "user", "content": "Refund?\nPlease."},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
                {"role": "tool", "content": "ok"},
                "That is all.",
            ],
            state={"step": 2},
            metadata={"user": "mia"},
            tags=["a", "support"],
            title="A refund",
            status="completed",
            total_cost=0.5,
        )
    return folder
