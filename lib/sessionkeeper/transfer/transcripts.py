"""Transcripts of Claude Code: a folder of `.jsonl` files, each the records of one session."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessionkeeper.errors import (
    ImportRefused,
    SessionKeeperError,
    SessionNotFound,
    StoreError,
)
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import check_tags
from sessionkeeper.transfer.reading import open_regular, refusing_failures
from sessionkeeper.transfer.records import Object, Records
from sessionkeeper.transfer.report import Report
from sessionkeeper.transfer.transcript import Mark, Refused, Target, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader

    from sessionkeeper.changing import Changing
    from sessionkeeper.session import SessionInfo
    from sessionkeeper.transfer.report import TranscriptsImported
    from sessionkeeper.transfer.staging import Progress

SUFFIX: Final = ".jsonl"
TAG: Final = "claude-code"

# In the first so many records an id is looked for.
_HEAD_RECORDS: Final = 100


def import_transcripts(
    store: Changing,
    folder: Path,
    *,
    tags: Iterable[str] = (),
    dry_run: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> TranscriptsImported:
    """Import the transcripts in a folder, or what was added to them since the last time.

    Each file becomes one session; its id is the `sessionId` of the records, or the file's name
    if there is none or another session has it. Every record is a message, in order and whole;
    only summaries become title and summary instead. A file that is refused does not keep the
    others from being taken.

    Args:
        store: Where to.
        folder: Where the transcripts lie, in it and in the folders below; or one transcript.
        tags: Tags of new sessions, behind `claude-code`.
        dry_run: Only say what would be stored.
        progress: Called with how many bytes were looked at, and how many there are.

    Raises:
        ImportRefused: There is no such folder or file.
        StoreError: The store failed; what was stored before stays, and a second import goes on
            from there.
    """
    target = Target(store, check_tags((TAG, *tags)), dry_run, Report())
    run = _Run(folder, target)
    paths = list(run.transcripts())
    sizes = [_size(path) for path in paths]
    names = {path.stem for path in paths}
    done, total = 0, sum(sizes)
    for path, size in zip(paths, sizes, strict=True):
        run.take(path, names)
        done += size
        progress(done, total)
    return target.report.outcome(folder, len(paths))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0  # said when it is opened


@dataclass(slots=True)
class _Run:
    """One import, and which ids it has given so far."""

    folder: Path
    target: Target
    claimed: set[str] = field(default_factory=set)

    def transcripts(self) -> Iterator[Path]:
        """The files, in the order of their paths."""
        if self.folder.is_file():
            yield self.folder
            return
        if not self.folder.is_dir():
            raise ImportRefused(f"{self.folder}: there is no such folder", path=self.folder)

        def refused(error: OSError) -> None:
            self.target.report.problem(
                Path(error.filename), None, "refused", error.strerror or str(error)
            )

        found: list[Path] = []
        for parent, _, files in os.walk(self.folder, onerror=refused):
            found += [Path(parent, name) for name in files if name.endswith(SUFFIX)]
        yield from sorted(found)

    def take(self, path: Path, names: set[str]) -> None:
        """Import one file, or say why not."""
        try:
            if path != self.folder and path.is_symlink():
                raise ImportRefused(f"{path}: a link, which is not followed", path=path)
            with refusing_failures(path):
                file = open_regular(path, sys.maxsize)
            with file:
                done = self._import(path, file, names)
        except StoreError:
            raise
        except (SessionKeeperError, Refused) as error:
            reason = str(error.args[0]).removeprefix(f"{path}: ")
            self.target.report.problem(path, None, "refused", reason)
        else:
            self.target.report.count(done)

    def _import(self, path: Path, file: BufferedReader, names: set[str]) -> str:
        session_id, info, mark = self._place(path, _candidates(path, file), names)
        self.claimed.add(session_id)
        file.seek(0)
        name = path.relative_to(self.folder) if path != self.folder else Path(path.name)
        records = Records(file, path)
        transcript = Transcript(self.target, path, name.as_posix(), records, session_id)
        if info is None or mark is None:
            return transcript.create()
        return transcript.extend(info, mark)

    def _place(
        self,
        path: Path,
        candidates: list[str],
        names: set[str],
    ) -> tuple[str, SessionInfo | None, Mark | None]:
        """The session that came from this file before, or an id for a new one."""
        free: str | None = None
        for session_id in candidates:
            try:
                info = self.target.store.load_session(session_id, last=0).info
            except SessionNotFound:
                # Transcripts of agents carry the id of the session that started them.
                theirs = session_id in names and session_id != path.stem
                if free is None and not theirs and session_id not in self.claimed:
                    free = session_id
                continue
            mark = Mark.of(info)
            if mark is not None and Path(mark.file).name == path.name:
                return session_id, info, mark
        if free is None:
            taken = ", ".join(repr(session_id[:80]) for session_id in candidates)
            raise Refused(f"there is another session of the id {taken}")
        return free, None, None


def _candidates(path: Path, file: BufferedReader) -> list[str]:
    """The ids that a transcript may have, the best first."""
    stem = check_session_id(path.stem)
    for number, record in enumerate(Records(file, path)):
        inner = record.value.get("sessionId") if isinstance(record, Object) else None
        if inner is not None:
            if not isinstance(inner, str):
                raise Refused(f"its sessionId is {type(inner).__name__}, not a text")
            inner = check_session_id(inner)
            return [stem] if inner == stem else [inner, stem]
        if number >= _HEAD_RECORDS:
            break
    return [stem]
