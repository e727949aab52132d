"""`sessionkeeper delete` and `undelete`."""

from typing import Annotated

import typer

from sessionkeeper.changing import Changing
from sessionkeeper.cli.changes import Done, change_each
from sessionkeeper.cli.options import IdsArgument, JsonOption
from sessionkeeper.cli.places import Place, on_sessions
from sessionkeeper.cli.text import count_of
from sessionkeeper.errors import SessionNotFound


@on_sessions
def delete(place: Place, session_ids: IdsArgument, *, as_json: JsonOption = False) -> None:
    """Move sessions to the trash.

    `undelete` brings them back until the grace is over, the setting trash_days. `erase` leaves
    nothing of a session instead. Columns: session, days of grace.

    Example: sessionkeeper --path var/agent delete s1 s2
    """

    def change(store: Changing, session_id: str) -> Done:
        if not store.delete_session(session_id):
            raise SessionNotFound(f"there is no session {session_id!r}", session_id=session_id)
        days = store.config.trash_days
        return Done(f"in the trash for {days:g} days", {"trash_days": days})

    change_each(place, session_ids, change, as_json=as_json)


@on_sessions
def undelete(
    place: Place,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The sessions.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Bring sessions back from the trash.

    Each is what it was when it was deleted last, and has the backups it had then. Columns:
    session, generation, messages.

    Example: sessionkeeper --path var/agent undelete s1
    """

    def change(store: Changing, session_id: str) -> Done:
        saved = store.undelete_session(session_id)
        fields = {"generation": saved.generation, "message_count": saved.message_count}
        return Done(f"back, with {count_of(saved.message_count, 'message')}", fields)

    change_each(place, session_ids, change, as_json=as_json)
