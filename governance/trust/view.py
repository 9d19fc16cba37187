"""The trusted view of a node or an officer: the repository, verified from a pinned root.

python-tuf's client does the TUF workflow. Our own rules come on top: time and versions never go
back, the metadata are what the agreement implies, a country's paths are read from that country's
role only, and a country's changed key needs the old key's signature.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Self

from governance.documents.agreement import Agreement
from governance.documents.permit import NodeKeys, Permit
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments
from governance.trust.client import Fetch, nothing_held
from governance.trust.high_water import TrustHighWater
from governance.trust.verification import load
from keys.composite import read_identity
from protocols.wire.document_versions import DocumentVersions

__all__ = ["Fetch", "TrustHighWater", "TrustedView"]

NOTHING_SEEN = TrustHighWater()
STUDIES_READ = 64


@lru_cache(maxsize=STUDIES_READ)
def _study(data: bytes) -> Study:
    """Read a study; cached, because equal bytes are always the same study."""
    return Study.from_canonical(data)


@dataclass(frozen=True)
class TrustedView:
    """Verified documents at one moment. Make a new view for each check: it is not updated.

    `absent` says why a party's permits do not count: it has no documents here (none published,
    expired, key not approved), or one of them cannot be read.
    `ignored` lists what was published and must not be trusted, in sentences for the log. `files`
    are all files that the view was made from: `load(view.files.get, ...)` makes it again, offline.
    `expires` is when the first of the top-level documents expires, `signed_until` when the
    countries' signatures on them do, `unchanged_until` when the first of all documents does. `now`
    is the reference time: the clock, or the latest signed time seen if that is later. `releases`
    are the digests of the results that the coordinator lists.
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
    releases: frozenset[str]
    high_water: TrustHighWater
    files: Mapping[str, bytes]

    @classmethod
    def load(
        cls,
        fetch: Fetch,
        pinned_root: bytes,
        now: datetime,
        high_water: TrustHighWater = NOTHING_SEEN,
        *,
        held: Fetch = nothing_held,
    ) -> Self:
        """Return the view; store its `high_water` for the next one.

        `held` returns the reader's own copy of a file; only what has changed is fetched.

        Raises DocumentFault if root, targets, snapshot or timestamp do not verify, are expired or
        are older than `high_water`, and whatever `fetch` raises. A country whose documents do not
        verify is in `absent`.
        """
        verified = load(fetch, pinned_root, now, high_water, held=held)
        versions = {country: each.version for country, each in verified.countries.items()}
        return cls(
            now=high_water.later_of(now),
            agreement=verified.agreement,
            versions=DocumentVersions(verified.root, verified.targets, versions),
            expires=verified.expires,
            signed_until=verified.signed_until,
            unchanged_until=verified.unchanged_until,
            countries=verified.countries,
            absent=verified.absent,
            ignored=verified.ignored,
            study_files=verified.studies,
            releases=verified.releases,
            high_water=verified.high_water,
            files=verified.files,
        )

    @property
    def verified(self) -> DocumentVersions:
        """The highest versions ever verified, also of documents that have expired since.

        Only to find out who has newer documents: expired documents permit nothing.
        """
        high_water, current = self.high_water, self.versions
        named = {party.country: party.officer_key for party in self.agreement.parties}
        same = {country for country, key in named.items() if high_water.keys.get(country) == key}
        seen = {country: each for country, each in high_water.countries.items() if country in same}
        return DocumentVersions(current.root, current.targets, {**seen, **current.countries})

    def study(self, digest: str) -> Study | None:
        """Return the study with this digest. Raises DocumentFault if it cannot be read."""
        data = self.study_files.get(digest)
        return None if data is None else _study(data)

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """Every published study that can be read, by digest, in the order of their ids."""
        readable = []
        for data in self.study_files.values():
            # one unreadable proposal must not hide the others
            with suppress(DocumentFault):
                readable.append(_study(data))
        return {study.digest: study for study in sorted(readable, key=lambda study: study.id)}

    def country(self, country: str) -> CountryDocuments | None:
        """Return that country's documents; `absent` says why there are none."""
        return self.countries.get(country)

    def permit(self, country: str, study: str) -> Permit | None:
        """Return that country's permit for the study with this digest."""
        documents = self.countries.get(country)
        return documents.permit(study) if documents else None

    def permitted_minimum(self, study: Study) -> int:
        """Return the largest number of countries that a permit for the study demands; 0 if none."""
        asked = (self.countries.get(country) for country in study.countries)
        return max((each.permitted_minimum(study.digest) for each in asked if each), default=0)

    def node_keys(self, country: str) -> NodeKeys | None:
        """Return the public keys of that country's node."""
        documents = self.countries.get(country)
        return documents.node if documents else None

    def ed25519_only(self, countries: Iterable[str]) -> list[str]:
        """Return the countries whose node's key cannot sign as the agreement requires, sorted."""
        keys = {country: self.node_keys(country) for country in countries}
        suite = self.agreement.signatures
        return sorted(
            country
            for country, node in keys.items()
            if node and not suite.admits(read_identity(node.identity_key))
        )

    def require_signature_algorithms(self, countries: Iterable[str]) -> None:
        """Raise DocumentFault unless every node of these countries can sign as is required."""
        if lacking := self.ed25519_only(countries):
            raise DocumentFault(
                f"The node of {', '.join(lacking)} signs with Ed25519 only",
                why="the agreement requires Ed25519 and ML-DSA-65 in every message of a run",
                fix="run `pratique-node rotate-keys` there; then its officer signs node-keys.json",
            )

    def with_own(self, own: CountryDocuments) -> Self:
        """Return the view with one country's documents as its own officer delivered them.

        Raises DocumentFault if the agreement names another key for the country than the one that
        verified `own` or was seen before, or if a newer version is published.
        """
        party = self.agreement.party(own.country)
        trusted = {own.key, self.high_water.keys.get(own.country)}
        if party is None or trusted != {party.officer_key}:
            raise DocumentFault(
                f"The agreement names another document key for {own.country} than is pinned here",
                why=self.absent.get(own.country, "its officer's key was replaced, or it left"),
                fix="compare fingerprints with your own officer before you approve anything",
            )
        seen = self.high_water.countries.get(own.country, 0)
        published = max(self.versions.countries.get(own.country, 0), seen)
        if published > own.version:
            raise DocumentFault(
                f"Your officer has signed version {published}; this node has {own.version}",
                why="a node accepts its country's documents from its officer only",
                fix="have your officer run `renew --node FOLDER`, or `renew --bundle-out FILE`, "
                "which you hand over with `pratique-node accept FILE`",
            )
        return self._replaced(own)

    def _replaced(self, own: CountryDocuments) -> Self:
        versions = {**self.versions.countries, own.country: own.version}
        others = {c: why for c, why in self.absent.items() if c != own.country}
        return replace(
            self,
            versions=DocumentVersions(self.versions.root, self.versions.targets, versions),
            countries={**self.countries, own.country: own},
            absent={**others, own.country: own.fault} if own.fault else others,
            high_water=self.high_water.with_country(own.country, own.version, own.signed_at),
        )
