"""A valid document of each kind, as inputs from which tests of parsers begin."""

from governance.documents.models import Document
from governance.trust.bundle import CountryBundle
from governance.trust.ceremony import Draft, SignatureSet
from governance.trust.signing import DocumentsToSign
from tests.support.documents import (
    NOW,
    agreement,
    country_metadata,
    node_keys,
    permit,
    raw_key,
    study,
    withdrawal,
)

AGREED = agreement()
ASKED = study(AGREED)
KEY = raw_key(100)
METADATA, _ = country_metadata(KEY, {})
BUNDLE = CountryBundle(country="DK", metadata=METADATA.decode(), targets={})
DRAFT = Draft(version=1, drafted=NOW, agreement=AGREED)
SAMPLES: tuple[Document, ...] = (
    AGREED,
    ASKED,
    permit(AGREED, ASKED),
    withdrawal(ASKED),
    node_keys("DK"),
    BUNDLE,
    DRAFT,
    SignatureSet(draft=DRAFT.digest, root={}, targets={}),
    DocumentsToSign(country="DK", targets={"country-DK/node.json": "{}"}),
)
