"""`sessionkeeper doctor`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sessionkeeper.cli.failures import FAILED
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import Column, is_terminal, print_json, print_line, print_rows
from sessionkeeper.cli.places import Place, on_store, say_who_owns
from sessionkeeper.cli.progress import progress_bar
from sessionkeeper.cli.text import count_of
from sessionkeeper.storage.check import Finding, check_store
from sessionkeeper.storage.usage import measure

_COLUMNS = (
    Column("severity", styles={"damage": "bold red", "notice": "yellow"}),
    Column("kind"),
    Column("where"),
    Column("session"),
    Column("what is wrong"),
)


@on_store
def doctor(
    place: Place,
    *,
    as_json: JsonOption = False,
) -> None:
    """Look at every file of a store and say what is wrong with it.

    It reads all of it, backups and trash too, changes nothing, and works beside a program that
    has the store open. Columns: severity (damage or notice), kind, where, session, what is wrong.

    Exit status: 0 if nothing is damaged, whatever there is to notice; 1 if something is.

    Examples:
      sessionkeeper --path var/agent doctor
      sessionkeeper --path var/agent doctor --json | jq -r 'select(.severity == "damage").path'
    """
    root = place.root
    say_who_owns(place)
    counted = _Counted(_findings(place))
    if as_json:
        for finding in counted:
            print_json(_as_json(finding, root))
    else:
        _print(counted, root)
    if counted.damaged:
        raise typer.Exit(FAILED)


def _findings(place: Place) -> Iterator[Finding]:
    with progress_bar() as advance:
        read = 0

        def looking_at(file: Path) -> None:
            nonlocal read
            read += 1
            advance(read, total, f"looking at {file.name}")

        findings = check_store(place.root, progress=looking_at)
        usage = measure(place.layout)
        total = usage.session_count + usage.backup_count
        yield from findings


class _Counted:
    """The findings, counted as they go by."""

    def __init__(self, findings: Iterator[Finding]) -> None:
        self._findings = findings
        self.damaged = 0
        self.noticed = 0

    def __iter__(self) -> Iterator[Finding]:
        for finding in self._findings:
            if finding.severity == "damage":
                self.damaged += 1
            else:
                self.noticed += 1
            yield finding


def _print(counted: _Counted, root: Path) -> None:
    if not is_terminal():
        print_rows(_COLUMNS, (_row_of(finding, root) for finding in counted))
        return
    rows = [_row_of(finding, root) for finding in counted]
    if rows:
        print_rows(_COLUMNS, rows)
    print_line(f"{counted.damaged:,} damaged, {count_of(counted.noticed, 'notice')}")


def _row_of(finding: Finding, root: Path) -> tuple[str, ...]:
    return (
        finding.severity,
        finding.kind,
        _below(finding.path, root),
        finding.session_id or "",
        finding.detail,
    )


def _as_json(finding: Finding, root: Path) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "path": _below(finding.path, root),
        "session_id": finding.session_id,
        "detail": finding.detail,
    }


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
