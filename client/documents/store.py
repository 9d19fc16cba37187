"""The documents as this node holds them: mirrored from the exchange, verified anew at each use.

The own country's documents come from its own officer alone, everyone else's through the exchange.
While the officer's key changes, those under the next key are held beside those under the present
one, and take their place with the agreement that names it. What is stored are bytes; what was
verified once is believed again only while every byte, the key, the floor and the clock say that
verifying it would end the same (`governance.trust.view_cache`). What is expired, older than what
was seen before, or unsigned is no document, and the node stops.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, RLock

from sqlalchemy import Connection, Engine, delete, insert, select

from client.documents.budget_periods import BudgetPeriods
from client.documents.officer_key import OfficerKey
from client.state.key_value import get_value, set_value
from client.state.tables import documents
from governance.errors import DocumentFault
from governance.runtime.database import transaction
from governance.trust.bundle import CountryBundle, CountryDocuments, own_country, signer_of
from governance.trust.view import TrustedView, TrustHighWater
from governance.trust.view_cache import CountryCache, ViewCache
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.wire.document_versions import DocumentVersions

Fetch = Callable[[str], bytes | None]

Announce = Callable[[VerifyKey, VerifyKey, Connection], None]
"""Told (former, new) in the transaction in which a new key of the officer takes over."""

OWN, NEXT = "own-bundle", "own-bundle-next"
"""Where the own officer's bundles lie among the mirrored files; no published name looks so."""
FLOOR = "documents-floor"

_log = logging.getLogger("pratique.documents")


@dataclass(frozen=True)
class Held:
    """Verified documents at the moment of one message; `own` is the own officer's word."""

    view: TrustedView
    own: CountryDocuments

    @property
    def versions(self) -> DocumentVersions:
        """The versions that count now: what a decision is taken under."""
        return self.view.versions

    @property
    def verified(self) -> DocumentVersions:
        """The highest versions ever verified: what replies carry and claims are compared with.

        A country whose documents lapse puts nobody behind who had them. And one that is shown
        older ones, not lapsed yet, learns from a reply that there were newer ones.
        """
        return self.view.verified


