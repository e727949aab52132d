"""Application threads that save and append, and note what was acknowledged."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from sessionkeeper.cli.drill.conversations import conversation
from sessionkeeper.cli.drill.count import Mark
from sessionkeeper.errors import NotExecuted, OutcomeUnknown, StoreBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from sessionkeeper.answers import Saved
    from sessionkeeper.cli.drill.conversations import Turn
    from sessionkeeper.store import SessionStore

    Acknowledged = Callable[[str, Sequence[Mark]], None]

MARK: Final = "mark"
"""The field of a message that holds its mark."""

# All writers leave a note in a shared session after so many turns of their own.
_NOTE_EVERY: Final = 3


class Crew:
    """Some writers, at work between entering and leaving the context.

    Args:
        store: Where they write.
        threads: How many there are.
        acknowledged: Called with the session and the marks of each change, from the writer's
            thread, after the store has said that it is durable.
        failed: Called, from the writer's thread, with what ended a writer; leaving the context
            raises it.
    """

    def __init__(
        self,
        store: SessionStore,
        threads: int,
        acknowledged: Acknowledged,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._failed = failed
        self._failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(_Writer(number, store, acknowledged),),
                name=f"writer-{number}",
            )
            for number in range(1, threads + 1)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        # What the body met is a consequence then, unless it is Ctrl-C.
        if self._failures and (error is None or isinstance(error, Exception)):
            raise self._failures[0]

    def _work(self, writer: _Writer) -> None:
        try:
            for _ in writer.work():
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for us
            self._failures.append(error)
            self._failed(error)


class _Writer:
    """One of them: conversations of its own, and notes in sessions that all write."""

    def __init__(self, number: int, store: SessionStore, acknowledged: Acknowledged) -> None:
        self._number = number
        self._store = store
        self._acknowledged = acknowledged
        self._last = 0

    def work(self) -> Iterator[None]:
        """Work for ever; yields after each change."""
        for round_number in itertools.count(1):
            own = f"case-{self._number}-{round_number:05d}"
            shared = f"desk-{round_number:05d}"
            opening, *turns = conversation(round_number * 100 + self._number)
            self._open(own, opening)
            yield
            for position, turn in enumerate(turns, 1):
                self._append(own, turn)
                yield
                if position % _NOTE_EVERY == 0:
                    note = {"role": "note", "content": f"{own} is at step {position}"}
                    self._append(shared, [note])
                    yield
            self._complete(own)
            yield

    def _open(self, session_id: str, turn: Turn) -> None:
        messages, marks = self._marked(turn)
        tags = ["demo", f"writer-{self._number}"]
        self._send(
            marks,
            lambda: self._store.save_session(session_id, messages, tags=tags, status="active"),
        )

    def _append(self, session_id: str, turn: Turn) -> None:
        messages, marks = self._marked(turn)
        self._send(marks, lambda: self._store.append(session_id, messages))

    def _complete(self, session_id: str) -> None:
        """Replace the whole session by what it is, one message and a status more."""
        (last,), marks = self._marked([{"role": "assistant", "content": "Thank you for calling."}])

        def rewrite() -> Saved:
            session = self._store.load_session(session_id)
            return self._store.save_session(
                session_id,
                [*session.messages, last],
                status="completed",
                expected_generation=session.generation,
            )

        self._send(marks, rewrite)

    def _marked(self, turn: Turn) -> tuple[Turn, list[Mark]]:
        first = self._last + 1
        self._last += len(turn)
        marks = [Mark(self._number, number) for number in range(first, self._last + 1)]
        return [_with_mark(m, mark) for m, mark in zip(turn, marks, strict=True)], marks

    def _send(self, marks: Sequence[Mark], change: Callable[[], Saved]) -> None:
        try:
            saved = change()
        except (NotExecuted, OutcomeUnknown, StoreBusy):
            return  # nothing was promised, so nothing is counted; the next change goes on
        self._acknowledged(saved.session_id, marks)


def _with_mark(message: dict[str, Any], mark: Mark) -> dict[str, Any]:
    return {**message, MARK: list(mark)}
