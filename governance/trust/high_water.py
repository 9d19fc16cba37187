"""What a reader has seen and may never go back: versions, time, and the countries' keys."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from governance.documents.models import Country, PublicKey, UtcTime
from keys.identity import VerifyKey

Version = Annotated[int, Field(ge=0)]


class TrustHighWater(BaseModel):
    """What one reader of documents has seen, stored as JSON between checks.

    A node starts with the key of its own country, pinned at `init`:
    `TrustHighWater(keys={"DK": "ed25519:..."})`. Other keys come from the first view. `latest` is
    the latest signed time seen. `online` is the id of the key that signed snapshot and timestamp.
    Versions of snapshot and timestamp are compared only with versions signed by the same key. If a
    thief signed a huge version, a new online key starts the count again (TUF specification,
    5.3.11).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Version = 0
    targets: Version = 0
    snapshot: Version = 0
    timestamp: Version = 0
    countries: dict[Country, Version] = {}
    keys: dict[Country, PublicKey] = {}
    online: str = ""
    latest: UtcTime | None = None

    def with_approved_key(self, country: str, key: VerifyKey) -> Self:
        """Return a copy with a country's changed key, which the local operator approved.

        The version seen under the old key is forgotten.
        """
        countries = {each: seen for each, seen in self.countries.items() if each != country}
        keys = {**self.keys, country: key.to_text()}
        return self.model_copy(update={"keys": keys, "countries": countries})

    def later_of(self, moment: datetime) -> datetime:
        """Return the moment, or the latest signed time seen if that is later."""
        return moment if self.latest is None else max(moment, self.latest)

    def with_country(self, country: str, version: int, signed_at: datetime) -> Self:
        """Return a copy after documents of one country were seen."""
        seen = max(version, self.countries.get(country, 0))
        return self.model_copy(
            update={
                "countries": {**self.countries, country: seen},
                "latest": self.later_of(signed_at),
            }
        )
