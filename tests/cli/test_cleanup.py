"""cleanup: why sessions go, and why they stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]

MOMENT = "0.0000001"  # days: everything is older


def config_of(folder: Path, text: str) -> None:
    (folder / ".sessionkeeper" / "config.json").write_text(text)


def cells(result: Result) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_dry_run_explains_each_session_and_removes_none(run: Run, filled: Path) -> None:
    run("--path", filled, "pin", "greeting")

    result = run("--path", filled, "cleanup", "--dry-run", "--retention-days", MOMENT)

    assert cells(result) == {
        "greeting": ["keep", "pinned", "it is pinned"],
        "refund": ["remove", "age", "older than 1e-07 days"],
        "empty": ["keep", "unfinished", "its status is active"],
    }
    assert len(run("--path", filled, "list").stdout.splitlines()) == 3


def test_it_goes_by_the_settings_of_the_store_and_of_the_environment(
    run: Run,
    filled: Path,
) -> None:
    unlimited = run("--path", filled, "cleanup", "--dry-run")
    assert {reason for _, reason, _ in cells(unlimited).values()} == {"unlimited", "unfinished"}

    config_of(filled, '{"max_sessions": 1}')
    stored = cells(run("--path", filled, "cleanup", "--dry-run"))
    assert stored["refund"][:2] == ["keep", "newest"]
    assert stored["greeting"] == ["remove", "count", "more than 1 sessions"]

    environment = {"SESSIONKEEPER_MAX_SESSIONS": "2", "SESSIONKEEPER_RETENTION_DAYS": "10"}
    young = cells(run("--path", filled, "cleanup", "--dry-run", env=environment))
    assert young["greeting"] == ["keep", "young", "0.0 of 10 days old"]


def test_a_dry_run_as_json(run: Run, filled: Path) -> None:
    lines = run("--path", filled, "cleanup", "--dry-run", "--json").stdout.splitlines()

    assert json.loads(lines[0]) == {
        "session_id": "refund",
        "removed": False,
        "reason": "unlimited",
        "detail": "no limit is set",
        "namespace": "",
    }


def test_a_dry_run_works_beside_an_owner(run: Run, filled: Path) -> None:
    with SessionStore.open(filled, watch=False):
        result = run("--path", filled, "cleanup", "--dry-run")

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert "has the store open" in result.stderr


def test_a_cleanup_moves_what_goes_to_the_trash(run: Run, filled: Path) -> None:
    config_of(filled, '{"max_sessions": 1}')

    assert run("--path", filled, "cleanup").stdout == "greeting\tcount\tmore than 1 sessions\n"

    assert run("--path", filled, "cleanup").stdout == ""
    config_of(filled, "{}")
    assert run("--path", filled, "undelete", "greeting").exit_code == 0
    (removed, _) = run(
        "--path", filled, "cleanup", "--retention-days", MOMENT, "--json"
    ).stdout.splitlines()
    assert json.loads(removed)["reason"] == "age"


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--retention-days", "0", "above 0"),
        ("--retention-days", "nan", "finite"),
        ("--max-sessions", "-1", "above 0"),
        ("--retention-basis", "birth", "completed, updated, created"),
    ],
)
def test_a_limit_that_is_none_is_refused(
    run: Run,
    filled: Path,
    option: str,
    value: str,
    reason: str,
) -> None:
    result = run("--path", filled, "cleanup", option, value)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert len(run("--path", filled, "list").stdout.splitlines()) == 3
