"""Verify published files, with every check in the order in which trust is built."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Key, Metadata, Root, Signed, Snapshot, Timestamp

from governance.documents.agreement import Agreement, Party
from governance.documents.rotation import KeyHistory
from governance.errors import DocumentFault
from governance.runtime.safe_text import named, quoted
from governance.trust.bundle import CountryDocuments, cut, read_country
from governance.trust.client import (
    METADATA,
    TUF_ERRORS,
    Client,
    Fetch,
    Recorder,
    nothing_held,
)
from governance.trust.high_water import TrustHighWater
from governance.trust.layout import (
    AGREEMENT_PATH,
    CLOCK_SKEW,
    COORDINATOR_ROLE,
    PARTY_FIELD,
    TIMESTAMP_LIFE,
    build_root,
    build_targets,
    key_id,
    role_of,
    signed_at,
    tuf_key,
)
from governance.trust.limits import OF_COORDINATOR
from keys.errors import KeyFault
from keys.identity import VerifyKey
from protocols.wire.encoding import digest

COORDINATOR_PATH = re.compile(r"(studies|releases)/[a-z0-9][a-z0-9-]{0,62}\.json")
STUDIES, RELEASES = "studies/", "releases/"
SHA256 = "sha256"


@dataclass(frozen=True)
class VerifiedDocuments:
    """Everything that was verified, before `TrustedView` is made of it."""

    agreement: Agreement
    root: int
    targets: int
    expires: datetime
    signed_until: datetime
    unchanged_until: datetime
    countries: dict[str, CountryDocuments]
    absent: dict[str, str]
    ignored: tuple[str, ...]
    studies: dict[str, bytes]
    releases: frozenset[str]
    high_water: TrustHighWater
    files: dict[str, bytes]


def load(
    fetch: Fetch,
    pinned_root: bytes,
    now: datetime,
    high_water: TrustHighWater,
    *,
    held: Fetch = nothing_held,
    only: Collection[str] | None = None,
) -> VerifiedDocuments:
    """Return what verifies. Raises DocumentFault if the top-level documents do not verify.

    `held` returns the reader's own copy of a file; only what has changed is fetched. If that does
    not verify, everything is fetched: a copy may be damaged. `only` are the roles of the parties
    whose documents are read; None means all.
    """
    if held is not nothing_held:
        with suppress(DocumentFault):
            return _load(Recorder(fetch, held), pinned_root, now, high_water, only)
    return _load(Recorder(fetch), pinned_root, now, high_water, only)


def _load(
    recorder: Recorder,
    pinned_root: bytes,
    now: datetime,
    high_water: TrustHighWater,
    only: Collection[str] | None,
) -> VerifiedDocuments:
    with _plainly():
        client = Client(recorder, pinned_root, high_water.later_of(now))
        client.refresh()
        return _Loading(client, recorder, high_water, now).loaded(only)


@contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except ExpiredMetadataError as error:
        raise DocumentFault(
            "The documents have expired",
            why=str(error),
            fix="get fresh ones from the exchange; if it has none, ask the coordinator to sign",
        ) from None
    except TUF_ERRORS as error:
        raise _untrusted(str(error)) from None


def _untrusted(why: str) -> DocumentFault:
    return DocumentFault(
        "The documents of the exchange cannot be trusted",
        why=why,
        fix="ask the coordinator, and keep the log; until then nothing is computed",
    )


class _Loading:
    """The verification of all documents with one refreshed client."""

    def __init__(
        self, client: Client, recorder: Recorder, high_water: TrustHighWater, clock: datetime
    ) -> None:
        self._client, self._recorder, self._high_water = client, recorder, high_water
        self._clock, self._now = clock, high_water.later_of(clock)
        self._root, self._targets, self._snapshot, self._timestamp = client.top

    def loaded(self, only: Collection[str] | None) -> VerifiedDocuments:
        self._check_versions()
        self._check_times()
        agreement = self._agreement()
        parties = [p for p in agreement.parties if only is None or role_of(p.country) in only]
        countries, absent, keys, lapsed = self._countries(parties)
        reads_studies = only is None or COORDINATOR_ROLE in only
        studies, ignored = self._coordinator() if reads_studies else ({}, [])
        releases = self._releases() if reads_studies else frozenset()
        top = self._client.top
        return VerifiedDocuments(
            agreement=agreement,
            root=self._root.version,
            targets=self._targets.version,
            expires=min(signed.expires for signed in top),
            signed_until=min(self._root.expires, self._targets.expires),
            unchanged_until=self._unchanged_until(),
            countries=countries,
            absent=absent,
            ignored=(*self._overrides(), *ignored),
            studies=studies,
            releases=releases,
            high_water=self._raised(countries, keys, lapsed),
            files=self._recorder.files,
        )

    def _unchanged_until(self) -> datetime:
        """Return when the first of all metadata read here expires, delegated roles included."""
        return min(signed.expires for signed in self._read())

    def _read(self) -> Iterator[Signed]:
        yield from self._client.top
        yield from self._client.delegated.values()

    def _check_versions(self) -> None:
        for signed in self._client.top:
            seen = getattr(self._high_water, signed.type)
            if signed.version < seen and not self._online_key_changed(signed):
                raise _untrusted(
                    f"{signed.type} is version {signed.version}, but {seen} was seen before: "
                    f"the exchange shows an older state"
                )

    def _online_key_changed(self, signed: Signed) -> bool:
        daily = signed.type in {Snapshot.type, Timestamp.type}
        return daily and self._high_water.online != self._online_key()

    def _online_key(self) -> str:
        return ",".join(sorted(self._root.roles[Timestamp.type].keyids))

    def _check_times(self) -> None:
        for signed in self._client.top:
            self._check_not_ahead(signed)
        if self._timestamp.expires - signed_at(self._timestamp) > TIMESTAMP_LIFE:
            raise _untrusted("the timestamp would be valid for longer than a day")

    def _check_not_ahead(self, signed: Signed) -> None:
        """Check by this machine's clock: the latest time seen could be moved on step by step."""
        newest = self._high_water.later_of(self._clock + CLOCK_SKEW)
        if signed_at(signed) > newest:
            raise _untrusted(
                f"{signed.type} is signed in the future, at {signed_at(signed)}; "
                f"this machine's clock says {self._clock}"
            )

    def _agreement(self) -> Agreement:
        target = self._targets.targets.get(AGREEMENT_PATH)
        if target is None:
            raise _untrusted("they contain no agreement")
        agreement = Agreement.from_canonical(self._client.content(target))
        root, targets = self._root, self._targets
        implied = build_root(agreement, root.version, signed_at(root))
        implied.expires = root.expires  # its signers decide how long it is valid
        if root != implied:
            raise _untrusted("the root's keys or thresholds are not those of the agreement")
        roles = build_targets(agreement, targets.version, signed_at(targets)).delegations
        if targets.delegations != roles:
            raise _untrusted("the roles of the countries are not those of the agreement")
        if max(root.expires, targets.expires) > agreement.sunset:
            raise _untrusted("root or targets would be valid after the agreement has ended")
        return agreement

    def _countries(
        self, parties: Collection[Party]
    ) -> tuple[dict[str, CountryDocuments], dict[str, str], dict[str, str], dict[str, int]]:
        """Return documents, reasons why some do not count, keys, and versions that do not count.

        What is expired or cannot be used does not count; but its country signed it, so nothing
        older counts.
        """
        absent: dict[str, str] = {}
        documents, keys = {}, dict(self._high_water.keys)
        lapsed: dict[str, int] = {}
        for party in parties:
            try:
                keys[party.country] = self._accepted_key(party)
                documents[party.country] = country = self._country(party)
                absent |= {party.country: country.fault} if country.fault else {}
            except DocumentFault as fault:
                absent[party.country] = fault.sentence
                lapsed |= self._signed_version(party, keys)
            except TUF_ERRORS as error:
                absent[party.country] = (
                    f"The documents of {party.country} do not verify: {quoted(str(error))}"
                )
                expired = isinstance(error, ExpiredMetadataError)  # checked after the signature
                lapsed |= self._signed_version(party, keys, expired=expired)
        return documents, absent, keys, lapsed

    def _signed_version(
        self, party: Party, keys: Mapping[str, str], *, expired: bool = False
    ) -> dict[str, int]:
        """Return the version of a country's metadata, if a key that counts here has signed it."""
        role = role_of(party.country)
        signed = expired or role in self._client.delegated
        if not signed or keys.get(party.country) != party.officer_key:
            return {}
        return {party.country: self._snapshot.meta[f"{role}.json"].version}

    def _country(self, party: Party) -> CountryDocuments:
        country = party.country
        meta = self._snapshot.meta.get(f"{role_of(country)}.json")
        same_key = self._high_water.keys.get(country) == party.officer_key
        seen = self._high_water.countries.get(country, 0) if same_key else 0
        if meta is None or meta.version < seen:
            why = f"version {meta.version}, but {seen} was seen" if meta else "none is published"
            raise DocumentFault(f"{country} has no documents here", why=why)
        signed = self._client.role(role_of(country))
        self._check_not_ahead(signed)
        contents = self._client.content
        return read_country(country, party.officer_key, signed, contents, self._now)

    def _accepted_key(self, party: Party) -> str:
        """Follow a country's key from the one last seen through every newer root.

        An officer who signs a root agrees to every key in it. Otherwise the country's own
        statements count, which the former key has signed too.
        """
        known = self._high_water.keys.get(party.country, party.officer_key)
        for root in self._roots_since():
            named = _named_key(root.signed, party.country)
            if named not in {None, known} and _signed_by(root, known):
                known = str(named)
        if known != party.officer_key and not self._stated(party, known):
            raise DocumentFault(
                f"The key of {party.country} has changed",
                why="the new key is neither signed by the old one nor approved here",
                fix="compare the new fingerprint with that country, then approve it "
                f"(`pratique-node approve-key {party.country} FINGERPRINT`)",
            )
        return party.officer_key

    def _stated(self, party: Party, known: str) -> bool:
        try:
            history: KeyHistory | None = self._country(party).history
        except (DocumentFault, *TUF_ERRORS):
            return False
        return history is not None and history.proves_succession(known, party.officer_key)

    def _roots_since(self) -> Iterator[Metadata[Root]]:
        for version in range(self._high_water.root + 1, self._root.version + 1):
            data = self._recorder.files.get(f"{METADATA}{version}.root.json")
            if data is not None:
                yield Metadata[Root].from_bytes(data)

    def _releases(self) -> frozenset[str]:
        """Return the digests of the results that the coordinator lists; none is fetched."""
        if f"{COORDINATOR_ROLE}.json" not in self._snapshot.meta:
            return frozenset()
        listed = self._client.role(COORDINATOR_ROLE).targets.items()
        released = (target.hashes for path, target in listed if is_release(path))
        return frozenset(f"{SHA256}:{hashes[SHA256]}" for hashes in released if SHA256 in hashes)

    def _coordinator(self) -> tuple[dict[str, bytes], list[str]]:
        """Return the studies, and what is ignored. A reader needs no release, and fetches none."""
        if f"{COORDINATOR_ROLE}.json" not in self._snapshot.meta:
            return {}, []
        listed = self._client.role(COORDINATOR_ROLE).targets
        studies = [t for path, t in listed.items() if is_study(path)]
        if excess := OF_COORDINATOR.excess(studies):
            return {}, [f"The coordinator {excess}; all of its studies are ignored"]
        contents = [self._client.content(target) for target in studies]
        others = [path for path in listed if not COORDINATOR_PATH.fullmatch(path)]
        ignored = _ignored(others, "not a path of the coordinator")
        return {digest(data): data for data in contents}, ignored

    def _overrides(self) -> list[str]:
        others = self._targets.targets.keys() - {AGREEMENT_PATH}
        return _ignored(others, "listed by the targets role, which may list only the agreement")

    def _raised(
        self, countries: dict[str, CountryDocuments], keys: dict[str, str], lapsed: dict[str, int]
    ) -> TrustHighWater:
        signed: tuple[Signed, ...] = self._client.top
        seen, known = self._high_water.countries, self._high_water.keys
        still = {c: v for c, v in seen.items() if keys.get(c) == known.get(c)}
        raised = self._high_water.model_copy(
            update={
                **{each.type: each.version for each in signed},
                "countries": {**still, **lapsed},
                "keys": keys,
                "online": self._online_key(),
                "latest": max(self._high_water.later_of(signed_at(each)) for each in signed),
            }
        )
        for documents in countries.values():
            raised = raised.with_country(documents.country, documents.version, documents.signed_at)
        return raised


