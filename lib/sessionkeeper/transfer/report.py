"""What has become of transcripts, and what was left out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

MAX_PROBLEMS: Final = 1000
"""So many are told one by one; the others are only counted."""

ProblemKind = Literal["torn", "damaged", "refused"]


@dataclass(frozen=True, slots=True)
class TranscriptProblem:
    """Something that was left out.

    Attributes:
        path: The file.
        line: The number of the line, or None for the whole file.
        kind: `torn`: a last line whose end is missing; it is taken when the rest has come.
            `damaged`: a line that is no record. `refused`: the whole file, or what is left of it.
        detail: What is wrong, in words.
    """

    path: Path
    line: int | None
    kind: ProblemKind
    detail: str


@dataclass(frozen=True, slots=True)
class TranscriptsImported:
    """What an import of transcripts has stored.

    Attributes:
        path: The folder, or the file.
        files: How many transcripts there are.
        created: Sessions that are new.
        extended: Sessions that were imported before and have more messages now.
        unchanged: Sessions that were imported before, with nothing new.
        empty: Transcripts without a message, of which no session was made.
        messages: Messages stored.
        problems: What was left out, at most `MAX_PROBLEMS`.
        left_out: How many problems there are in all.
    """

    path: Path
    files: int
    created: int
    extended: int
    unchanged: int
    empty: int
    messages: int
    problems: tuple[TranscriptProblem, ...]
    left_out: int


@dataclass(slots=True)
class Report:
    """The outcome of an import while it is running."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[TranscriptProblem] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count of the outcome."""
        self.counts[what] = self.counts.get(what, 0) + number

    def problem(
        self,
        path: Path,
        line: int | None,
        kind: ProblemKind,
        detail: str,
    ) -> None:
        """Report something that is left out."""
        self.count("left_out")
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(TranscriptProblem(path, line, kind, detail))

    def outcome(self, path: Path, files: int) -> TranscriptsImported:
        """All of it."""
        names = ("created", "extended", "unchanged", "empty", "messages", "left_out")
        counted = {name: self.counts.get(name, 0) for name in names}
        return TranscriptsImported(path, files, problems=tuple(self.problems), **counted)
