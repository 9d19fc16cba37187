"""The documents of a node: mirrored from the exchange, and verified again at each use.

The documents of the node's country come only from its officer; those of the other countries come
through the exchange. While the officer's key changes, the documents under the next key are stored
beside those under the current one. They replace them when an agreement names the next key.

The store holds bytes. A verification is reused only while every byte, the key, the high water and
the clock show that it would have the same result (`governance.trust.view_cache`). A document that
is expired, older than one seen before, or unsigned does not count, and the node stops.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, RLock

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from client.documents.budget_periods import BudgetPeriods
from client.documents.officer_key import OfficerKey
from client.state.key_value import get_value, set_value
from client.state.tables import documents
from governance.errors import DocumentFault
from governance.runtime.database import transaction
from governance.trust.bundle import CountryBundle, CountryDocuments, own_country, signer_of
from governance.trust.view import TrustedView, TrustHighWater
from governance.trust.view_cache import CountryCache, ViewCache
from keys.identity import VerifyKey
from protocols.wire.document_versions import DocumentVersions

Fetch = Callable[[str], bytes | None]

Announce = Callable[[VerifyKey, VerifyKey, Connection], None]
"""Called with (former, new) in the transaction in which a new key of the officer takes over."""

OWN, NEXT = "own-bundle", "own-bundle-next"
"""Paths of the officer's bundles among the mirrored files; no published file has such a path."""
HIGH_WATER = "documents-floor"
"""The name under which the highest versions ever verified are stored."""

_log = logging.getLogger("pratique.documents")


@dataclass(frozen=True)
class CurrentDocuments:
    """The verified documents at the moment of one message.

    `own` are the documents of the node's country, as its officer handed them over.
    """

    view: TrustedView
    own: CountryDocuments

    @property
    def versions(self) -> DocumentVersions:
        """The versions that count now: those that a decision is based on."""
        return self.view.versions

    @property
    def verified(self) -> DocumentVersions:
        """The highest versions ever verified; replies carry them, claims are compared with them.

        If a country's documents lapse, nobody who had them falls behind. And a party that is shown
        older documents, not lapsed yet, learns from a reply that there were newer ones.
        """
        return self.view.verified


