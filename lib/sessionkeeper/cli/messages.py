"""Messages of a session, as people and programs are shown them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from sessionkeeper.cli.output import console, is_terminal, print_tabbed
from sessionkeeper.cli.text import escaped, speaker_and_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkeeper.session import Session

_STYLES: Final = {"user": "bold cyan", "assistant": "bold green"}


def numbered(session: Session) -> Iterator[tuple[int, Any]]:
    """The messages that were loaded, each with its number in the session, counted from 1."""
    messages = session.messages
    yield from enumerate(messages, session.info.message_count - len(messages) + 1)


def print_message(number: int, message: Any) -> None:
    """Print one message: a heading and its text on a terminal, one line of cells elsewhere."""
    speaker, text = speaker_and_text(message)
    if not is_terminal():
        print_tabbed((str(number), speaker, text))
        return
    terminal = console()
    heading = f"{number} {escaped(speaker)}"
    terminal.print(Text(heading, style=_STYLES.get(speaker, "bold")))
    terminal.print(Text(escaped(text, lines=True)))
