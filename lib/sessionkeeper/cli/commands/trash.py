"""`sessionkeeper trash`."""

from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import Column, print_json, print_rows, shown_time
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, within
from sessionkeeper.cli.text import iso

_COLUMNS = (Column("session"), Column("removed", whole=True), Column("why"))


@on_sessions
def trash(place: Place, *, as_json: JsonOption = False) -> None:
    """List the deleted sessions that can be brought back.

    The one removed last first; `undelete` brings one back until its grace is over, the setting
    trash_days. Columns: session, removed, why. Works beside a program that has the store open.

    Example: sessionkeeper --path var/agent trash
    """
    with within(place, open_for_reading(place)) as store:
        found = store.list_trash()
    if as_json:
        for each in found:
            print_json(
                {
                    "session_id": each.session_id,
                    "removed_at": iso(each.removed_at),
                    "reason": each.reason,
                },
            )
        return
    print_rows(_COLUMNS, ((t.session_id, shown_time(t.removed_at), t.reason) for t in found))
