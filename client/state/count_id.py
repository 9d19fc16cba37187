"""The ids of a noisy count of a cohort: of the cohort, and of the charge in the ledger."""

from dataclasses import dataclass

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit
from governance.documents.study import Study
from keys.derive import labelled_hash

PERMIT_LABEL = "pratique/cohort-count/v2"
COHORT_LABEL = "pratique/shared-cohort-count/v1"
VERSION_LABEL = "pratique/counted-records/v1"
COUNT_PREFIX, COUNT_ID_BYTES, COHORT_BYTES = "count-", 13, 7


@dataclass(frozen=True)
class CountId:
    """Which count decides about a study.

    If the agreement states the cost of a count, all studies of the same cohort share it. Then
    `cohort` identifies the cohort, the noise and the floor, and each version of the records has its
    own count. Otherwise `cohort` is empty, and each permit has one count.

    The ids in the ledger have 32 characters, as run ids have, and are none: a run id is all
    hexadecimal.
    """

    cohort: str
    permit: str

    @classmethod
    def of(cls, study: Study, agreement: Agreement, permit: Permit) -> "CountId":
        """Return the id of the count for a study under these documents."""
        if agreement.cohort_count is None:
            return cls("", permit.digest)
        terms = agreement.cohort_count.noise_std, agreement.smallest_cohort
        parts = (study.cohort_definition, *(str(term).encode() for term in terms))
        return cls(labelled_hash(COHORT_LABEL, *parts).hex(), permit.digest)

    @property
    def prefix(self) -> str:
        """The beginning of the ids under which the ledger charges counts of this cohort."""
        if self.cohort:
            return COUNT_PREFIX + self.cohort[: 2 * COHORT_BYTES]
        digest = labelled_hash(PERMIT_LABEL, self.permit.encode())
        return COUNT_PREFIX + digest[:COUNT_ID_BYTES].hex()

    def charged_as(self, data_version: str) -> str:
        """Return the id under which the ledger charges the count of this version of the records."""
        rest = COUNT_ID_BYTES - COHORT_BYTES if self.cohort else 0
        version = labelled_hash(VERSION_LABEL, self.cohort.encode(), data_version.encode())
        return self.prefix + version[:rest].hex()
