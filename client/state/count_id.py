"""The id under which the ledger charges the one noisy cohort count of a permit."""

from governance.documents.permit import Permit
from keys.derive import labelled_hash

COUNT_LABEL = "pratique/cohort-count/v2"
COUNT_PREFIX, COUNT_ID_BYTES = "count-", 13


def count_id(permit: Permit) -> str:
    """Return the id under which the one cohort count of a permit is charged.

    It has 32 characters, as a run id has. It can never equal a run id: a run id is all hexadecimal.
    """
    digest = labelled_hash(COUNT_LABEL, permit.digest.encode())
    return COUNT_PREFIX + digest[:COUNT_ID_BYTES].hex()
