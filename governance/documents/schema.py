"""JSON Schemas of the documents, for editors and for other implementations."""

from typing import Any

from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.documents.purposes import nearest
from governance.documents.study import Study
from governance.errors import DocumentFault

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS: dict[str, type[Document]] = {
    kind.model_fields["kind"].default: kind
    for kind in (Agreement, Study, Permit, Withdrawal, NodeKeys)
}
"""Every kind of document, by the value of its field `kind`."""


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document kind, such as `study`.

    Raises DocumentFault for an unknown kind.
    """
    if kind not in KINDS:
        raise DocumentFault(
            f"There is no document of kind {kind!r}{nearest(kind, KINDS)}",
            fix=f"name one of {', '.join(KINDS)}",
        )
    return {"$schema": DIALECT, **KINDS[kind].model_json_schema()}
