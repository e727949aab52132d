"""Single sessions as files: the session documents that a store itself keeps."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sessionkeeper.errors import CorruptDocument, NewerVersion, PathBlocked
from sessionkeeper.keys import key_of
from sessionkeeper.storage.codec import encode
from sessionkeeper.storage.documents import Document, Record, decode_document, encode_document
from sessionkeeper.storage.lines import Lines
from sessionkeeper.transfer.files import new_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper.changing import Changing
    from sessionkeeper.session import Chunk, Session
    from sessionkeeper.storage.platform import FileSystem


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written.

    Attributes:
        path: The file.
        sessions: How many sessions.
        messages: How many messages in them.
        bytes: The size of the file.
    """

    path: Path
    sessions: int
    messages: int
    bytes: int


def export_session(
    store: Changing,
    session_id: str,
    path: Path,
    *,
    overwrite: bool = False,
    fs: FileSystem | None = None,
) -> Exported:
    """Write one session to a file, as the document that a store keeps of it.

    The file is there whole and durable, or not at all. `import_session` takes it back.

    Args:
        store: Where from; it may be open for reading only.
        session_id: The session.
        path: The file; readable by its owner only.
        overwrite: Replace a file of that name; else that is refused.
        fs: A replacement of the file system, for tests.

    Raises:
        SessionNotFound: There is no such session.
        PathBlocked: Something stands there, or the path lies in the store's own folder.
        OSError: As the system said; nothing has changed.
    """
    refuse_inside(store, path)
    session = store.load_session(session_id)
    with new_file(path, overwrite=overwrite, fs=fs) as file:
        for chunk in document_of(session):
            file.write(chunk)
        size = file.tell()
    return Exported(path, 1, session.info.message_count, size)


def refuse_inside(store: Changing, path: Path) -> None:
    """Refuse to write into the folder of a store, where a file would be taken for a session.

    Raises:
        PathBlocked: The path lies in there.
    """
    if path.parent.resolve().is_relative_to(store.path):
        raise PathBlocked(
            f"{path} lies in the folder of the store",
            path=path,
            hint="Export to a folder outside; what lies in the store's is the store's.",
        )


def document_of(session: Session) -> Sequence[Chunk]:
    """The bytes of a session's document, with its checksum at the end."""
    # What a session says of itself has the same names in its record.
    assigned = {field.name: getattr(session.info, field.name) for field in fields(session.info)}
    metadata = encode(assigned.pop("metadata"), where="metadata")
    key = key_of(assigned.pop("namespace"), assigned.pop("session_id"))
    record = Record(key, **assigned, metadata=metadata)
    # As encoded: decoded for the application, values may no longer be what stands in the file.
    document = Document(
        record,
        Lines(session._chunks),  # noqa: SLF001
        session._state_bytes,  # noqa: SLF001
        session._annotations,  # noqa: SLF001
        session._events,  # noqa: SLF001
    )
    return encode_document(document)


def check_checksum(content: bytes) -> None:
    """Refuse a document that is not as it was written.

    Args:
        content: A document that carries a checksum.

    Raises:
        CorruptDocument: The checksum is not that of the bytes before it.
    """
    try:
        intact = decode_document([content]) is not None
    except (CorruptDocument, NewerVersion):
        return  # the checksum is right; what else is wrong is found when the content is read
    if not intact:
        raise CorruptDocument(
            "its checksum is wrong: it is damaged, or was edited; to take an edited document, "
            "remove the field `checksum` from it",
        )
