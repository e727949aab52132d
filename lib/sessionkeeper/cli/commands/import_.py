"""`sessionkeeper import`."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sessionkeeper.cli.failures import FAILED, report
from sessionkeeper.cli.logs import silenced
from sessionkeeper.cli.options import JsonOption, PathOption
from sessionkeeper.cli.output import is_terminal, print_json, print_line, print_tabbed
from sessionkeeper.cli.places import open_for_writing, store_path
from sessionkeeper.cli.progress import Advance, progress_bar
from sessionkeeper.cli.text import count_of
from sessionkeeper.errors import ImportRefused, InvalidConfig
from sessionkeeper.store import SessionStore
from sessionkeeper.transfer import (
    FieldMapping,
    Imported,
    OnConflict,
    check_on_conflict,
    stage_file,
    write_staged,
)


def import_(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="JSON or JSON Lines, gzipped or not."),
    ],
    *,
    session_id: Annotated[
        str | None,
        typer.Option("--id", metavar="TEMPLATE", help="The id; default: session_id, or id."),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The list of messages; default: messages."),
    ] = None,
    cost: Annotated[str | None, typer.Option(metavar="FIELD", help="The total cost.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TEMPLATE", help="A tag; repeatable."),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="The title.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=FIELD", help="Metadata; repeatable."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The application's own value."),
    ] = None,
    on_conflict: Annotated[
        str | None,
        typer.Option(
            metavar="refuse|rename|replace|skip",
            help="What to do about sessions that exist; default: refuse the file.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="The same as --on-conflict replace."),
    ] = False,
    as_json: JsonOption = False,
    path: PathOption = None,
) -> None:
    """Import files, each whole or not at all.

    A file holds a list of sessions, one session, or the list of messages of one session (its
    id is then the file's name). A FIELD is a dotted path in an item, as info.user_cost; a
    TEMPLATE is a text with such fields in braces. Documents of sessionkeeper itself need no
    options. A file that is refused does not keep the others from being taken.

    Examples:
      sessionkeeper --path var/agent import exported.json
      sessionkeeper --path var/agent import runs.json.gz --id '{task_id}-{trial}'
          --messages traj --cost info.user_cost --tag 'trial-{trial}'
    """
    folder = store_path(context, path)
    try:
        mapping = FieldMapping.of(
            session_id=session_id,
            messages=messages,
            cost=cost,
            tags=tag or (),
            title=title,
            metadata=_metadata(metadata or ()),
            state=state,
        )
        conflicts = _on_conflict(on_conflict, overwrite=overwrite)
    except InvalidConfig as error:
        raise typer.BadParameter(str(error)) from error
    with ExitStack() as stack:
        run = _Run(folder, mapping, conflicts, as_json, stack)
        taken = [run.take(file) for file in files]
    if not all(taken):
        raise typer.Exit(FAILED)


@dataclass(slots=True)
class _Run:
    """One run over several files; the store is opened once the first is known to be good."""

    folder: Path
    mapping: FieldMapping
    on_conflict: OnConflict
    as_json: bool
    stack: ExitStack
    store: SessionStore | None = None

    def take(self, file: Path) -> bool:
        """Import one file; whether that was done, or refused and reported."""
        started = perf_counter()
        try:
            with progress_bar() as advance:
                imported = self._import(file, advance)
        except ImportRefused as error:
            report(error)
            return False
        self._print(imported, perf_counter() - started)
        return True

    def _import(self, file: Path, advance: Advance) -> Imported:
        staged = stage_file(
            file,
            self.mapping,
            progress=lambda done, total: advance(done, total, f"checking {file.name}"),
        )
        if self.store is None:
            self.store = self.stack.enter_context(open_for_writing(self.folder))
        with silenced():  # every receipt is looked at
            return write_staged(
                self.store,
                staged,
                on_conflict=self.on_conflict,
                progress=lambda done, total: advance(done, total, f"storing {file.name}"),
            )

    def _print(self, imported: Imported, seconds: float) -> None:
        counts = {
            "sessions": imported.sessions,
            "messages": imported.messages,
            "replaced": imported.replaced,
        }
        if self.as_json:
            print_json({"file": str(imported.path), **counts, "seconds": round(seconds, 3)})
        elif is_terminal():
            sessions = count_of(imported.sessions, "session")
            messages = count_of(imported.messages, "message")
            replaced = f" ({imported.replaced:,} replaced)" if imported.replaced else ""
            print_line(f"{imported.path}: {sessions}{replaced}, {messages} in {seconds:.2f} s")
        else:
            print_tabbed((str(imported.path), *map(str, counts.values())))


def _on_conflict(given: str | None, *, overwrite: bool) -> OnConflict:
    if not overwrite:
        return check_on_conflict(given or "refuse")
    if given not in (None, "replace"):
        raise typer.BadParameter(f"--overwrite and --on-conflict {given} contradict each other")
    return "replace"


def _metadata(pairs: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for pair in pairs:
        key, separator, path = pair.partition("=")
        if not separator or not key or not path:
            raise typer.BadParameter(f"--metadata {pair!r} is not KEY=FIELD")
        fields[key] = path
    return fields
