"""The application: what may stand before a command, and the commands."""

from typing import Annotated

import typer

from sessionkeeper.cli.commands.backups import backups, restore
from sessionkeeper.cli.commands.cleanup import cleanup
from sessionkeeper.cli.commands.config import config
from sessionkeeper.cli.commands.delete import delete, undelete
from sessionkeeper.cli.commands.demo import demo
from sessionkeeper.cli.commands.doctor import doctor
from sessionkeeper.cli.commands.erase import erase
from sessionkeeper.cli.commands.export import export
from sessionkeeper.cli.commands.import_ import import_
from sessionkeeper.cli.commands.list_ import list_
from sessionkeeper.cli.commands.pin import pin, unpin
from sessionkeeper.cli.commands.search import search
from sessionkeeper.cli.commands.show import show
from sessionkeeper.cli.commands.stats import stats
from sessionkeeper.cli.commands.tag import tag
from sessionkeeper.cli.commands.tail import tail
from sessionkeeper.cli.commands.trash import trash
from sessionkeeper.cli.commands.watch import watch
from sessionkeeper.cli.failures import ReportingGroup
from sessionkeeper.cli.help import help_of
from sessionkeeper.cli.logs import warnings_shown
from sessionkeeper.cli.options import PathOption
from sessionkeeper.cli.output import print_line
from sessionkeeper.cli.places import Globals

app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    # Without rich's boxes the help keeps the lines of its examples.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"sessionkeeper {_version()}")
        raise typer.Exit


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - slow, and rarely asked for

    try:
        return metadata.version("sessionkeeper")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(
    context: typer.Context,
    path: PathOption = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Look into a store of sessions, change it, and see it survive.

    Results are tables on a terminal, tab-separated lines elsewhere, and with --json one JSON
    object a line; times are UTC. What is only said, errors too, is on standard error.

    Exit status: 0 done; 1 failed; 2 used wrongly, or there is no store; 75 another process
    owns the store (try later); 130 ended with Ctrl-C.

    Example: sessionkeeper --path var/agent list --limit 10
    """
    del version
    context.obj = Globals(path)
    context.with_resource(warnings_shown())


app.callback(help=help_of(main))(main)
for name, command in (
    ("demo", demo),
    ("list", list_),
    ("search", search),
    ("show", show),
    ("tail", tail),
    ("watch", watch),
    ("stats", stats),
    ("doctor", doctor),
    ("import", import_),
    ("export", export),
    ("tag", tag),
    ("pin", pin),
    ("unpin", unpin),
    ("delete", delete),
    ("trash", trash),
    ("undelete", undelete),
    ("erase", erase),
    ("backups", backups),
    ("restore", restore),
    ("cleanup", cleanup),
    ("config", config),
):
    app.command(name, help=help_of(command))(command)
