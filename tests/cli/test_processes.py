"""Exit statuses, pipes and terminals, with real processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    RunProcess = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new.json"
    path.write_text('[{"id": "new", "messages": []}]')
    return path


def test_changing_beside_an_owner_names_it_and_can_be_tried_later(
    run_process: RunProcess,
    filled: Path,
    new: Path,
) -> None:
    with SessionStore.open(filled, watch=False) as owner:
        result = run_process("--path", filled, "import", new)
        assert "new" not in owner

    assert result.returncode == 75
    assert result.stdout == ""
    assert f"pid {os.getpid()}" in result.stderr
    for field in ("host ", "since ", "command ", "hint: "):
        assert field in result.stderr
    assert "Traceback" not in result.stderr

    assert run_process("--path", filled, "import", new).returncode == 0


def test_reading_beside_an_owner_in_another_process(
    run_process: RunProcess,
    filled: Path,
) -> None:
    with SessionStore.open(filled, watch=False):
        result = run_process("list", "--path", filled)

    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr.startswith(f"sessionkeeper: process {os.getpid()} on ")
    assert result.stderr.endswith(" has the store open; it is only read\n")
    assert run_process("list", "--path", filled).stderr == ""


def test_exit_statuses(run_process: RunProcess, filled: Path, tmp_path: Path) -> None:
    assert run_process("--path", tmp_path / "absent", "list").returncode == 2
    assert run_process("list").returncode == 2
    assert run_process("--path", filled, "show", "absent").returncode == 1


def test_what_the_system_refuses_is_said_without_a_traceback(
    run_process: RunProcess,
    new: Path,
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")

    result = run_process("--path", in_the_way, "import", new)

    assert result.returncode == 1
    assert "Not a directory" in result.stderr
    assert str(in_the_way) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("many", [False, True], ids=["in a buffer", "more than a pipe holds"])
def test_a_reader_that_has_gone_is_met_in_silence(folder: Path, many: bool) -> None:  # noqa: FBT001
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["x" * 500_000 if many else "x"])
    with subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli", "--path", str(folder), "show", "s1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read()

    assert complaints == b""
    assert process.returncode == 1


def test_an_encoding_that_lacks_a_character_ends_no_command(
    run_process: RunProcess,
    folder: Path,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [], title="Grüße")

    result = run_process("--path", folder, "list", env={"PYTHONIOENCODING": "ascii"})

    assert result.returncode == 0
    assert "Gr\\xfc\\xdfe" in result.stdout


_OF_COLOURS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def on_a_terminal(*arguments: object, columns: int = 120, **environment: str) -> str:
    """What a command prints on a terminal, standard error included."""
    master, slave = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in _OF_COLOURS}
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**plain, "COLUMNS": str(columns), "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    shown = b""
    with os.fdopen(master, "rb", buffering=0) as terminal, process:
        while chunk := _read(terminal.fileno()):
            shown += chunk
    assert process.returncode == 0
    return shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # so Linux says that nobody has the other side open any more
        return b""


def test_people_get_tables_with_nothing_taken_for_markup(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(
            "s1",
            [{"role": "user", "content": "[bold]one\n\x1b[31mtwo :smile:"}],
            title="[red]\x1b[32mTitle[/red]",
        )

    table = on_a_terminal("--path", folder, "list")
    assert "session" in table
    assert "───" in table
    assert r"[red]\x1b[32mTitle[/red]" in table
    assert "\x1b[32m" not in table

    session = on_a_terminal("--path", folder, "show", "s1")
    assert "1 user" in session
    # A line break in a message is one on a terminal, other controls are not obeyed.
    assert "[bold]one\r\n\\x1b[31mtwo :smile:\r\n" in session


def test_long_ids_are_folded_and_never_cut(folder: Path) -> None:
    session_id = "".join(f"{number:03d}" for number in range(50))
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(session_id, [])

    table = on_a_terminal("--path", folder, "list", columns=80, NO_COLOR="1")

    # The first column; a line on which it goes on holds nothing else.
    cells = [line.split()[0] for line in table.splitlines() if line[:1].isdigit()]
    assert len(cells) > 1
    assert "".join(cells) == session_id


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


@pytest.mark.parametrize("command", [["list"], ["cleanup", "--dry-run"], ["config"]])
def test_colours_are_for_terminals_whose_owner_wants_them(
    run_process: RunProcess,
    filled: Path,
    command: list[str],
) -> None:
    assert COLOUR.search(on_a_terminal("--path", filled, *command))
    assert not COLOUR.search(on_a_terminal("--path", filled, *command, NO_COLOR="1"))
    assert not COLOUR.search(on_a_terminal("--path", filled, *command, TERM="dumb"))
    piped = run_process("--path", filled, *command, env={"FORCE_COLOR": "1"})
    assert piped.returncode == 0
    assert "\x1b" not in piped.stdout


def test_people_are_told_in_words_what_was_done(filled: Path) -> None:
    def told(*arguments: str) -> str:
        return on_a_terminal("--path", filled, *arguments)

    assert told("tag", "refund", "--add", "x") == "refund: a, support, x\r\n"
    assert told("pin", "refund") == "refund: pinned\r\n"
    assert told("restore", "refund") == "refund: restored as generation 4, with 4 messages\r\n"
    assert told("delete", "refund") == "refund: in the trash for 7 days\r\n"
    assert told("undelete", "refund") == "refund: back, with 4 messages\r\n"
    assert "0 sessions would go, 3 stay: 1 pinned, 1 unfinished, 1 unlimited" in told(
        "cleanup", "--dry-run"
    )
    assert told("cleanup") == "0 sessions moved to the trash\r\n"
    assert re.fullmatch(
        r"empty: erased \d+ files? of [\d,]+ bytes\r\n", told("erase", "empty", "-y")
    )


def test_people_see_progress_of_an_import_and_programs_do_not(
    run_process: RunProcess,
    folder: Path,
    new: Path,
) -> None:
    quiet = run_process("--path", folder, "import", new)
    assert quiet.stderr == ""
    assert quiet.stdout == f"{new}\t1\t0\t0\n"

    shown = on_a_terminal("--path", folder, "import", new, "--overwrite", columns=300)
    assert "1 session (1 replaced), 0 messages in" in shown
    assert "storing new.json" in shown


def test_people_see_progress_of_a_look_at_all_files(run_process: RunProcess, filled: Path) -> None:
    assert run_process("--path", filled, "doctor").stderr == ""

    shown = on_a_terminal("--path", filled, "doctor")

    assert "looking at " in shown
    assert shown.endswith("0 damaged, 0 notices\r\n")
