"""Released results that tests write, read and alter."""

from typing import Any

from governance.results.result import Result
from keys.identity import VerifyKey
from protocols.wire.document_versions import DocumentVersions
from tests.support.patients import FEATURES, glm


def made_result(key: VerifyKey, **changes: Any) -> Result:
    """Return an unsigned result of a small training, which names this key as its signer.

    `changes` are fields of it, the signer included.
    """
    fields: dict[str, Any] = {
        "study_id": "heart",
        "study": "sha256:" + "a" * 64,
        "agreement": "sha256:" + "b" * 64,
        "run": "c" * 32,
        "title": "Heart disease",
        "purpose": "Research",
        "recipients": ("Regional institute",),
        "countries": ("DK", "EE", "NO", "PT"),
        "roster_size": 4,
        "honest": 3,
        "colluding": 1,
        "epsilon": 0.998,
        "delta": 1e-4,
        "task": glm(),
        "features": FEATURES,
        "coordinates": glm().coordinate_names(FEATURES),
        "documents": DocumentVersions(root=1, targets=2, countries={"DK": 3}),
        "released": "2026-09-01T12:00:00Z",
        "keep_until": "2027-09-01T12:00:00Z",
        "signer": key.to_text(),
    }
    return Result.model_validate(fields | changes)
