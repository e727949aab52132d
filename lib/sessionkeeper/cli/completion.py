"""Ids of sessions for a shell that completes words: from the names of files, nothing is opened."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import typer

from sessionkeeper.errors import SessionKeeperError
from sessionkeeper.layout import SUFFIX, Layout, check_namespace, check_session_id, plain_stem
from sessionkeeper.settings import PATH_VARIABLE

# More than that nobody reads, and a shell must not wait.
MOST: Final = 200


def session_ids(context: typer.Context, incomplete: str) -> list[str]:
    """The ids that begin as a word does; none where that cannot be told without opening a store.

    Long ids are left out, for the names of their files do not tell them.
    """
    folder = _folder(context)
    if folder is None:
        return []
    try:
        with os.scandir(folder) as entries:
            found = (unquote(stem) for stem in _stems(entries))
            return sorted(islice(filter(lambda each: each.startswith(incomplete), found), MOST))
    except OSError:
        return []


def _stems(entries: Iterator[os.DirEntry[str]]) -> Iterator[str]:
    for entry in entries:
        stem = entry.name.removesuffix(SUFFIX)
        if stem != entry.name and _is_plain(stem):
            yield stem


def _is_plain(stem: str) -> bool:
    try:
        return plain_stem(check_session_id(unquote(stem))) == stem
    except SessionKeeperError:
        return False


def _folder(context: typer.Context) -> Path | None:
    contexts = [each for each in (context, context.parent) if each is not None]
    given = next((path for each in contexts if (path := each.params.get("path"))), None)
    path = given or os.environ.get(PATH_VARIABLE)
    if not path:
        return None
    root = Path(path).expanduser().resolve()
    name = Layout.found_in(root)
    if name is None or name == "single":
        return None
    sessions, namespace = Layout.of(root, name).sessions, context.params.get("namespace")
    try:
        return sessions / check_namespace(namespace) if namespace else sessions
    except SessionKeeperError:
        return None
