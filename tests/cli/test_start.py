"""Starting the command line: without its extra, without arguments, with a path."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from sessionkeeper import SessionStore
from sessionkeeper.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]
    RunProcess = Callable[..., subprocess.CompletedProcess[str]]


COMMANDS = tuple(command.name or "" for command in app.registered_commands)
GROUP = typer.main.get_group(app)

# What begins an example, on its own line or behind the word.
EXAMPLE = re.compile(r"^(?:  Example:|   ) sessionkeeper (.*(?:\n {8,}.*)*)", re.MULTILINE)


def examples_of(help_text: str) -> list[list[str]]:
    """The words of each example, up to the first pipe."""
    lines = (found[1].replace("\n", " ") for found in EXAMPLE.finditer(help_text))
    return [shlex.split(line.partition(" | ")[0]) for line in lines]


def run_without(module: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.modules[{module!r}] = None; import sessionkeeper.cli as c; c.run()"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_its_extra_it_says_how_to_install_it(module: str) -> None:
    result = run_without(module)

    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert module in result.stderr
    assert "pip install 'sessionkeeper[cli]'" in result.stderr


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    result = run_without("sessionkeeper.transfer")

    assert result.returncode == 1
    assert "pip install" not in result.stderr
    assert "ModuleNotFoundError" in result.stderr


def test_without_a_command_it_helps(run: Run) -> None:
    result = run()

    assert all(f"  {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")

    assert result.exit_code == 0
    examples = examples_of(result.stdout)
    assert examples, result.stdout
    assert all(command in words for words in examples)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_every_help_can_be_typed(run: Run, command: str) -> None:
    for words in examples_of(run(command, "--help").stdout):
        before, rest = words[: words.index(command)], words[words.index(command) + 1 :]
        assert before in ([], ["--path", "var/agent"])
        # Refuses options that do not exist, and arguments that are missing or too many.
        GROUP.commands[command].make_context(command, rest)


def test_the_list_of_commands_is_not_cut(run: Run) -> None:
    listed = run("--help").stdout.partition("Commands:")[2]

    assert len(listed.strip().splitlines()) == len(COMMANDS)
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(run: Run, command: str) -> None:
    options = run(command, "--help").stdout.partition("\nOptions:\n")[2].splitlines()
    for number, line in enumerate(options):
        if re.match(r"  -", line):
            explained = re.search(r"\S  +\S", line[2:]) or options[number + 1].startswith("   ")
            assert explained, line


def test_a_shell_is_told_how_words_go_on(run_process: RunProcess) -> None:
    words = {"COMP_WORDS": "sessionkeeper un", "COMP_CWORD": "1"}

    completed = run_process(env={"_SESSIONKEEPER_COMPLETE": "complete_bash", **words})
    script = run_process(env={"_SESSIONKEEPER_COMPLETE": "source_bash"})

    assert completed.stdout.split() == ["unpin", "undelete"]
    assert "_SESSIONKEEPER_COMPLETE=complete_bash" in script.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show re", ["refund"]),
        ("pin greeting e", ["empty"]),
        ("watch ", ["a:b", "empty", "greeting", "refund"]),
        ("tag --namespace team ", ["s1"]),
        ("tag --namespace ../x ", []),
        ("undelete ", []),
    ],
)
def test_a_shell_is_told_the_ids_of_sessions(
    run: Run,
    filled: Path,
    words: str,
    expected: list[str],
) -> None:
    with SessionStore.open(filled, watch=False) as store:
        store.save_session("a:b", [])
        store.save_session("x" * 300, [])
        store.scope("team").save_session("s1", [])
    (filled / "no session.json").write_text("")

    def completed(line: str, **environment: str) -> list[str]:
        # fish wants one word a line; the others split at colons.
        asked = {
            "_SESSIONKEEPER_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        return run(env={**asked, "_TYPER_COMPLETE_ARGS": line, **environment}).stdout.split()

    assert completed(f"sessionkeeper {words}", SESSIONKEEPER_PATH=str(filled)) == expected
    assert completed(f"sessionkeeper --path {filled} {words}") == expected
    assert completed(f"sessionkeeper {words}") == []
    assert completed(f"sessionkeeper {words}", SESSIONKEEPER_PATH=f"{filled}/nowhere") == []


def test_it_tells_its_version(run: Run) -> None:
    result = run("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("sessionkeeper ")


@pytest.mark.parametrize(
    "command", [["list"], ["show", "s1"], ["search"], ["stats"], ["import", "x"]]
)
def test_a_command_without_a_store_says_what_to_do(run: Run, command: list[str]) -> None:
    result = run(*command)

    assert result.exit_code == 2
    assert "--path" in result.stderr
    assert "SESSIONKEEPER_PATH" in result.stderr


def test_the_path_stands_before_or_after_the_command_or_in_the_environment(
    run: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    expected = run("--path", filled, "list").stdout
    nowhere = tmp_path / "nowhere"

    assert len(expected.splitlines()) == 3
    assert run("list", "--path", filled).stdout == expected
    assert run("list", env={"SESSIONKEEPER_PATH": str(filled)}).stdout == expected
    # What is nearer to the command comes first.
    assert run("--path", nowhere, "list", "--path", filled).stdout == expected
    environment = {"SESSIONKEEPER_PATH": str(nowhere)}
    assert run("--path", filled, "list", env=environment).stdout == expected


@pytest.mark.parametrize("arguments", [["--path", "", "list"], ["list", "--path", ""]])
def test_an_empty_path_is_not_the_current_folder(
    run: Run,
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(filled)

    result = run(*arguments)

    assert result.exit_code == 2
    assert "--path is empty" in result.stderr
    assert run("list", env={"SESSIONKEEPER_PATH": ""}).exit_code == 2


def test_it_runs_as_a_module(run_process: RunProcess, filled: Path) -> None:
    result = run_process("--path", filled, "stats", "--json")

    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith('{"path":')