def _ignored(paths: Collection[str], what: str) -> list[str]:
    """Return one sentence about all of these paths: there may be thousands, of any length."""
    if not paths:
        return []
    others = f", like {len(paths) - 1} others" if len(paths) > 1 else ""
    return [f"{named(cut(min(paths)))} is {what}{others}; ignored"]


def is_study(path: str) -> bool:
    """Whether this is the path of a study among the coordinator's documents."""
    return path.startswith(STUDIES) and COORDINATOR_PATH.fullmatch(path) is not None


def is_release(path: str) -> bool:
    """Return whether the coordinator may list a released result under this path."""
    return path.startswith(RELEASES) and COORDINATOR_PATH.fullmatch(path) is not None


def _named_key(root: Root, country: str) -> str | None:
    """Return the key that a root names for a country, as text."""
    for id_ in root.roles[Root.type].keyids:
        key = root.keys[id_]
        if key.unrecognized_fields.get(PARTY_FIELD) == role_of(country):
            return _as_text(key)
    return None


def _as_text(key: Key) -> str | None:
    try:
        return VerifyKey(bytes.fromhex(key.keyval["public"])).to_text()
    except (KeyError, ValueError, KeyFault):
        return None


def _signed_by(root: Metadata[Root], text: str) -> bool:
    key = VerifyKey.from_text(text)
    try:
        tuf_key(key, "").verify_signature(root.signatures[key_id(key)], root.signed_bytes)
    except (KeyError, UnverifiedSignatureError):
        return False
    return True
