"""What a node or an officer may believe: the repository, verified from a pinned root.

python-tuf's client does the TUF workflow. On top of it stand the rules of our own: time and
versions never go back, the metadata are what the agreement implies, a country's paths are read
from that country's role only, and a country's changed key needs the old key's signature.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Self

from governance.documents.agreement import Agreement
from governance.documents.permit import NodeKeys
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments
from governance.trust.client import Fetch
from governance.trust.high_water import TrustHighWater
from governance.trust.verification import load
from keys.composite import read_identity
from protocols.wire.document_versions import DocumentVersions

__all__ = ["Fetch", "TrustHighWater", "TrustedView"]

NOTHING_SEEN = TrustHighWater()
STUDIES_READ = 64


@lru_cache(maxsize=STUDIES_READ)
def _study(data: bytes) -> Study:
    """Read a study; equal bytes are the same study for ever."""
    return Study.from_canonical(data)


@dataclass(frozen=True)
class TrustedView:
    """Verified documents at one moment. Make a new one for each check: it does not age.

    `absent` says why a party has no documents here (none published, expired, key not approved);
    `ignored` what was published and must not be believed, in sentences for the log. `files` is
    every file the view was made from: `load(view.files.get, ...)` makes it again, offline.
    `expires` is when the first of the top-level documents ends, `signed_until` when the countries'
    own signatures do, `unchanged_until` when the first of all that was read here does. `now` is the
    reference time: the clock, or the latest signed time seen where that is later.
    """

    now: datetime
    agreement: Agreement
    versions: DocumentVersions
    expires: datetime
    signed_until: datetime
    unchanged_until: datetime
    countries: Mapping[str, CountryDocuments]
    absent: Mapping[str, str]
    ignored: tuple[str, ...]
    study_files: Mapping[str, bytes]
    releases: Mapping[str, bytes]
    high_water: TrustHighWater
    files: Mapping[str, bytes]

    @classmethod
    def load(
        cls,
        fetch: Fetch,
        pinned_root: bytes,
        now: datetime,
        high_water: TrustHighWater = NOTHING_SEEN,
    ) -> Self:
        """Return the view; store its `high_water` for the next one.

        Raises DocumentFault where root, targets, snapshot or timestamp do not verify, are
        expired or older than the floor. A country that does not is in `absent`, alone.
        """
        found = load(fetch, pinned_root, now, high_water)
        held = {country: found.countries[country].version for country in found.countries}
        return cls(
            now=high_water.raised_to(now),
            agreement=found.agreement,
            versions=DocumentVersions(found.root, found.targets, held),
            expires=found.expires,
            signed_until=found.signed_until,
            unchanged_until=found.unchanged_until,
            countries=found.countries,
            absent=found.absent,
            ignored=found.ignored,
            study_files=found.studies,
            releases=found.releases,
            high_water=found.high_water,
            files=found.files,
        )

    @property
    def verified(self) -> DocumentVersions:
        """The highest versions ever verified, also of documents that have lapsed since.

        Only for finding who holds something newer: lapsed documents permit nothing.
        """
        high_water, held = self.high_water, self.versions
        named = {party.country: party.officer_key for party in self.agreement.parties}
        same = {country for country, key in named.items() if high_water.keys.get(country) == key}
        seen = {country: each for country, each in high_water.countries.items() if country in same}
        return DocumentVersions(held.root, held.targets, {**seen, **held.countries})

    def study(self, digest: str) -> Study | None:
        """Return the study with this digest. Raises DocumentFault if it cannot be read."""
        data = self.study_files.get(digest)
        return None if data is None else _study(data)

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """Every published study that can be read, by digest; in order of their ids."""
        found = []
        for data in self.study_files.values():
            # one unreadable proposal must not hide the others
            with suppress(DocumentFault):
                found.append(_study(data))
        return {study.digest: study for study in sorted(found, key=lambda study: study.id)}

    def country(self, country: str) -> CountryDocuments | None:
        """Return that country's documents; `absent` says why there are none."""
        return self.countries.get(country)

    def node_keys(self, country: str) -> NodeKeys | None:
        """Return the public keys of that country's node."""
        documents = self.countries.get(country)
        return documents.node if documents else None

    def ed25519_only(self, countries: Iterable[str]) -> list[str]:
        """Return those whose node has a key that cannot sign as the agreement asks, sorted."""
        keys = {country: self.node_keys(country) for country in countries}
        suite = self.agreement.signatures
        return sorted(
            country
            for country, node in keys.items()
            if node and not suite.admits(read_identity(node.identity_key))
        )

    def require_suite(self, countries: Iterable[str]) -> None:
        """Return when every node of these countries can sign as is asked. Raises DocumentFault."""
        if lacking := self.ed25519_only(countries):
            raise DocumentFault(
                f"The node of {', '.join(lacking)} signs with Ed25519 only",
                why="the agreement asks for Ed25519 and ML-DSA-65 in every message of a run",
                fix="there: `pratique-node rotate-keys`; then its officer signs node-keys.json",
            )

    def with_own(self, own: CountryDocuments) -> Self:
        """Return the view with one country's documents as its own officer delivered them.

        Raises DocumentFault where the agreement names another key for the country than the one
        that verified `own`, or than was seen before; or where a newer version is published.
        """
        party = self.agreement.party(own.country)
        trusted = {own.key, self.high_water.keys.get(own.country)}
        if party is None or trusted != {party.officer_key}:
            raise DocumentFault(
                f"The agreement names another document key for {own.country} than is pinned here",
                why=self.absent.get(own.country, "its officer's key was replaced, or it left"),
                fix="compare fingerprints with your own officer before you approve anything",
            )
        shown = self.versions.countries.get(own.country, 0)
        if shown > own.version:
            raise DocumentFault(
                f"Your officer has signed version {shown}; this node has {own.version}",
                why="a node takes its own country's documents from its officer alone",
                fix="have your officer run `renew --node FOLDER`, or `renew --bundle-out FILE`, "
                "which you hand over with `pratique-node accept FILE`",
            )
        return self._replaced(own)

    def _replaced(self, own: CountryDocuments) -> Self:
        versions = {**self.versions.countries, own.country: own.version}
        return replace(
            self,
            versions=DocumentVersions(self.versions.root, self.versions.targets, versions),
            countries={**self.countries, own.country: own},
            absent={c: why for c, why in self.absent.items() if c != own.country},
            high_water=self.high_water.with_country(own.country, own.version, own.signed_at),
        )
