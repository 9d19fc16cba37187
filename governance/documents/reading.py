"""YAML written by people, read into documents; problems are told by file, line and field."""

from pathlib import Path
from typing import TypeVar

from governance.documents.models import Document

D = TypeVar("D", bound=Document)


def read_document(kind: type[D], text: bytes, source: str) -> D:
    """Return the document that the YAML (or JSON) text holds; `source` names it in messages.

    Raises DocumentFault naming each problem: line, field, what is expected.
    """
    raise NotImplementedError


def read_file(kind: type[D], path: Path) -> D:
    """Return the document in a file. Raises DocumentFault."""
    raise NotImplementedError
