"""`sessionkeeper import`."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

import typer

from sessionkeeper.changing import Changing
from sessionkeeper.cli.failures import FAILED, complain, report
from sessionkeeper.cli.logs import silenced
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import is_terminal, print_json, print_line, print_tabbed
from sessionkeeper.cli.places import Place, on_sessions, open_for_reading, open_for_writing, within
from sessionkeeper.cli.progress import Advance, progress_bar
from sessionkeeper.cli.text import count_of
from sessionkeeper.errors import ImportRefused, InvalidConfig, StoreNotFound
from sessionkeeper.store import SessionStore
from sessionkeeper.transfer import (
    FieldMapping,
    Imported,
    OnConflict,
    Progress,
    StagedBundle,
    StagedFile,
    check_on_conflict,
    import_transcripts,
    kind_of,
    planned,
    planned_bundle,
    stage_file,
    staged_bundle,
    write_bundle,
    write_staged,
)
from sessionkeeper.transfer.template import FieldError

_UNMAPPED: Final = (
    "Leave the options away that say where fields are; they are for files of other programs."
)


@on_sessions
def import_(
    place: Place,
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
    time: Annotated[
        list[str] | None,
        typer.Option("--time", metavar="KEY=FIELD", help="A time as metadata; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="The same as --on-conflict replace."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything, say what would be stored, store nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Import files, each whole or not at all.

    What `export` has written is known by its content, and so are transcripts of Claude Code (a
    folder of them, or one file): of these only what was added since the last import is taken.
    Any other file holds a list of sessions, one session, or the list of messages of one
    session (its id is then the file's name). A FIELD is a dotted path in an item, as
    info.user_cost; a TEMPLATE is a text with such fields in braces. A time is milliseconds
    since 1970 or ISO 8601. A file that is refused does not keep the others from being taken.

    Columns: file, sessions stored, messages stored, sessions replaced.

    Examples:
      sessionkeeper --path var/agent import all.tar.gz --on-conflict skip
      sessionkeeper --path var/agent import ~/.claude/projects --dry-run
      sessionkeeper --path var/agent import exported.json
      sessionkeeper --path var/agent import runs.json.gz --id '{task_id}-{trial}'
          --messages traj --cost info.user_cost --tag 'trial-{trial}'
    """
    try:
        mapping = FieldMapping.of(
            session_id=session_id,
            messages=messages,
            cost=cost,
            tags=tag or (),
            title=title,
            metadata=_pairs("--metadata", metadata or ()),
            times=_pairs("--time", time or ()),
            state=state,
        )
        conflicts = _on_conflict(on_conflict, overwrite=overwrite)
    except InvalidConfig as error:
        raise typer.BadParameter(str(error)) from error
    given = (session_id, messages, cost, title, metadata, time, state)
    mapped = any(option is not None for option in given)
    with ExitStack() as stack:
        run = _Run(place, mapping, mapped, conflicts, dry_run, as_json, stack)
        taken = [run.take(file) for file in files]
    if not all(taken):
        raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one file, in the words of the output."""

    sessions: int
    messages: int
    replaced: int
    more: dict[str, Any]
    complete: bool = True


@dataclass(slots=True)
class _Run:
    """One run over several files; the store is opened once the first is known to be good."""

    place: Place
    mapping: FieldMapping
    mapped: bool
    on_conflict: OnConflict
    dry_run: bool
    as_json: bool
    stack: ExitStack
    opened: Changing | None = None

    def take(self, file: Path) -> bool:
        """Import one file; whether all of it was taken, or something refused and reported."""
        started = perf_counter()
        try:
            with progress_bar() as advance:
                outcome = self._import(file, advance)
        except ImportRefused as error:
            report(error)
            return False
        self._print(file, outcome, perf_counter() - started)
        return outcome.complete

    def _import(self, file: Path, advance: Advance) -> _Outcome:
        def checking(done: int, total: int) -> None:
            advance(done, total, f"checking {file.name}")

        def storing(done: int, total: int) -> None:
            advance(done, total, f"storing {file.name}")

        kind = kind_of(file)
        if self.mapped and kind == "transcripts" and not file.is_dir():
            kind = "sessions"  # whoever says where the fields are knows better
        if kind != "sessions" and self.mapped:
            raise ImportRefused(f"{file}: its fields are known", path=file, hint=_UNMAPPED)
        if kind == "transcripts":
            return self._transcripts(file, storing)
        if kind == "bundle":
            if self.mapping.tags:
                raise ImportRefused(f"{file}: its tags are known", path=file, hint=_UNMAPPED)
            with staged_bundle(file, progress=checking) as bundle:
                return self._bundle(bundle, storing)
        return self._staged(stage_file(file, self.mapping, progress=checking), storing)

    def _staged(self, staged: StagedFile, progress: Progress) -> _Outcome:
        store = self._store()
        if self.dry_run:
            return _outcome(planned(store, staged, on_conflict=self.on_conflict))
        with silenced():  # every receipt is looked at
            return _outcome(
                write_staged(store, staged, on_conflict=self.on_conflict, progress=progress),
            )

    def _bundle(self, staged: StagedBundle, progress: Progress) -> _Outcome:
        store = self._store()
        if self.dry_run:
            return _outcome(planned_bundle(store, staged, on_conflict=self.on_conflict))
        with silenced():
            return _outcome(
                write_bundle(store, staged, on_conflict=self.on_conflict, progress=progress),
            )

    def _transcripts(self, file: Path, progress: Progress) -> _Outcome:
        try:
            tags = [template.fill({}) for template in self.mapping.tags]
        except FieldError as error:
            raise ImportRefused(f"{file}: {error}", path=file, hint=_UNMAPPED) from error
        imported = import_transcripts(
            self._store(),
            file,
            tags=tags,
            dry_run=self.dry_run,
            progress=progress,
        )
        for problem in imported.problems:
            line = "" if problem.line is None else f": line {problem.line}"
            complain(f"{problem.path}{line}: {problem.kind}: {problem.detail}")
        if imported.left_out > len(imported.problems):
            complain(f"{imported.left_out - len(imported.problems)} more were left out")
        names = ("files", "created", "extended", "unchanged", "empty", "left_out")
        return _Outcome(
            imported.created + imported.extended,
            imported.messages,
            0,
            {name: getattr(imported, name) for name in names},
            # What is torn comes with the next import; anything else does not.
            complete=imported.left_out == sum(p.kind == "torn" for p in imported.problems),
        )

    def _store(self) -> Changing:
        if self.opened is None:
            opened = _look_into(self.place) if self.dry_run else open_for_writing(self.place)
            self.opened = self.stack.enter_context(within(self.place, opened))
        return self.opened

    def _print(self, file: Path, outcome: _Outcome, seconds: float) -> None:
        counts = {
            "sessions": outcome.sessions,
            "messages": outcome.messages,
            "replaced": outcome.replaced,
        }
        if self.as_json:
            dry = {"dry_run": True} if self.dry_run else {}
            more = {**outcome.more, **dry, "seconds": round(seconds, 3)}
            print_json({"file": str(file), **counts, **more})
        elif is_terminal():
            sessions = count_of(outcome.sessions, "session")
            messages = count_of(outcome.messages, "message")
            replaced = f" ({outcome.replaced:,} replaced)" if outcome.replaced else ""
            would = "would store " if self.dry_run else ""
            print_line(f"{file}: {would}{sessions}{replaced}, {messages} in {seconds:.2f} s")
        else:
            print_tabbed((str(file), *map(str, counts.values())))


def _outcome(imported: Imported) -> _Outcome:
    more = {"skipped": imported.skipped, "renamed": dict(imported.renamed)}
    return _Outcome(imported.sessions, imported.messages, imported.replaced, more)


def _look_into(place: Place) -> SessionStore:
    """The store as it is, or an empty one that touches no disk where there is none."""
    try:
        return open_for_reading(place)
    except StoreNotFound:
        return SessionStore.open(place.path, durability="memory", watch=False)


def _on_conflict(given: str | None, *, overwrite: bool) -> OnConflict:
    if not overwrite:
        return check_on_conflict(given or "refuse")
    if given not in (None, "replace"):
        raise typer.BadParameter(f"--overwrite and --on-conflict {given} contradict each other")
    return "replace"


def _pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for pair in pairs:
        key, separator, path = pair.partition("=")
        if not separator or not key or not path:
            raise typer.BadParameter(f"{option} {pair!r} is not KEY=FIELD")
        fields[key] = path
    return fields
