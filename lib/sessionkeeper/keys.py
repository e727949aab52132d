"""What names a session inside a store: its namespace and its id as one text, the key.

The key of a session in the default namespace is its id; that of any other is `namespace/id`. No id
holds a `/`, so the two are told apart again. Engine and storage pass keys on; what callers see,
and what is written into documents, has namespace and id apart.
"""

from __future__ import annotations

from typing import Final

SEPARATOR: Final = "/"


def key_of(namespace: str, session_id: str) -> str:
    """The key of a session; an empty namespace is the default one."""
    return f"{namespace}{SEPARATOR}{session_id}" if namespace else session_id


def split_key(key: str) -> tuple[str, str]:
    """Namespace and id of a key."""
    namespace, _, session_id = key.rpartition(SEPARATOR)
    return namespace, session_id


def namespace_of(key: str) -> str:
    """The namespace of a key."""
    return key.rpartition(SEPARATOR)[0]


def id_of(key: str) -> str:
    """The id in a key."""
    return key.rpartition(SEPARATOR)[2]


def named(key: str) -> str:
    """A session as texts for people name it."""
    namespace, session_id = split_key(key)
    shown = repr(session_id[:80])
    return f"{shown} of namespace {namespace!r}" if namespace else shown
