"""`sessionkeeper erase`."""

import sys
from typing import Annotated

import typer

from sessionkeeper.changing import Changing
from sessionkeeper.cli.changes import Done, change_each
from sessionkeeper.cli.failures import FAILED, complain
from sessionkeeper.cli.options import IdsArgument, JsonOption
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, require_no_owner, within
from sessionkeeper.cli.text import count_of, escaped


@on_sessions
def erase(
    place: Place,
    session_ids: IdsArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Leave no byte of sessions in the store, at once and for good.

    Files, backups, trash, quarantine, journal and index are cleaned; also of a session that was
    deleted before. It asks first. A copy under another id is another session.
    Columns: session, files, bytes.

    Examples:
      sessionkeeper --path var/agent erase s1
      sessionkeeper --path var/agent erase s1 s2 --yes --json
    """
    wanted = list(dict.fromkeys(session_ids))
    agreed = wanted if yes else _agreed(place, wanted)

    def change(store: Changing, session_id: str) -> Done:
        erased = store.erase_session(session_id, timeout=None)
        words = f"erased {count_of(erased.files, 'file')} of {count_of(erased.size, 'byte')}"
        return Done(words, {"files": erased.files, "bytes": erased.size})

    if agreed:
        change_each(place, agreed, change, as_json=as_json)
    if agreed != wanted:
        raise typer.Exit(FAILED)


def _agreed(place: Place, session_ids: list[str]) -> list[str]:
    """Those that the person at the terminal wants erased."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask; give --yes to erase without a question")
    # Not asked while the store is held: people take their time.
    require_no_owner(place)
    with within(place, open_for_reading(place)) as store:
        known = {each: _described(store, each) for each in session_ids}
    agreed = []
    for session_id, what in known.items():
        if typer.confirm(f"Erase {escaped(session_id)} ({what}) for good?", err=True):
            agreed.append(session_id)
        else:
            complain(f"{session_id} is left as it is")
    return agreed


def _described(store: Changing, session_id: str) -> str:
    if session_id not in store:
        return "not among the sessions; what is left of it elsewhere"
    return count_of(len(store.load_session(session_id, last=0)), "message")
