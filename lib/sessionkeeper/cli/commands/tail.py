"""`sessionkeeper tail`."""

from typing import Annotated, Any

import typer

from sessionkeeper.cli.failures import FAILED, complain
from sessionkeeper.cli.following import Follower
from sessionkeeper.cli.messages import print_message
from sessionkeeper.cli.options import IdArgument, IntervalOption, JsonOption
from sessionkeeper.cli.output import flush, print_json
from sessionkeeper.cli.places import Place, on_sessions, say_who_owns
from sessionkeeper.errors import SessionNotFound
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import Session


@on_sessions
def tail(
    place: Place,
    session_id: IdArgument,
    *,
    last: Annotated[
        int,
        typer.Option("--last", "-n", min=0, metavar="N", help="Begin with so many from the end."),
    ] = 10,
    follow: Annotated[
        bool,
        typer.Option("--follow/--no-follow", help="Whether to wait for more."),
    ] = True,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="STATUS", help="End when the session has this status."),
    ] = None,
    interval: IntervalOption = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Print the messages of a session, and go on as they come.

    It begins with the last ones. Columns: number, who speaks, text. It works beside a program
    that has the store open, also for what no file holds yet. Messages that replace others are
    printed with a word about it on standard error. Ctrl-C ends it; it fails when the session
    goes away.

    Examples:
      sessionkeeper --path var/agent tail s1
      sessionkeeper --path var/agent tail s1 --last 0 --json | jq .message
      sessionkeeper --path var/agent tail s1 --until completed
    """
    checked = check_session_id(session_id)
    follower = Follower(place.layout, interval, place.namespace)
    say_who_owns(place)
    session = follower.session(checked)
    if session is None:
        raise SessionNotFound(f"there is no session {checked!r}", session_id=checked)
    printer = _Printer(checked, as_json=as_json)
    printer.begin(session, last)
    if not follow or _is_over(session, until):
        return
    for changes in follower.changes():
        if any(change.session_id == checked for change in changes):
            session = _loaded(follower, checked)
            printer.go_on(session)
            if _is_over(session, until):
                return


def _is_over(session: Session, until: str | None) -> bool:
    return until is not None and session.status == until


def _loaded(follower: Follower, session_id: str) -> Session:
    session = follower.session(session_id)
    if session is None:
        complain(f"{session_id} is gone")
        raise typer.Exit(FAILED)
    return session


class _Printer:
    """Prints the messages of a session once each."""

    def __init__(self, session_id: str, *, as_json: bool) -> None:
        self._session_id = session_id
        self._as_json = as_json
        self._seen: list[Any] = []

    def begin(self, session: Session, last: int) -> None:
        self._seen = session.messages
        self._print(max(len(self._seen) - last, 0))

    def go_on(self, session: Session) -> None:
        """Print what is new, from the first message on that is another."""
        before, self._seen = self._seen, session.messages
        pairs = zip(before, self._seen, strict=False)
        same = next(
            (number for number, (old, new) in enumerate(pairs) if old != new),
            min(len(before), len(self._seen)),
        )
        if same < len(before):
            complain(f"{self._session_id} was changed from message {same + 1} on")
        self._print(same)

    def _print(self, start: int) -> None:
        for number, message in enumerate(self._seen[start:], start + 1):
            if self._as_json:
                value = {"session_id": self._session_id, "number": number, "message": message}
                print_json(value)
            else:
                print_message(number, message)
        flush()
