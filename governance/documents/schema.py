"""JSON Schemas of the documents, for editors and for other implementations."""

from typing import Any


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document kind, such as `study`.

    Raises DocumentFault for an unknown kind.
    """
    raise NotImplementedError
