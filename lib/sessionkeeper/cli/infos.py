"""Sessions as rows of a list, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.cli.failures import complain
from sessionkeeper.cli.output import Column, print_json, print_rows, shown_time
from sessionkeeper.cli.text import iso, iso_or_none

if TYPE_CHECKING:
    from sessionkeeper.pages import Page
    from sessionkeeper.session import SessionInfo
    from sessionkeeper.store import SessionStore

SESSION: Final = Column("session", styles={"": "cyan"})
STATUS: Final = Column(
    "status",
    styles={"active": "green", "paused": "yellow", "interrupted": "red", "completed": "dim"},
)
COLUMNS: Final = (
    SESSION,
    Column("changed", whole=True),
    Column("messages", "right"),
    Column("cost", "right"),
    STATUS,
    Column("tags"),
    Column("title"),
)


def row_of(info: SessionInfo) -> tuple[str, ...]:
    """The cells of one session, in the order of `COLUMNS`."""
    return (
        info.session_id,
        shown_time(info.updated_at),
        str(info.message_count),
        f"{info.total_cost:.10g}",
        info.status or "",
        ",".join(info.tags),
        info.title or "",
    )


def info_as_json(info: SessionInfo) -> dict[str, Any]:
    """All metadata of one session, for JSON."""
    return {
        "session_id": info.session_id,
        "namespace": info.namespace,
        "title": info.title,
        "summary": info.summary,
        "status": info.status,
        "tags": list(info.tags),
        "message_count": info.message_count,
        "total_cost": info.total_cost,
        "created_at": iso(info.created_at),
        "updated_at": iso(info.updated_at),
        "completed_at": iso_or_none(info.completed_at),
        "persisted_until": iso_or_none(info.persisted_until),
        "generation": info.generation,
        "lsn": info.lsn,
        "metadata": info.metadata,
        "pinned": info.pinned,
    }


def all_infos(store: SessionStore) -> list[SessionInfo]:
    """The metadata of the sessions of all namespaces, the one changed last first."""
    views = (store, *(store.scope(namespace) for namespace in store.namespaces()))
    infos = [info for view in views for info in view.list_sessions()]
    return sorted(infos, key=lambda info: -info.lsn)


def print_page(page: Page[SessionInfo], *, as_json: bool) -> None:
    """Print a page of sessions; how it continues is said on standard error."""
    if as_json:
        for info in page:
            print_json(info_as_json(info))
    else:
        print_rows(COLUMNS, (row_of(info) for info in page))
    if page.cursor is not None:
        complain(f"there are more: --cursor {page.cursor}")
