"""`sessionkeeper export`."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sessionkeeper.changing import Changing
from sessionkeeper.cli.completion import session_ids
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import is_terminal, print_json, print_line, print_tabbed
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, within
from sessionkeeper.cli.progress import progress_bar
from sessionkeeper.cli.text import count_of
from sessionkeeper.errors import SessionNotFound
from sessionkeeper.transfer import Exported, export_bundle, export_session


@on_sessions
def export(
    place: Place,
    session_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="The sessions.", autocompletion=session_ids),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file.")],
    everything: Annotated[bool, typer.Option("--all", help="All sessions there are.")] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="TAG", help="Those with this tag, or another one given; repeatable."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a file of that name."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write sessions to a file that `import` takes back.

    One ID makes a session document (JSON); several, --all and --tag make a bundle (a gzipped
    tar archive). The file is there whole, or nothing has changed.
    Columns: file, sessions, messages, bytes.
    Works beside a program that has the store open.

    Examples:
      sessionkeeper --path var/agent export s1 -o s1.json
      sessionkeeper --path var/agent export --tag support -o support.tar.gz
      sessionkeeper --path var/agent export --all -o all.tar.gz --json
    """
    ids, tags = session_ids or [], tag or []
    if sum(map(bool, (ids, tags, everything))) != 1:
        raise typer.BadParameter("give either IDs, or --tag, or --all")
    started = perf_counter()
    with within(place, open_for_reading(place)) as store:
        chosen = None if everything else ids or _tagged(store, tags)
        exported = _export(store, output, chosen, one=len(ids) == 1, overwrite=overwrite)
    _print(exported, perf_counter() - started, as_json=as_json)


def _tagged(store: Changing, tags: Sequence[str]) -> list[str]:
    found = [info.session_id for info in store.search(tags=tags)]
    if not found:
        raise SessionNotFound(f"no session has {' or '.join(map(repr, tags))} among its tags")
    return found


def _export(
    store: Changing,
    output: Path,
    ids: list[str] | None,
    *,
    one: bool,
    overwrite: bool,
) -> Exported:
    if one and ids:
        return export_session(store, ids[0], output, overwrite=overwrite)
    with progress_bar() as advance:
        return export_bundle(
            store,
            output,
            ids,
            overwrite=overwrite,
            progress=lambda done, total: advance(done, total, f"writing {output.name}"),
        )


def _print(exported: Exported, seconds: float, *, as_json: bool) -> None:
    counts = {
        "sessions": exported.sessions,
        "messages": exported.messages,
        "bytes": exported.bytes,
    }
    if as_json:
        print_json({"file": str(exported.path), **counts, "seconds": round(seconds, 3)})
    elif is_terminal():
        words = (
            count_of(exported.sessions, "session"),
            count_of(exported.messages, "message"),
            count_of(exported.bytes, "byte"),
        )
        print_line(f"{exported.path}: {', '.join(words)} in {seconds:.2f} s")
    else:
        print_tabbed((str(exported.path), *map(str, counts.values())))