class DocumentStore:
    """The document mirror in one state database. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        *,
        country: str,
        officer_key: VerifyKey,
        pinned_root: bytes | None,
        on_new_key: Announce = lambda *_: None,
    ) -> None:
        """`officer_key` is the one in the settings; `pinned_root` is None before enrolment."""
        self._engine, self._country, self._on_new_key = engine, country, on_new_key
        self._settings_key, self._pinned_root = officer_key, pinned_root
        self._officer: OfficerKey | None = None
        self._lock, self._syncing = RLock(), Lock()
        self._stored_high_water: TrustHighWater | None = None
        self._view_cache, self._own_cache = ViewCache(), CountryCache()
        self._reported_ignored: set[str] = set()

    def not_before(self, now: datetime) -> datetime:
        """Return `now`, or the latest signed time seen if the clock is behind it."""
        return self._high_water().later_of(now)

    @property
    def officer(self) -> OfficerKey:
        """The key that the officer signs with, and its announced successor."""
        if self._officer is None:
            with transaction(self._engine) as connection:
                self._officer = OfficerKey.load(connection, self._settings_key)
        return self._officer

    def periods_known_since(
        self, register: str, connection: Connection | None = None
    ) -> datetime | None:
        """Return since when the register has its current budget periods; None: always."""
        with transaction(self._engine, connection) as opened:
            return BudgetPeriods.load(opened).since(register)

    def latest_signed(self) -> datetime | None:
        """Return the latest signed time seen."""
        return self._high_water().latest

    def sync(self, fetch: Fetch, now: datetime) -> TrustedView:
        """Fetch what has changed, verify all documents, and store them; all or nothing.

        A slow exchange does not delay documents from the officer: no lock is held while fetching.
        Raises DocumentFault, and whatever `fetch` raises.
        """
        with self._syncing:
            high_water, held = self._high_water(), self._files().get
            view = TrustedView.load(fetch, self._root(), now, high_water, held=held)
            with self._lock:
                if self._high_water() != high_water:  # the officer delivered documents meanwhile
                    view = TrustedView.load(view.files.get, self._root(), now, self._high_water())
                self._save(view, view.now)
                self._activate_announced(view.now)
        self._log_ignored(view.ignored)
        return view

    def _log_ignored(self, ignored: tuple[str, ...]) -> None:
        """Log published documents that do not verify, once each time the list changes."""
        for sentence in set(ignored) - self._reported_ignored:
            _log.warning("document ignored", extra={"why": sentence})
        self._reported_ignored = set(ignored)

    def deliver(self, bundle: bytes, now: datetime) -> CountryDocuments:
        """Verify and store the documents of the node's country from its officer.

        Raises DocumentFault if they are not signed by the pinned key, are expired, are older than
        the stored ones, or have other contents under the same version.
        """
        with self._lock:
            signer = signer_of(bundle, self._country, self.officer.current)
            if signer == self.officer.current:
                return self._store_present(bundle, now)
            return self._store_announced(bundle, signer, now)

    def _store_present(self, bundle: bytes, now: datetime) -> CountryDocuments:
        high_water, officer = self._high_water(), self.officer
        time, version_seen = high_water.later_of(now), high_water.countries.get(self._country, 0)
        own = own_country(bundle, self._country, officer.current, time, at_least=version_seen)
        self._refuse_second_contents(own, bundle, OWN)
        raised = high_water.with_country(self._country, own.version, own.signed_at)
        if own.next_key is not None:
            officer = officer.with_announced(own.next_key, own.history)
        with transaction(self._engine) as connection:
            _replace(connection, {OWN: bundle}, time)
            set_value(connection, HIGH_WATER, raised.model_dump_json())
            officer.save(connection)
        self._stored_high_water, self._officer = raised, officer
        return own

    def _store_announced(self, bundle: bytes, signer: VerifyKey, now: datetime) -> CountryDocuments:
        """Store documents that the next key has signed; they count once the agreement names it."""
        time = self._high_water().later_of(now)
        own = own_country(bundle, self._country, signer, time)
        officer = self.officer.with_announced(own.key, own.history)
        self._refuse_second_contents(own, bundle, NEXT)
        with transaction(self._engine) as connection:
            _replace(connection, {NEXT: bundle}, time)
            officer.save(connection)
        self._officer = officer
        self._activate_announced(now)
        return own

    def _activate_announced(self, now: datetime) -> None:
        """Use the announced key of the officer, once the documents have shown it in force.

        Documents that it signed before the former key's last ones are dropped: a withdrawal may
        be missing from them.
        """
        officer, high_water = self.officer, self._high_water()
        if officer.announced is None or high_water.keys.get(self._country) != officer.announced:
            return
        successor, files = officer.with_announced_in_force(), self._files()
        bundle, former_bundle = files.get(NEXT), files.get(OWN)
        usable = bundle is not None and (
            former_bundle is None or _version(bundle) > _version(former_bundle)
        )
        with transaction(self._engine) as connection:
            taken_over = {OWN: bundle} if usable and bundle is not None else {}
            _replace(connection, taken_over, high_water.later_of(now), gone=[NEXT])
            successor.save(connection)
            self._on_new_key(officer.current, successor.current, connection)
        self._officer = successor

    def approve_key(self, country: str, fingerprint: str, now: datetime) -> VerifyKey:
        """Accept the key that the agreement now names for a country; the operator compared it.

        Raises DocumentFault if the agreement in force names another key.
        """
        with self._lock:
            party = self.view(now).agreement.party(country)
            key = VerifyKey.from_text(party.officer_key) if party else None
            if key is None or key.fingerprint != fingerprint:
                raise DocumentFault(
                    f"The agreement does not name a key with this fingerprint for {country}",
                    why=f"it names {key.fingerprint if key else 'no key'} for {country}",
                    fix=f"compare it with the officer of {country} by voice; nothing was changed",
                )
            high_water = self._high_water().with_approved_key(country, key)
            with transaction(self._engine) as connection:
                set_value(connection, HIGH_WATER, high_water.model_dump_json())
            self._stored_high_water = high_water
        return key

    def pin_officer(self, key: VerifyKey) -> None:
        """Trust another key of the officer, which the operator compared and pinned."""
        with self._lock:
            officer = OfficerKey(settings=key.to_text(), key=key.to_text())
            high_water = self._high_water().with_approved_key(self._country, key)
            with transaction(self._engine) as connection:
                officer.save(connection)
                set_value(connection, HIGH_WATER, high_water.model_dump_json())
            self._settings_key, self._officer = key, officer
            self._stored_high_water = high_water

    def _refuse_second_contents(self, own: CountryDocuments, bundle: bytes, path: str) -> None:
        stored = self._files().get(path)
        if stored is None or stored == bundle:
            return
        if _version(stored) != own.version:
            return
        raise DocumentFault(
            f"Two different documents of {self._country} carry version {own.version}",
            why="a version must be signed only once",
            fix="run `pratique-officer renew`; if it happens again, treat the key as compromised",
        )

    def own(self, now: datetime, connection: Connection | None = None) -> CountryDocuments:
        """Return the documents from the officer. Raises DocumentFault if none, or expired."""
        bundle = self._files(connection).get(OWN)
        if bundle is None:
            raise DocumentFault(
                f"The officer of {self._country} has not handed over the country's documents",
                why="a permit counts only if it comes directly from your officer",
                fix="ask your officer to run `pratique-officer sign node-keys.json --node HOME`, "
                "or run `pratique-node accept FILE` with the officer's file",
            )
        moment, key = self.not_before(now), self.officer.current
        return self._own_cache.country(bundle, self._country, key, moment)

    def view(self, now: datetime) -> TrustedView:
        """Return the mirrored documents, verified at `now`. Raises DocumentFault."""
        return self._view_cache.view(self._files().get, self._root(), now, self._high_water())

    def current(self, now: datetime) -> CurrentDocuments:
        """Return all documents that a decision needs. Raises DocumentFault."""
        own = self.own(now)
        return CurrentDocuments(self.view(now).with_own(own), own)

    def _root(self) -> bytes:
        if self._pinned_root is None:
            raise DocumentFault(
                "This node belongs to no federation yet",
                why="it is not enrolled, and so has no root to verify documents from",
                fix="run `pratique-node enrol INVITATION`",
            )
        return self._pinned_root

    def _save(self, view: TrustedView, now: datetime) -> None:
        with transaction(self._engine) as connection:
            stored = self._files(connection)
            gone = stored.keys() - view.files.keys() - {OWN, NEXT}
            changed = {p: data for p, data in view.files.items() if stored.get(p) != data}
            _replace(connection, changed, now, gone=gone)
            set_value(connection, HIGH_WATER, view.high_water.model_dump_json())
            BudgetPeriods.load(connection).with_agreement(view.agreement, now).save(connection)
        self._stored_high_water = view.high_water

    def _files(self, connection: Connection | None = None) -> dict[str, bytes]:
        with transaction(self._engine, connection) as opened:
            rows = opened.execute(select(documents.c.path, documents.c.bytes))
            return {path: bytes(content) for path, content in rows}

    def _high_water(self) -> TrustHighWater:
        """Return the highest versions and times seen before; they are read once.

        Callers ask for the time inside transactions, in which nothing else may be read.
        """
        if self._stored_high_water is None:
            with transaction(self._engine) as connection:
                text = get_value(connection, HIGH_WATER)
            first = TrustHighWater(keys={self._country: self._settings_key.to_text()})
            self._stored_high_water = TrustHighWater.model_validate_json(text) if text else first
        return self._stored_high_water


def _version(bundle: bytes) -> int:
    return CountryBundle.from_canonical(bundle).signed().signed.version


def _replace(
    connection: Connection, files: Mapping[str, bytes], now: datetime, *, gone: Iterable[str] = ()
) -> None:
    """Store these files in place of those at their paths, and remove those that are gone."""
    removed = [{"gone": path} for path in {*files, *gone}]
    rows = [{"path": path, "bytes": content, "fetched": now} for path, content in files.items()]
    if removed:
        connection.execute(delete(documents).where(documents.c.path == bindparam("gone")), removed)
    if rows:
        connection.execute(insert(documents), rows)
