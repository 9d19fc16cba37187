"""What a node or an officer may believe: the repository, verified from a pinned root."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from governance.documents.agreement import Agreement
from governance.documents.permit import NodeKeys
from governance.documents.study import Study
from governance.trust.bundle import CountryDocuments
from governance.trust.versions import Versions

Fetch = Callable[[str], bytes | None]
"""Returns the published file of that name, None where there is none."""


class Floor(BaseModel):
    """What was seen before and may never go back: versions, time, country keys. Stored as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: int = 0
    targets: int = 0
    snapshot: int = 0
    timestamp: int = 0
    countries: Mapping[str, int] = {}
    keys: Mapping[str, str] = {}
    latest: datetime | None = None

    def approve_key(self, country: str, key: str) -> "Floor":
        """Return the floor with a country's changed key approved by the local operator."""
        raise NotImplementedError


@dataclass(frozen=True)
class TrustedView:
    """Verified documents at one moment. Make a new one for each check: it does not age."""

    agreement: Agreement
    versions: Versions
    expires: datetime
    countries: Mapping[str, CountryDocuments]
    absent: Mapping[str, str]
    """Why a party has no documents here: none published, expired, key not approved."""
    ignored: tuple[str, ...]
    """What was published and must not be believed, in sentences for the log."""
    studies: Mapping[str, Study]
    releases: Mapping[str, bytes]
    floor: Floor
    files: Mapping[str, bytes]
    """Every file that this view was made from: enough to make it again without a network."""

    @classmethod
    def load(
        cls,
        fetch: Fetch,
        pinned_root: bytes,
        now: datetime,
        floor: Floor = Floor(),  # noqa: B008 - a frozen value
    ) -> "TrustedView":
        """Return the view; its `floor` is to be stored for the next.

        Raises DocumentFault where root, targets, snapshot or timestamp do not verify, are
        expired or older than the floor. A country that does not is in `absent`, alone.
        """
        raise NotImplementedError

    def study(self, digest: str) -> Study | None:
        """Return the study with this digest."""
        raise NotImplementedError

    def country(self, country: str) -> CountryDocuments | None:
        """Return that country's documents."""
        raise NotImplementedError

    def node_keys(self, country: str) -> NodeKeys | None:
        """Return the public keys of that country's node."""
        raise NotImplementedError

    def with_own(self, own: CountryDocuments) -> "TrustedView":
        """Return the view with the own country's documents as its own officer gave them.

        Raises DocumentFault where the repository shows a newer version than the officer gave.
        """
        raise NotImplementedError
