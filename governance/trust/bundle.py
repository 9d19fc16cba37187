"""A country's documents in one file: signed metadata and every target it lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from governance.documents.permit import NodeKeys, Permit, Withdrawal
from keys.identity import VerifyKey


@dataclass(frozen=True)
class CountryBundle:
    """One country's role, as its officer hands it out: to the exchange and to the own node."""

    country: str
    metadata: bytes
    targets: Mapping[str, bytes]

    @classmethod
    def from_bytes(cls, data: bytes) -> "CountryBundle":
        """Return the bundle; nothing of it is verified yet. Raises DocumentFault."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the bundle as one file."""
        raise NotImplementedError


@dataclass(frozen=True)
class CountryDocuments:
    """What one country says, verified: node keys, permits, withdrawals, its own policy."""

    country: str
    version: int
    expires: datetime
    node: NodeKeys | None
    permits: Mapping[str, Permit]
    withdrawals: Mapping[str, Withdrawal]
    policy: str | None

    def permit(self, study: str) -> Permit | None:
        """Return the permit for the study with this digest."""
        return self.permits.get(study)

    def withdrawal(self, study: str) -> Withdrawal | None:
        """Return the withdrawal of the study with this digest."""
        return self.withdrawals.get(study)


def own_country(
    bundle: bytes, country: str, pinned: VerifyKey, now: datetime, *, at_least: int = 0
) -> CountryDocuments:
    """Return the own officer's documents, verified by the pinned key alone.

    `at_least` is the last version seen. Raises DocumentFault: another key, an older version,
    expired, another country's path, or contents that do not fit.
    """
    raise NotImplementedError
