"""`sessionkeeper backups` and `restore`."""

from typing import Annotated

import typer

from sessionkeeper.cli.changes import Done, print_done
from sessionkeeper.cli.options import IdArgument, JsonOption
from sessionkeeper.cli.output import Column, print_json, print_rows, shown_time
from sessionkeeper.cli.places import Place, on_sessions, open_for_changing, open_for_reading, within
from sessionkeeper.cli.text import count_of, iso

_COLUMNS = (
    Column("generation", "right"),
    Column("changed", whole=True),
    Column("bytes", "right"),
    Column("file"),
)


@on_sessions
def backups(place: Place, session_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """List the versions of a session that are kept.

    Those that were replaced, the newest first, as many as the setting max_backups says.
    Columns: generation, changed, bytes, file. Works beside a program that has the store open.

    Example: sessionkeeper --path var/agent backups s1
    """
    with within(place, open_for_reading(place)) as store:
        found = store.backups(session_id)
    if as_json:
        for info in found:
            print_json(
                {
                    "session_id": info.session_id,
                    "generation": info.generation,
                    "updated_at": iso(info.updated_at),
                    "size": info.size,
                    "path": str(info.path),
                },
            )
        return
    print_rows(
        _COLUMNS,
        ((str(b.generation), shown_time(b.updated_at), str(b.size), str(b.path)) for b in found),
    )


@on_sessions
def restore(
    place: Place,
    session_id: IdArgument,
    *,
    generation: Annotated[
        int | None,
        typer.Option("--generation", min=1, metavar="N", help="Which; else the newest whole one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to a version of a session that is kept.

    It becomes a new generation, and the one in force is kept among the backups. `backups`
    shows which there are. Columns: session, generation, messages.

    Examples:
      sessionkeeper --path var/agent restore s1
      sessionkeeper --path var/agent restore s1 --generation 3
    """
    with within(place, open_for_changing(place)) as store:
        saved = store.restore(session_id, generation)
    fields = {"generation": saved.generation, "message_count": saved.message_count}
    messages = count_of(saved.message_count, "message")
    done = Done(f"restored as generation {saved.generation}, with {messages}", fields)
    print_done(session_id, done, as_json=as_json)
