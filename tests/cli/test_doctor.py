"""doctor: what it prints, how it ends, and that it changes nothing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


@pytest.fixture
def damaged(filled: Path) -> Path:
    (filled / "refund.json").write_bytes(b"{")
    (filled / "greeting.json").chmod(0o644)
    return filled


def times(folder: Path) -> dict[str, int]:
    """When each file was changed, but for the index, which follows in its own time."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {p.name: p.lstat().st_mtime_ns for p in paths if not p.name.startswith("index")}


def test_a_store_that_is_well_ends_with_0_and_says_nothing(run: Run, filled: Path) -> None:
    result = run("--path", filled, "doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert run("--path", filled, "doctor", "--json").stdout == ""


def test_damage_ends_with_1_and_is_one_line_each(run: Run, damaged: Path) -> None:
    result = run("doctor", "--path", damaged)
    assert result.exit_code == 1
    assert sorted(line.split("\t") for line in result.stdout.splitlines()) == [
        [
            "damage",
            "corrupt",
            "refund.json",
            "",
            "not JSON: Expecting property name enclosed in double quotes at byte 1",
        ],
        ["notice", "permissions", "greeting.json", "", "its mode is 0644, not 0600"],
    ]
    assert result.stderr == ""


def test_notices_alone_end_with_0(run: Run, filled: Path) -> None:
    (filled / "greeting.json").chmod(0o644)
    result = run("--path", filled, "doctor")
    assert result.exit_code == 0
    assert result.stdout.startswith("notice\tpermissions\tgreeting.json\t")


def test_json_has_one_object_a_line(run: Run, damaged: Path) -> None:
    edited = json.loads((damaged / "empty.json").read_bytes())
    (damaged / "empty.json").write_text(json.dumps({**edited, "title": "by hand"}))
    result = run("--path", damaged, "doctor", "--json")
    assert result.exit_code == 1
    found = {line["path"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert found.keys() == {"refund.json", "greeting.json", "empty.json"}
    assert found["empty.json"] == {
        "severity": "damage",
        "kind": "changed",
        "path": "empty.json",
        "session_id": "empty",
        "detail": "it is not as it was written: edited by hand, or changed by the medium",
    }


def test_it_works_beside_an_owner_and_changes_nothing(run: Run, folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        store.append("s1", [2])
        catalog = store._tree._catalog  # type: ignore[union-attr]
        assert catalog is not None
        wait_until(lambda: catalog.after("", 1) is not None)  # else the index changes meanwhile
        before = times(folder)
        result = run("--path", folder, "doctor")
        assert (result.exit_code, result.stdout) == (0, "")
        assert times(folder) == before
        store.append("s1", [3])


def test_no_store_is_a_mistake_of_usage(run: Run, tmp_path: Path) -> None:
    result = run("--path", tmp_path / "absent", "doctor")
    assert result.exit_code == 2
    assert "there is no store" in result.stderr
    assert not (tmp_path / "absent").exists()
    assert run("doctor").exit_code == 2


def test_names_cannot_play_tricks_on_a_terminal(run: Run, filled: Path) -> None:
    (filled / "\x1b[31mred.json").write_bytes(b"{")
    result = run("--path", filled, "doctor")
    assert "\x1b" not in result.stdout
    assert "\\x1b[31mred.json" in result.stdout


def _on_a_terminal(folder: Path) -> tuple[int, str]:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli", "--path", str(folder), "doctor"],
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "140", "TERM": "dumb"},
    ) as process:
        os.close(slave)
        output = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            output += piece
    os.close(master)
    return process.returncode, output.decode()


def test_on_a_terminal_it_is_a_table_with_a_summary(damaged: Path) -> None:
    status, output = _on_a_terminal(damaged)
    assert status == 1
    assert "what is wrong" in output
    assert "refund.json" in output
    assert output.splitlines()[-1].strip() == "1 damaged, 1 notice"


def test_on_a_terminal_a_store_that_is_well_is_said_to_be(filled: Path) -> None:
    status, output = _on_a_terminal(filled)
    assert (status, output.strip()) == (0, "0 damaged, 0 notices")


def test_the_help_has_examples(run: Run) -> None:
    result = run("doctor", "--help")
    assert result.exit_code == 0
    assert "sessionkeeper --path var/agent doctor\n" in result.stdout
    assert "doctor" in run("--help").stdout
