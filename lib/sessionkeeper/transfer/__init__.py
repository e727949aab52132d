"""Sessions to and from files outside: documents, bundles, and what other programs wrote."""

from sessionkeeper.transfer.bundles import export_bundle
from sessionkeeper.transfer.conflicts import OnConflict, check_on_conflict
from sessionkeeper.transfer.documents import Exported, export_session
from sessionkeeper.transfer.importer import (
    Imported,
    import_file,
    import_session,
    planned,
    write_staged,
)
from sessionkeeper.transfer.kinds import Kind, kind_of
from sessionkeeper.transfer.mapping import FieldMapping
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES
from sessionkeeper.transfer.report import TranscriptProblem, TranscriptsImported
from sessionkeeper.transfer.staging import Progress, StagedFile, stage_file
from sessionkeeper.transfer.template import Template
from sessionkeeper.transfer.transcripts import import_transcripts
from sessionkeeper.transfer.unbundling import (
    MAX_BUNDLE_BYTES,
    StagedBundle,
    import_bundle,
    planned_bundle,
    staged_bundle,
    write_bundle,
)

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_IMPORT_BYTES",
    "Exported",
    "FieldMapping",
    "Imported",
    "Kind",
    "OnConflict",
    "Progress",
    "StagedBundle",
    "StagedFile",
    "Template",
    "TranscriptProblem",
    "TranscriptsImported",
    "check_on_conflict",
    "export_bundle",
    "export_session",
    "import_bundle",
    "import_file",
    "import_session",
    "import_transcripts",
    "kind_of",
    "planned",
    "planned_bundle",
    "stage_file",
    "staged_bundle",
    "write_bundle",
    "write_staged",
]
