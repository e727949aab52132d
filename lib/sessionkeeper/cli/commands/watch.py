"""`sessionkeeper watch`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from sessionkeeper.cli.completion import session_ids
from sessionkeeper.cli.failures import complain
from sessionkeeper.cli.following import Change, Follower
from sessionkeeper.cli.infos import SESSION, STATUS, info_as_json
from sessionkeeper.cli.options import IntervalOption, JsonOption
from sessionkeeper.cli.output import (
    Column,
    flush,
    is_terminal,
    print_json,
    print_styled,
    print_tabbed,
    shown_time,
)
from sessionkeeper.cli.places import Place, on_sessions, say_who_owns
from sessionkeeper.cli.text import count_of, iso
from sessionkeeper.layout import check_session_id

_CHANGE: Final = Column("change", styles={"created": "green", "gone": "red"})
_PLAIN: Final = Column("")


@on_sessions
def watch(
    place: Place,
    session_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            help="Only these, which need not exist yet.",
            autocompletion=session_ids,
        ),
    ] = None,
    *,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="End after so many changes."),
    ] = None,
    interval: IntervalOption = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Print the changes of sessions as they happen, by whomever.

    Columns: time, change (created, changed or gone), session, generation, messages, status. A
    session that changes several times between two looks is listed once. It works beside a
    program that has the store open. Ctrl-C ends it.

    Examples:
      sessionkeeper --path var/agent watch
      sessionkeeper --path var/agent watch s1 s2 --count 1
      sessionkeeper --path var/agent watch --json | jq -r .session_id
    """
    wanted = {check_session_id(each) for each in session_ids or ()}
    follower = Follower(place.layout, interval, place.namespace)
    say_who_owns(place)
    _complain(follower)
    left = count
    for changes in follower.changes():
        _complain(follower)
        for change in changes:
            if wanted and change.session_id not in wanted:
                continue
            _print(change, as_json=as_json)
            if left is not None and (left := left - 1) == 0:
                return


def _complain(follower: Follower) -> None:
    for problem in follower.problems:
        complain(f"{problem.kind}: {problem.path}: {problem.detail}")


def _print(change: Change, *, as_json: bool) -> None:
    info = change.info
    status = "" if info is None else info.status or ""
    at = datetime.now(UTC) if info is None else info.updated_at
    if as_json:
        fields: dict[str, Any] = {"at": iso(at), "change": change.kind}
        fields["session_id"] = change.session_id
        print_json({**fields, "info": None if info is None else info_as_json(info)})
    elif is_terminal():
        cells = [(_PLAIN, shown_time(at)), (_CHANGE, change.kind), (SESSION, change.session_id)]
        if info is not None:
            cells += [(_PLAIN, count_of(info.message_count, "message")), (STATUS, status)]
        print_styled(cells)
    else:
        counts = ("", "") if info is None else (str(info.generation), str(info.message_count))
        print_tabbed((iso(at), change.kind, change.session_id, *counts, status))
    flush()
