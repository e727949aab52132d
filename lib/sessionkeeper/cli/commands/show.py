"""`sessionkeeper show`."""

from typing import Annotated, Any

import typer

from sessionkeeper.cli.infos import info_as_json
from sessionkeeper.cli.messages import numbered, print_message
from sessionkeeper.cli.options import IdArgument, JsonOption
from sessionkeeper.cli.output import (
    is_terminal,
    print_json,
    print_line,
    print_pairs,
)
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, within
from sessionkeeper.cli.text import as_json as to_json
from sessionkeeper.session import Session


@on_sessions
def show(
    place: Place,
    session_id: IdArgument,
    *,
    last: Annotated[
        int | None,
        typer.Option("--last", min=0, metavar="N", help="Only so many messages, from the end."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one session: its metadata and its messages.

    Elsewhere than on a terminal: names and values, an empty line, then one line for each
    message with its number, who speaks, and the text. --json prints the whole session, its
    state included, as one object.

    Examples:
      sessionkeeper --path var/agent show s1 --last 5
      sessionkeeper --path var/agent show s1 --json | jq '.messages[-1]'
    """
    with within(place, open_for_reading(place)) as store:
        session = store.load_session(session_id, last=last)
    if as_json:
        print_json(_as_json(session))
        return
    fields = info_as_json(session.info).items()
    # A person is shown what there is; a program finds each name.
    shown = (pair for pair in fields if not is_terminal() or pair[1] not in (None, "", [], {}))
    print_pairs((name, _plain(value)) for name, value in shown)
    print_line("")
    for number, message in numbered(session):
        print_message(number, message)


def _as_json(session: Session) -> dict[str, Any]:
    return {
        **info_as_json(session.info),
        "messages": session.messages,
        "state": session.state,
    }


def _plain(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value)
