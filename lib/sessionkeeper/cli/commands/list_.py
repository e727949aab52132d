"""`sessionkeeper list`."""

from sessionkeeper.cli.infos import print_page
from sessionkeeper.cli.options import CursorOption, JsonOption, LimitOption, SortOption
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, within


@on_sessions
def list_(
    place: Place,
    *,
    sort: SortOption = "-changed",
    limit: LimitOption = None,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sessions, the one changed last first.

    With --sort in another order.
    Columns: session, changed, messages, cost, status, tags (comma-separated), title.
    Works beside a program that has the store open.

    Examples:
      sessionkeeper --path var/agent list --limit 10
      sessionkeeper --path var/agent list --sort -cost --limit 10
      sessionkeeper --path var/agent list --json | jq -r .session_id
    """
    with within(place, open_for_reading(place)) as store:
        page = store.list_sessions(order=sort, limit=limit, cursor=cursor)
        print_page(page, as_json=as_json)
