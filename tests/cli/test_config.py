"""config: which settings hold and why, and storing others."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import Config, SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


def rows(result: Result) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["setting"]: row for row in found}


def test_every_setting_is_shown_with_where_it_comes_from(run: Run, filled: Path) -> None:
    (filled / ".sessionkeeper" / "config.json").write_text(
        '{"retention_days": 30, "max_sessions": 5}',
    )
    environment = {"SESSIONKEEPER_MAX_SESSIONS": "7"}

    shown = rows(run("--path", filled, "config", "--json", "--preset", "agent", env=environment))

    assert set(shown) == {field.name for field in fields(Config)} - {"path"}
    sources = {name: (row["value"], row["source"]) for name, row in shown.items()}
    assert sources["max_sessions"] == (7, "environment")
    assert sources["retention_days"] == (30, "config.json")
    assert sources["retention_basis"] == ("updated", "preset")
    assert sources["layout"] == ("flat", "folder")
    assert sources["trash_days"] == (7.0, "default")
    assert shown["trash_days"]["live"]
    assert not shown["durability"]["live"]
    assert shown["retention_days"]["default"] is None


def test_as_lines_for_a_store_of_another_layout(run: Run, folder: Path) -> None:
    with SessionStore.open(folder, layout="rooted", watch=False):
        pass

    lines = run("--path", folder, "config").stdout.splitlines()

    assert lines[0] == 'layout\t"rooted"\tfolder\tat opening'
    assert "max_sessions\tnull\tdefault\tat once" in lines


def test_a_preset_is_shown_without_a_store(run: Run) -> None:
    shown = rows(run("config", "--preset", "history", "--json"))

    assert (shown["max_sessions"]["value"], shown["max_sessions"]["source"]) == (100, "preset")
    assert shown["layout"]["source"] == "default"
    unknown = run("config", "--preset", "none")
    assert unknown.exit_code == 2
    assert "there are capture" in unknown.stderr


def test_settings_are_stored_and_hold_at_the_next_opening(run: Run, filled: Path) -> None:
    first = run("--path", filled, "config", "--set", "retention_days=30", "--set", "index_json=yes")
    assert first.stdout.splitlines() == [
        "retention_days\t30.0\tconfig.json\tat once",
        "index_json\ttrue\tconfig.json\tat opening",
    ]

    second = run("--path", filled, "config", "--unset", "index_json", "--set", "max_sessions=none")

    assert second.stdout.splitlines() == [
        "max_sessions\tnull\tconfig.json\tat once",
        "index_json\tfalse\tdefault\tat opening",
    ]
    with SessionStore.open(filled, watch=False) as store:
        assert store.config.retention_days == 30
        assert not store.config.index_json


def test_an_owner_is_named_and_takes_what_takes_effect_at_once(run: Run, filled: Path) -> None:
    with SessionStore.open(filled, watch=False, reconcile_interval=0.01) as owner:
        result = run("--path", filled, "config", "--set", "trash_days=3")

        assert "has the store open: what takes effect at once does so within" in result.stderr
        from sessionkeeper.testing import wait_until

        wait_until(lambda: owner.config.trash_days == 3)


def test_what_goes_before_the_stored_setting_is_said(run: Run, filled: Path) -> None:
    environment = {"SESSIONKEEPER_TRASH_DAYS": "5"}

    result = run("--path", filled, "config", "--set", "trash_days=3", env=environment)

    assert result.stdout == "trash_days\t5.0\tenvironment\tat once\n"
    assert "SESSIONKEEPER_TRASH_DAYS goes before" in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--set", "retenton_days=3"], "did you mean retention_days?"),
        (["--unset", "colour"], "there is no setting 'colour'"),
        (["--set", "retention_days"], "is not NAME=VALUE"),
        (["--set", "retention_days=soon"], "must be a number"),
        (["--set", "retention_days=-1"], "above 0"),
        (["--set", "watch=maybe"], "must be true or false"),
        (["--set", "durability=some"], "must be one of"),
        (["--set", "layout=rooted"], "laid out 'flat'"),
        (["--set", "path=/"], "there is no setting 'path'"),
    ],
)
def test_what_is_no_setting_is_refused_and_nothing_stored(
    run: Run,
    filled: Path,
    options: list[str],
    reason: str,
) -> None:
    result = run("--path", filled, "config", "--set", "trash_days=3", *options)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert "Usage: sessionkeeper config" in result.stderr
    assert not (filled / ".sessionkeeper" / "config.json").exists()


def test_settings_are_stored_in_stores_only(run: Run, folder: Path) -> None:
    assert run("--path", folder, "config", "--set", "trash_days=3").exit_code == 2
    assert not folder.exists()
    nameless = run("config", "--set", "trash_days=3", "--preset", "agent")
    assert nameless.exit_code == 2
    assert "no store named" in nameless.stderr
    assert run("config").exit_code == 2
