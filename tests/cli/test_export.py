"""`sessionkeeper export`."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from sessionkeeper import SessionStore
from sessionkeeper.cli.commands.export import export
from sessionkeeper.cli.failures import ReportingGroup
from sessionkeeper.cli.help import help_of
from sessionkeeper.cli.main import main
from sessionkeeper.transfer import import_bundle, import_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


@pytest.fixture
def run_export() -> Run:
    """The command alone, in a group like that of all commands."""
    app = typer.Typer(cls=ReportingGroup, rich_markup_mode=None, add_completion=False)
    app.callback()(main)
    app.command("export", help=help_of(export))(export)

    def runner(folder: Path, *arguments: object) -> Result:
        words = ["--path", str(folder), "export", *map(str, arguments)]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    return runner


def ids(path: Path) -> list[str]:
    with SessionStore.open("nowhere", durability="memory") as store:
        import_bundle(store, path)
        return [info.session_id for info in store.iter_sessions()]


def test_one_session_becomes_a_document(run_export: Run, filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "refund.json"

    result = run_export(filled, "refund", "-o", path)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}\t1\t4\t{path.stat().st_size}\n"
    assert json.loads(path.read_bytes())["state"] == {"step": 2}
    with SessionStore.open("nowhere", durability="memory") as store:
        assert import_session(store, path) == "refund"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["--all"], ["empty", "greeting", "refund"]),
        (["refund", "empty"], ["empty", "refund"]),
        (["--tag", "support"], ["refund"]),
        (["--tag", "support", "--tag", "b"], ["greeting", "refund"]),
    ],
)
def test_several_sessions_become_a_bundle(
    run_export: Run,
    filled: Path,
    tmp_path: Path,
    chosen: list[str],
    expected: list[str],
) -> None:
    path = tmp_path / "out.tar.gz"

    result = run_export(filled, *chosen, "-o", path, "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told.pop("seconds") >= 0
    assert told["sessions"] == len(expected)
    assert told["bytes"] == path.stat().st_size
    assert tarfile.is_tarfile(path)
    assert ids(path) == expected


def test_it_works_beside_the_owner(run_export: Run, filled: Path, tmp_path: Path) -> None:
    with SessionStore.open(filled, watch=False) as store:
        store.save_session("new", ["just saved"])

        assert run_export(filled, "new", "-o", tmp_path / "new.json").exit_code == 0
        assert run_export(filled, "--all", "-o", tmp_path / "all.tar.gz").exit_code == 0

    assert ids(tmp_path / "all.tar.gz") == ["empty", "greeting", "new", "refund"]


def test_a_file_that_exists_is_replaced_only_if_asked(
    run_export: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    for chosen in (["refund"], ["--all"]):
        refused = run_export(filled, *chosen, "-o", path)

        assert refused.exit_code == 1
        assert f"{path} exists already" in refused.stderr
        assert "--overwrite" in refused.stderr
        assert path.read_text() == "mine"

    assert run_export(filled, "--all", "-o", path, "--overwrite").exit_code == 0
    assert len(ids(path)) == 3


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ([], "give either IDs, or --tag, or --all"),
        (["refund", "--all"], "give either"),
        (["--tag", "a", "--all"], "give either"),
        (["refund", "--tag", "a"], "give either"),
    ],
)
def test_which_sessions_must_be_said_once(
    run_export: Run,
    filled: Path,
    tmp_path: Path,
    chosen: list[str],
    reason: str,
) -> None:
    result = run_export(filled, *chosen, "-o", tmp_path / "out")

    assert result.exit_code == 2
    assert reason in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("chosen", "status", "reason"),
    [
        (["absent"], 1, "there is no session 'absent'"),
        (["refund", "absent"], 1, "there is no session 'absent'"),
        (["../x"], 1, "contains a path separator"),
        (["--tag", "absent"], 1, "no session has 'absent' among its tags"),
    ],
)
def test_what_is_not_there_is_told_and_leaves_no_file(
    run_export: Run,
    filled: Path,
    tmp_path: Path,
    chosen: list[str],
    status: int,
    reason: str,
) -> None:
    result = run_export(filled, *chosen, "-o", tmp_path / "out")

    assert result.exit_code == status
    assert reason in result.stderr
    assert list(tmp_path.glob("*out*")) == []


def test_where_there_is_no_store_or_no_folder(
    run_export: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    absent = run_export(tmp_path / "absent", "--all", "-o", tmp_path / "out")
    assert absent.exit_code == 2
    assert not (tmp_path / "absent").exists()

    nowhere = run_export(filled, "refund", "-o", tmp_path / "absent" / "out")
    assert nowhere.exit_code == 1
    assert "No such file or directory" in nowhere.stderr

    inside = run_export(filled, "refund", "-o", filled / "refund.json", "--overwrite")
    assert inside.exit_code == 1
    assert "lies in the folder of the store" in inside.stderr


def test_the_help_has_examples_that_can_be_copied(run_export: Run, filled: Path) -> None:
    result = run_export(filled, "--help")

    assert "  sessionkeeper --path var/agent export s1 -o s1.json\n" in result.stdout