class DocumentStore:
    """The mirror in one state database. Safe among threads."""

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
        self._known: TrustHighWater | None = None
        self._seen, self._own_seen = ViewCache(), CountryCache()
        self._reported: set[str] = set()

    def not_before(self, now: datetime) -> datetime:
        """Return `now`, or the latest signed time seen where the clock shows an earlier one."""
        return self._high_water().raised_to(now)

    @property
    def officer(self) -> OfficerKey:
        """The key that the own officer signs with, and the one that is to follow."""
        if self._officer is None:
            with transaction(self._engine) as connection:
                self._officer = OfficerKey.load(connection, self._settings_key)
        return self._officer

    def periods_known_since(
        self, register: str, connection: Connection | None = None
    ) -> datetime | None:
        """Return since when the register's budget periods are what they are; None: always."""
        with transaction(self._engine, connection) as opened:
            return BudgetPeriods.load(opened).since(register)

    def latest_signed(self) -> datetime | None:
        """Return the latest signed time seen."""
        return self._high_water().latest

    def sync(self, fetch: Fetch, now: datetime) -> TrustedView:
        """Fetch what is published, verify all of it, and keep it; changes nothing where it fails.

        However long an exchange takes over a file, the own officer's word waits for none of it.
        Raises DocumentFault, and whatever `fetch` raises.
        """
        with self._syncing:
            high_water = self._high_water()
            view = _loaded(fetch, self._root(), now, high_water)
            with self._lock:
                if self._high_water() != high_water:  # the own officer spoke meanwhile
                    view = TrustedView.load(view.files.get, self._root(), now, self._high_water())
                self._keep(view, view.now)
                self._move_on(view.now)
        self._report(view.ignored)
        return view

    def _report(self, ignored: tuple[str, ...]) -> None:
        """Log what was published and must not be believed, once each time it changes."""
        for sentence in set(ignored) - self._reported:
            _log.warning("document ignored", extra={"why": sentence})
        self._reported = set(ignored)

    def deliver(self, bundle: bytes, now: datetime) -> CountryDocuments:
        """Take the own country's documents from its officer.

        Raises DocumentFault where they are not signed by the pinned key, expired, older than
        those held, or other contents under the same version.
        """
        with self._lock:
            signer = signer_of(bundle, self._country, self.officer.present)
            if signer == self.officer.present:
                return self._take_present(bundle, now)
            return self._take_announced(bundle, signer, now)

    def _take_present(self, bundle: bytes, now: datetime) -> CountryDocuments:
        high_water, officer = self._high_water(), self.officer
        moment, known = high_water.raised_to(now), high_water.countries.get(self._country, 0)
        own = own_country(bundle, self._country, officer.present, moment, at_least=known)
        self._refuse_second_contents(own, bundle, OWN)
        raised = high_water.with_country(self._country, own.version, own.signed_at)
        if own.next_key is not None:
            officer = officer.announcing(own.next_key, own.history)
        with transaction(self._engine) as connection:
            _put(connection, {OWN: bundle}, moment)
            set_value(connection, FLOOR, raised.model_dump_json())
            officer.keep(connection)
        self._known, self._officer = raised, officer
        return own

    def _take_announced(self, bundle: bytes, signer: VerifyKey, now: datetime) -> CountryDocuments:
        """Hold what the next key has signed; it counts at once where the agreement names it."""
        moment = self._high_water().raised_to(now)
        own = own_country(bundle, self._country, signer, moment)
        officer = self.officer.announcing(own.key, own.history)
        self._refuse_second_contents(own, bundle, NEXT)
        with transaction(self._engine) as connection:
            _put(connection, {NEXT: bundle}, moment)
            officer.keep(connection)
        self._officer = officer
        self._move_on(now)
        return own

    def _move_on(self, now: datetime) -> None:
        """Let the announced key take over, once the documents have shown it in force.

        What it signed before the former key's last documents is left out: it may lack a no.
        """
        officer, high_water = self.officer, self._high_water()
        if officer.announced is None or high_water.keys.get(self._country) != officer.announced:
            return
        moved, files = officer.moved(), self._files()
        bundle, before = files.get(NEXT), files.get(OWN)
        usable = bundle is not None and (before is None or _version(bundle) > _version(before))
        with transaction(self._engine) as connection:
            if usable and bundle is not None:
                _put(connection, {OWN: bundle}, high_water.raised_to(now))
            connection.execute(delete(documents).where(documents.c.path == NEXT))
            moved.keep(connection)
            self._on_new_key(officer.present, moved.present, connection)
        self._officer = moved

    def approve_key(self, country: str, fingerprint: str, now: datetime) -> VerifyKey:
        """Accept the key that the agreement now gives a country; the operator compared it.

        Raises DocumentFault where the agreement in force gives another key.
        """
        with self._lock:
            party = self.view(now).agreement.party(country)
            named = VerifyKey.from_text(party.officer_key) if party else None
            if named is None or named.fingerprint != fingerprint:
                raise DocumentFault(
                    f"The agreement does not give {country} a key with this fingerprint",
                    why=f"it gives {named.fingerprint if named else 'it none'}",
                    fix=f"compare it with the officer of {country} by voice; nothing was changed",
                )
            high_water = self._high_water().approve_key(country, named)
            with transaction(self._engine) as connection:
                set_value(connection, FLOOR, high_water.model_dump_json())
            self._known = high_water
        return named

    def pin_officer(self, key: VerifyKey) -> None:
        """Trust another key of the own officer, which the operator compared and pinned."""
        with self._lock:
            officer = OfficerKey(settings=key.to_text(), key=key.to_text())
            high_water = self._high_water().approve_key(self._country, key)
            with transaction(self._engine) as connection:
                officer.keep(connection)
                set_value(connection, FLOOR, high_water.model_dump_json())
            self._settings_key, self._officer, self._known = key, officer, high_water

    def _refuse_second_contents(self, own: CountryDocuments, bundle: bytes, place: str) -> None:
        held = self._files().get(place)
        if held is None or held == bundle:
            return
        if _version(held) != own.version:
            return
        raise DocumentFault(
            f"Two different documents of {self._country} carry version {own.version}",
            why="a version is signed once",
            fix="run `pratique-officer renew`; if it happens again, take the key as copied",
        )

    def own(self, now: datetime, connection: Connection | None = None) -> CountryDocuments:
        """Return the own officer's documents. Raises DocumentFault: none, or expired."""
        bundle = self._files(connection).get(OWN)
        if bundle is None:
            raise DocumentFault(
                f"The officer of {self._country} has not handed over the country's documents",
                why="permits count only as they come from the own officer",
                fix="run `pratique-officer sign node-keys.json --node HOME` there, or "
                "`pratique-node accept FILE` here",
            )
        moment, key = self.not_before(now), self.officer.present
        return self._own_seen.country(bundle, self._country, key, moment)

    def view(self, now: datetime) -> TrustedView:
        """Return the published documents from the mirror, verified at `now`."""
        return self._seen.view(self._files().get, self._root(), now, self._high_water())

    def held(self, now: datetime) -> Held:
        """Return everything a decision needs. Raises DocumentFault."""
        own = self.own(now)
        return Held(self.view(now).with_own(own), own)

    def _root(self) -> bytes:
        if self._pinned_root is None:
            raise DocumentFault(
                "This node belongs to no federation yet",
                why="it is not enrolled, and holds no root to verify documents from",
                fix="run `pratique-node enrol INVITATION`",
            )
        return self._pinned_root

    def _keep(self, view: TrustedView, now: datetime) -> None:
        with transaction(self._engine) as connection:
            connection.execute(delete(documents).where(documents.c.path.not_in([OWN, NEXT])))
            _put(connection, view.files, now)
            set_value(connection, FLOOR, view.high_water.model_dump_json())
            BudgetPeriods.load(connection).seeing(view.agreement, now).keep(connection)
        self._known = view.high_water

    def _files(self, connection: Connection | None = None) -> dict[str, bytes]:
        with transaction(self._engine, connection) as opened:
            rows = opened.execute(select(documents.c.path, documents.c.bytes))
            return {path: bytes(content) for path, content in rows}

    def _high_water(self) -> TrustHighWater:
        """Return what was seen before. Read once: the time is asked within transactions."""
        if self._known is None:
            with transaction(self._engine) as connection:
                text = get_value(connection, FLOOR)
            first = TrustHighWater(keys={self._country: self._settings_key.to_text()})
            self._known = TrustHighWater.model_validate_json(text) if text else first
        return self._known


def _loaded(fetch: Fetch, root: bytes, now: datetime, high_water: TrustHighWater) -> TrustedView:
    """Load a view; a link that is down is told as that, not as documents that do not verify."""
    lost: list[PratiqueError] = []

    def watched(path: str) -> bytes | None:
        try:
            return fetch(path)
        except PratiqueError as fault:
            lost.append(fault)
            raise

    try:
        return TrustedView.load(watched, root, now, high_water)
    except DocumentFault:
        if lost:
            raise lost[0] from None
        raise


def _version(bundle: bytes) -> int:
    return CountryBundle.from_canonical(bundle).signed().signed.version


def _put(connection: Connection, files: Mapping[str, bytes], now: datetime) -> None:
    connection.execute(delete(documents).where(documents.c.path.in_(list(files))))
    rows = [{"path": path, "bytes": content, "fetched": now} for path, content in files.items()]
    connection.execute(insert(documents), rows)
