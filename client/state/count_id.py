"""The name under which a permit's one noisy cohort count is charged to the ledger."""

from governance.documents.permit import Permit
from keys.derive import labelled_hash

COUNT_LABEL = "pratique/cohort-count/v2"
COUNT_PREFIX, COUNT_ID_BYTES = "count-", 13


def count_id(permit: Permit) -> str:
    """Return the name under which a permit's one count is charged.

    It has the 32 characters of a run id and is none: a run id is hexadecimal throughout.
    """
    digest = labelled_hash(COUNT_LABEL, permit.digest.encode())
    return COUNT_PREFIX + digest[:COUNT_ID_BYTES].hex()
