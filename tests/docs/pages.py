"""Writes what pages of the documentation say of the code, from the code.

`python tests/docs/pages.py` writes it into docs/; the tests compare.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from recording import recording

from sessionkeeper import errors
from sessionkeeper.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessionkeeper.errors import SessionKeeperError

DOCS: Final = Path(__file__).parents[2] / "docs"
MARK: Final = "<!-- From here on written by tests/docs/pages.py -->\n"


# --- errors ---------------------------------------------------------------------------------


def errors_reference() -> str:
    """Every error, in the order and under the headings of the module."""
    parts = []
    for heading, names in _sections():
        parts.append(f"## {heading}")
        parts += [_error(getattr(errors, name)) for name in names]
    return "\n\n".join(parts) + "\n"


def _sections() -> Iterator[tuple[str, list[str]]]:
    source = inspect.getsource(errors)
    lines = source.splitlines()
    headings = {
        number: line.strip("# -").strip()
        for number, line in enumerate(lines, 1)
        if line.startswith("# ---")
    }
    headings[0] = "The base of all"
    found: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            begin = max(number for number in headings if number < node.lineno)
            found.setdefault(headings[begin], []).append(node.name)
    yield from found.items()


def _error(error: type[SessionKeeperError]) -> str:
    summary, *rest = (inspect.getdoc(error) or "").split("\n\n")
    bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
    lines = [f"### {error.__name__}", _one_line(summary)]
    lines += [
        _attributes(part) if part.startswith("Attributes:") else _one_line(part) for part in rest
    ]
    lines += [f"*Hint:* {error.default_hint}", f"*Is a* {bases}."]
    return "\n\n".join(lines)


def _attributes(part: str) -> str:
    carried = [line.strip().partition(": ") for line in part.splitlines()[1:]]
    texts = (f"`{name}`, {_lower(text.rstrip('.'))}" for name, _, text in carried)
    return f"It carries {'; '.join(texts)}."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- the command line -----------------------------------------------------------------------


def cli_reference() -> str:
    """Every command: what it does, its examples, its options."""
    group = typer.main.get_group(app)
    shared = {option for parameter in group.params for option in parameter.opts}
    parts = []
    for name, command in group.commands.items():
        parts += [f"### {name}", *_help(command.help or "")]
        own = [p for p in command.params if not shared & set(p.opts)]
        if own:
            rows = [f"| {_names(p)} | {_cell(_meaning(p))} |" for p in own]
            parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _help(text: str) -> Iterator[str]:
    for paragraph in text.replace("\b\n", "").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        word, _, example = first.partition(": ")
        if word == "Example":
            yield f"```text\n{example}\n```"
        elif first == "Examples:":
            yield f"```text\n{inspect.cleandoc(rest)}\n```"
        else:
            yield _one_line(paragraph)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{str(parameter.metavar).strip('[].')}`" + (" …" if parameter.nargs == -1 else "")
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.is_flag:
        return names
    return _cell(f"{names} {parameter.metavar}")


def _meaning(parameter: Any) -> str:
    default = parameter.default
    told = "" if not isinstance(default, int | float) or isinstance(default, bool) else default
    return f"{parameter.help or ''}{f' Default: {told:g}.' if told != '' else ''}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- pages ----------------------------------------------------------------------------------

GENERATED: Final[dict[str, Callable[[], str]]] = {
    "errors.md": errors_reference,
    "cli.md": cli_reference,
    "recording.md": recording,
}


def written(page: str) -> tuple[str, str]:
    """What a page says by hand, and what of the code."""
    by_hand, mark, generated = (DOCS / page).read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no mark")
    return by_hand, generated.removeprefix("\n")


def write(page: str) -> None:
    """Write anew what a page says of the code."""
    by_hand, _ = written(page)
    (DOCS / page).write_text(f"{by_hand}{MARK}\n{GENERATED[page]()}")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or GENERATED:
        write(chosen)
