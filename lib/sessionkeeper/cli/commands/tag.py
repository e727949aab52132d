"""`sessionkeeper tag`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from sessionkeeper.answers import Saved
from sessionkeeper.changing import Changing
from sessionkeeper.cli.changes import Done, change_each
from sessionkeeper.cli.options import IdsArgument, JsonOption
from sessionkeeper.cli.places import Place, on_sessions


@on_sessions
def tag(
    place: Place,
    session_ids: IdsArgument,
    *,
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="TAG", help="Add it; repeatable."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="TAG", help="Take it away; repeatable."),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option("--replace", metavar="TAG", help="Have this tag instead; repeatable."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take all tags away.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add, remove or replace the tags of sessions.

    What --add and --remove name is one change of each session. Columns: session, generation,
    tags (comma-separated).

    Examples:
      sessionkeeper --path var/agent tag s1 --add urgent --remove new
      sessionkeeper --path var/agent tag s1 s2 --replace support --replace refund
      sessionkeeper --path var/agent tag s1 --clear
    """
    if sum((bool(add or remove), bool(replace), clear)) != 1:
        raise typer.BadParameter("give either --add and --remove, or --replace, or --clear")
    instead = [] if clear else replace or None

    def change(store: Changing, session_id: str) -> Done:
        saved = _change(store, session_id, add or (), remove or (), instead)
        tags = list(store.load_session(session_id, last=0).tags)
        words = ", ".join(tags) or "no tags"
        return Done(words, {"generation": saved.generation, "tags": tags})

    change_each(place, session_ids, change, as_json=as_json)


def _change(
    store: Changing,
    session_id: str,
    add: Iterable[str],
    remove: Iterable[str],
    instead: list[str] | None,
) -> Saved:
    if instead is not None:
        return store.update(session_id, lambda session: session.replace(tags=instead))
    if not remove:
        return store.add_tags(session_id, add)
    if not add:
        return store.remove_tags(session_id, remove)
    gone = set(remove)
    return store.update(
        session_id,
        lambda session: session.replace(
            tags=[*(each for each in session.tags if each not in gone), *add],
        ),
    )
