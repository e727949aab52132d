"""`sessionkeeper list`."""

import typer

from sessionkeeper.cli.infos import print_page
from sessionkeeper.cli.options import CursorOption, JsonOption, LimitOption, PathOption
from sessionkeeper.cli.places import open_for_reading, store_path


def list_(
    context: typer.Context,
    *,
    limit: LimitOption = None,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
    path: PathOption = None,
) -> None:
    """List the sessions, the one changed last first.

    Columns: session, changed, messages, cost, status, tags (comma-separated), title.
    Works beside a program that has the store open.

    Examples:
      sessionkeeper --path var/agent list --limit 10
      sessionkeeper --path var/agent list --json | jq -r .session_id
    """
    with open_for_reading(store_path(context, path)) as store:
        print_page(store.list_sessions(limit=limit, cursor=cursor), as_json=as_json)
