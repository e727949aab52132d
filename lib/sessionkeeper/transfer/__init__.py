"""Bringing sessions in from files that other programs wrote."""

from sessionkeeper.transfer.importer import Imported, import_file, write_staged
from sessionkeeper.transfer.mapping import FieldMapping
from sessionkeeper.transfer.reading import MAX_IMPORT_BYTES
from sessionkeeper.transfer.staging import StagedFile, stage_file
from sessionkeeper.transfer.template import Template

__all__ = [
    "MAX_IMPORT_BYTES",
    "FieldMapping",
    "Imported",
    "StagedFile",
    "Template",
    "import_file",
    "stage_file",
    "write_staged",
]
