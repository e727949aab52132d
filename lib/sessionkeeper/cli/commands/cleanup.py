"""`sessionkeeper cleanup`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, get_args

import typer

from sessionkeeper.answers import Decision, Removal
from sessionkeeper.cli.infos import SESSION, all_infos
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import Column, is_terminal, print_json, print_line, print_rows
from sessionkeeper.cli.places import Place, on_store, open_for_changing, open_for_reading
from sessionkeeper.cli.text import count_of
from sessionkeeper.config import Config
from sessionkeeper.engine.commands import Cleanup
from sessionkeeper.errors import InvalidConfig
from sessionkeeper.opening import layers_of
from sessionkeeper.retention import Retention
from sessionkeeper.session import Basis
from sessionkeeper.storage.platform import FileSystem

_DECISION = Column("decision", styles={"remove": "red", "keep": "green"})
_DONE = (SESSION, Column("reason"), Column("detail"))
_DRY = (SESSION, _DECISION, *_DONE[1:])


@on_store
def cleanup(
    place: Place,
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Remove nothing, explain the decision for each session."),
    ] = False,
    retention_days: Annotated[
        float | None,
        typer.Option("--retention-days", metavar="DAYS", help="Instead of the setting."),
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option("--max-sessions", metavar="N", help="Instead of the setting."),
    ] = None,
    retention_basis: Annotated[
        str | None,
        typer.Option(metavar="|".join(get_args(Basis)), help="Instead of the setting."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Move to the trash what the retention settings let go.

    Columns: session, reason, detail. With --dry-run: session, decision (remove or keep), reason,
    detail. A session goes because of its age or the count of sessions; it stays because it is
    pinned, unfinished (active or paused), promised to be kept for longer, young, among the
    newest, or because retention is unlimited. Settings are those of the environment and of the
    store's config.json; what a running program was given in its code is not known here.
    The sessions of all namespaces count together; they are shown as namespace/id.
    --dry-run works beside a program that has the store open.

    Examples:
      sessionkeeper --path var/agent cleanup --dry-run
      sessionkeeper --path var/agent cleanup --dry-run --retention-days 7 --json
      sessionkeeper --path var/agent cleanup --max-sessions 1000
    """
    given = {
        "retention_days": retention_days,
        "max_sessions": max_sessions,
        "retention_basis": retention_basis,
    }
    retention = _retention(place, {k: v for k, v in given.items() if v is not None})
    if dry_run:
        _explain(place, retention, as_json=as_json)
    else:
        _remove(place, retention, as_json=as_json)


def _retention(place: Place, given: dict[str, object]) -> Retention:
    # What is stored is the store's own business; what is given here must be right by itself.
    try:
        Config.of(place.root, given)
    except InvalidConfig as error:
        raise typer.BadParameter(str(error.args[0])) from error
    config = layers_of(place.path, given, FileSystem()).config()
    return Retention(config.retention_days, config.max_sessions, config.retention_basis)


def _explain(place: Place, retention: Retention, *, as_json: bool) -> None:
    with open_for_reading(place) as store:
        decisions = retention.decisions(all_infos(store), store.now())
    if as_json:
        for decision in decisions:
            print_json(asdict(decision))
        return
    print_rows(_DRY, map(_row_of, decisions))
    if is_terminal():
        print_line(_summary(decisions))


def _row_of(decision: Decision) -> tuple[str, ...]:
    what = "remove" if decision.removed else "keep"
    return (decision.key, what, decision.reason, decision.detail)


def _summary(decisions: Sequence[Decision]) -> str:
    reasons = Counter(decision.reason for decision in decisions if not decision.removed)
    removed = len(decisions) - reasons.total()
    kept = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    return f"{count_of(removed, 'session')} would go, {reasons.total():,} stay" + (
        f": {kept}" if kept else ""
    )


def _remove(place: Place, retention: Retention, *, as_json: bool) -> None:
    with open_for_changing(place) as store:
        removals: list[Removal] = store.ask(Cleanup(retention=retention), timeout=None)
    if as_json:
        for removal in removals:
            print_json(asdict(removal))
    elif removals or not is_terminal():
        print_rows(_DONE, ((r.key, r.reason, r.detail) for r in removals))
    if is_terminal() and not as_json:
        print_line(f"{count_of(len(removals), 'session')} moved to the trash")
