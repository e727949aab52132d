"""`sessionkeeper show`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from sessionkeeper.cli.infos import info_as_json
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import (
    console,
    is_terminal,
    print_json,
    print_line,
    print_pairs,
    print_tabbed,
)
from sessionkeeper.cli.places import Place, on_store, open_for_reading
from sessionkeeper.cli.text import as_json as to_json
from sessionkeeper.cli.text import escaped, speaker_and_text
from sessionkeeper.session import Session


@on_store
def show(
    place: Place,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session.")],
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
    with open_for_reading(place) as store:
        session = store.load_session(session_id, last=last)
    if as_json:
        print_json(_as_json(session))
        return
    print_pairs((name, _plain(value)) for name, value in info_as_json(session.info).items())
    print_line("")
    if is_terminal():
        _print_for_people(session)
    else:
        for number, speaker, text in _spoken(session):
            print_tabbed((str(number), speaker, text))


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


def _spoken(session: Session) -> Iterator[tuple[int, str, str]]:
    messages = session.messages
    start = session.info.message_count - len(messages) + 1
    for number, message in enumerate(messages, start):
        yield (number, *speaker_and_text(message))


def _print_for_people(session: Session) -> None:
    terminal = console()
    for number, speaker, text in _spoken(session):
        terminal.print(Text(f"{number} {escaped(speaker)}", style="bold"))
        terminal.print(Text(escaped(text, lines=True)))
