"""Runs the main commands on a terminal and writes down what they print.

Times, sizes and whatever names the machine are masked, so that it is the same each time.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionkeeper import SessionStore

COLUMNS: Final = 80

RUNS: Final = """\
[
  {"id": "order-17", "title": "A refund", "messages": [
    {"role": "user", "content": "Where is my refund?"},
    {"role": "assistant", "content": "It was sent on Monday."}]},
  {"id": "order-18", "title": "A late parcel", "messages": [
    {"role": "user", "content": "When does it arrive?"}]},
  {"id": "order-19", "title": "Nothing yet", "messages": []}
]
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what to say before it.

    Attributes:
        about: In words.
        command: As it is typed.
        beside_owner: Whether another program has the store open meanwhile.
    """

    about: str
    command: str
    beside_owner: bool = False


STEPS: Final = (
    Step(
        "`runs.json` was written by another program:",
        "sessionkeeper import runs.json --tag imported --title '{title}'",
    ),
    Step("", "sessionkeeper list"),
    Step("", "sessionkeeper show order-17"),
    Step("", "sessionkeeper tag order-17 --add refund --remove imported"),
    Step("", "sessionkeeper search --tag refund"),
    Step("", "sessionkeeper list --limit 1 --json"),
    Step("What would a limit do, and why would the others stay?", "sessionkeeper pin order-19"),
    Step("", "sessionkeeper cleanup --dry-run --max-sessions 1"),
    Step("Deleting can be taken back:", "sessionkeeper delete order-18"),
    Step("", "sessionkeeper trash"),
    Step("", "sessionkeeper undelete order-18"),
    Step("Erasing cannot:", "sessionkeeper erase order-18 --yes"),
    Step("Settings that stay with the folder:", "sessionkeeper config --set retention_days=30"),
    Step(
        "Beside a program that has the store open, reading works, and changing says who has it:",
        "sessionkeeper tail order-17 --last 1 --no-follow",
        beside_owner=True,
    ),
    Step("", "sessionkeeper pin order-17", beside_owner=True),
    Step("What is wrong with a store:", "sessionkeeper doctor"),
)

# Each is replaced by something of the same length where a table's columns depend on it.
MASKS: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), "2026-11-21T12:00:00"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "2026-11-21 12:00"),
    (re.compile(r"(?<=:\d\d\.)\d{6}"), "000000"),
    (re.compile(r"in \d+\.\d\d s"), "in 0.05 s"),
    (re.compile(r"(process|pid) \d+"), r"\1 4711"),
    (re.compile(r" on \S+ has"), " on host has"),
    (re.compile(r"host \S+,"), "host host,"),
    (re.compile(r"by process 4711 on \S+"), "by process 4711 on host"),
    (re.compile(r"command .*"), "command agent.py"),
    (re.compile(r"erased \d+ files? of [\d,]+ bytes"), "erased 3 files of 2,048 bytes"),
)


def recording() -> str:
    """The steps as a page has them."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "runs.json").write_text(RUNS)
        for step in STEPS:
            printed, status = _printed(step, Path(folder))
            ended = f"$ echo $?\n{status}\n" if status else ""
            about = f"{step.about}\n\n" if step.about else ""
            parts.append(f"{about}```text\n$ {step.command}\n{masked(printed)}{ended}```")
    return "\n\n".join(parts) + "\n"


def masked(printed: str) -> str:
    """The same with whatever differs each time replaced."""
    for pattern, replacement in MASKS:
        printed = pattern.sub(replacement, printed)
    return re.sub(r" +$", "", printed, flags=re.MULTILINE)


def _printed(step: Step, folder: Path) -> tuple[str, int]:
    owner = (
        SessionStore.open(folder / "var" / "agent", watch=False)
        if step.beside_owner
        else contextlib.nullcontext()
    )
    with owner:
        return on_a_terminal(shlex.split(step.command)[1:], folder)


def on_a_terminal(arguments: list[str], folder: Path) -> tuple[str, int]:
    """What the command line prints on a terminal without colours, and its exit status."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("SESSIONKEEPER_")
    }
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionkeeper.cli", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={
            **plain,
            "SESSIONKEEPER_PATH": "var/agent",
            "COLUMNS": str(COLUMNS),
            # Without styles, and without a progress bar that comes and goes.
            "TERM": "dumb",
            "NO_COLOR": "1",
        },
    )
    os.close(slave)
    shown = b""
    terminal = os.fdopen(master, "rb", buffering=0)
    # With this error Linux says that nobody has the other side open any more.
    with terminal, process, contextlib.suppress(OSError):
        while chunk := os.read(terminal.fileno(), 65536):
            shown += chunk
    return shown.decode().replace("\r\n", "\n"), process.returncode
