"""`sessionkeeper search`."""

from datetime import date, datetime
from typing import Annotated

import typer

from sessionkeeper.cli.infos import print_page
from sessionkeeper.cli.options import (
    CursorOption,
    JsonOption,
    LimitOption,
    SortOption,
    parse_when,
)
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, within


@on_sessions
def search(
    place: Place,
    *,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="TAG", help="With this tag, or another one given; repeatable."
        ),
    ] = None,
    all_tags: Annotated[
        list[str] | None,
        typer.Option(
            "--all-tag", "--all-tags", metavar="TAG", help="With this tag; repeatable, all must be."
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Changed at or after this date or time."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Changed before this date or time."),
    ] = None,
    min_cost: Annotated[
        float | None, typer.Option(metavar="COST", help="Costing at least this.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="COST", help="Costing at most this.")
    ] = None,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="With this status.")] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help='With a message that holds these words, "phrases", beginnings*.',
        ),
    ] = None,
    sort: SortOption = "-changed",
    limit: LimitOption = None,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find sessions that meet all conditions.

    The one changed last comes first unless --sort says otherwise; columns are those of `list`. A
    date (2025-01-31) is midnight UTC; a time is ISO 8601 with its zone (2025-01-31T12:00:00Z).
    Texts are looked for in the sessions themselves, so that takes as long as reading them.

    Examples:
      sessionkeeper --path var/agent search --tag support --after 2025-01-01
      sessionkeeper --path var/agent search --min-cost 0.5 --status completed --json
      sessionkeeper --path var/agent search --text 'refund "delayed flight" book*'
    """
    with within(place, open_for_reading(place)) as store:
        page = store.search(
            tags=tag or (),
            all_tags=all_tags or (),
            after=_when(after),
            before=_when(before),
            min_cost=min_cost,
            max_cost=max_cost,
            status=status,
            text=text,
            order=sort,
            limit=limit,
            cursor=cursor,
        )
        print_page(page, as_json=as_json)


def _when(text: str | None) -> date | datetime | None:
    return None if text is None else parse_when(text)
