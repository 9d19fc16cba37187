"""`pratique-node doctor`: checks everything that a node needs, and says how to fix each fault.

It works with or without a running daemon, and changes nothing. A check that depends on an earlier
one that failed is skipped, and says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from client.commands.check_result import CheckResult, NeedsAttention, SkipCheck, run_check
from client.commands.doctor_machine import check_clock, check_disk, check_machine, time_in
from client.commands.installation import check_installation
from client.commands.records import CONFIRM_FIX, SHOWN, ReadRecords, listed, read_records
from client.credentials.certificate_renewal import transport_pair
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.documents.store import DocumentStore
from client.errors import NodeFault, RecordFault
from client.home import NodeHome, read_public
from client.records.quality_report import EXPORT_AGAIN
from client.settings import NodeSettings
from client.state.decision_log import log_origin
from client.state.log_head import LogHeadGuard
from client.state.opt_out_confirmations import OptOutConfirmations, unconfirmed_sentence
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.documents.permit import NodeKeys
from governance.errors import DocumentFault
from governance.runtime.database import open_database
from governance.runtime.health import failing_checks
from governance.runtime.local_rpc import ask
from governance.runtime.safe_text import quoted
from governance.runtime.text_files import read_bounded
from governance.runtime.wording import counted
from governance.trust.bundle import CountryBundle, CountryDocuments, own_country, signer_of
from keys.certificates import peer_of
from keys.composite import algorithms, read_identity
from keys.errors import PratiqueError, reason_of
from keys.identity import VerifyKey
from keys.store import KeyStore
from protocols.wire.exchange_clock import ExchangeClock
from protocols.wire.proxy import Route

WARN_BEFORE_CERTIFICATE_END = timedelta(days=14)
WARN_BEFORE_SIGNATURES_END = timedelta(days=60)
_ENROL = "ask the coordinator for a new invitation, and run `pratique-node enrol`"
TIMESTAMP_FILE = "metadata/timestamp.json"
NEED_NO_NODE = ("installation", "settings")
"""Checks that are made even if there is no node."""


class Dial(Protocol):
    """Opens a channel to the exchange."""

    def __call__(
        self, address: str, *, authority: bytes, key: bytes, certificate: bytes
    ) -> "Channel":
        """Open the channel."""


class Channel(Protocol):
    """The part of the exchange that the doctor needs."""

    route: Route
    clock: ExchangeClock

    def fetch(self, path: str, seconds: float = 10) -> bytes | None:
        """Return one published file."""

    def close(self) -> None:
        """Close the channel."""


@dataclass
class Doctor:
    """Checks one node. `passphrase` is called once; `dial` opens a channel to the exchange."""

    home: NodeHome
    passphrase: Callable[[], bytes]
    dial: Dial
    clock: Callable[[], datetime]
    _timestamp: bytes | None = field(default=None, init=False)
    _exchange: ExchangeClock | None = field(default=None, init=False)

    def results(self) -> Iterator[CheckResult]:
        """Yield the result of each check; later checks depend on earlier ones."""
        checks: dict[str, Callable[[], str]] = {
            "installation": check_installation,
            "settings": self._check_settings,
            "disk": lambda: check_disk(self.home.path),
            "machine": lambda: check_machine(self.home),
            "keys": self._check_keys,
            "state": self._check_state,
            "certificate": self._check_certificate,
            "link": self._check_link,
            "clock": self._check_clock,
            "data": self._check_data,
            "opt-outs": self._check_opt_outs,
            "officer": self._check_officer,
            "agreement": self._check_agreement,
            "daemon": self._check_daemon,
            "observe": self._check_observe,
        }
        for name, check in checks.items():
            needs_no_node = name in NEED_NO_NODE
            yield run_check(name, check if needs_no_node else partial(self._if_node_exists, check))

    def _if_node_exists(self, check: Callable[[], str]) -> str:
        if not self.home.settings_file.exists():
            raise SkipCheck("there is no node yet")
        return check()

    @cached_property
    def _settings(self) -> NodeSettings:
        try:
            return self.home.settings()
        except PratiqueError as fault:
            raise SkipCheck("the settings cannot be read") from fault

    @cached_property
    def _keyring(self) -> NodeKeyring:
        try:
            return self._load_keyring()
        except PratiqueError as fault:
            raise SkipCheck("the keys cannot be opened") from fault

    @cached_property
    def _store(self) -> KeyStore:
        return KeyStore.open(self.home.keys, self.passphrase())

    def _load_keyring(self) -> NodeKeyring:
        return NodeKeyring.load(self._store)

    def _check_settings(self) -> str:
        settings = self.home.settings()
        enrolment = settings.enrolment
        if enrolment is None:
            raise NeedsAttention(
                f"node of {settings.country}, in no federation yet",
                "run `pratique-node enrol INVITATION`",
            )
        return f"node of {settings.country} in {enrolment.federation}"

    def _check_keys(self) -> str:
        # This check shows the fault itself. It fills the property, which the later checks read.
        keyring = self.__dict__["_keyring"] = self._load_keyring()
        content = read_public(
            self.home.node_keys, "The node's public keys", "restore node-keys.json from a backup"
        )
        keys = NodeKeys.from_canonical(content)
        successor = IdentityKeys(self._store).successor
        own = keyring.identity.public
        if read_identity(keys.identity_key) not in {own, successor.public if successor else None}:
            raise PratiqueError(
                "node-keys.json contains another node's keys",
                fix="restore it from a backup of this node, and ask your officer to sign it",
            )
        return f"all keys are there; identity {own.fingerprint} ({algorithms(own)})"

    def _check_state(self) -> str:
        if not self.home.database.exists():
            raise SkipCheck("there is no state.db yet")
        engine = open_database(self.home.database, MIGRATIONS)
        country, keyring = self._settings.country, self._keyring
        log = open_log(engine, log_origin(country), keyring.log_key, former=not keyring.signs_state)
        LogHeadGuard(self.home, engine, log, StateCheck(engine, log, country)).require_newest()
        return "state.db is as this node signed it, and not older than what it has sent"

    def _check_certificate(self) -> str:
        if self._settings.enrolment is None:
            raise SkipCheck("the node is not enrolled")
        enrol_again = (
            "run `pratique-node enrol` with a new invitation; the node keeps its keys and its state"
        )
        peer = peer_of(
            read_public(self.home.certificate, "The certificate", enrol_again),
            authority_pem=read_public(self.home.authority, "The authority", enrol_again),
            now=self.clock(),
            revoked=(),
        )
        finding = f"valid until {peer.not_after:%Y-%m-%d}"
        if peer.not_after - self.clock() < WARN_BEFORE_CERTIFICATE_END:
            check = "check that the daemon runs and is connected, because it renews the certificate"
            raise NeedsAttention(finding, f"{check}; if it expires, {enrol_again}")
        return finding

    def _check_link(self) -> str:
        enrolment = self._settings.enrolment
        if enrolment is None:
            raise SkipCheck("the node is not enrolled")
        _ = self._keyring  # skips this check if the keys cannot be opened
        key, certificate = transport_pair(self.home, self._store).load()
        channel = self.dial(
            enrolment.exchange,
            authority=self.home.authority.read_bytes(),
            key=key,
            certificate=certificate,
        )
        try:
            self._timestamp = channel.fetch(TIMESTAMP_FILE)
        finally:
            self._exchange = channel.clock
            channel.close()
        return f"{enrolment.exchange} answers {channel.route.says}".rstrip()

    def _check_clock(self) -> str:
        return check_clock(self.clock(), self._latest_signed(), self._timestamp, self._exchange)

    def _latest_signed(self) -> datetime | None:
        published = time_in(self._timestamp, "x-pratique-signed-at")
        stored = self._documents().latest_signed() if self.home.database.exists() else None
        return max((time for time in (published, stored) if time), default=None)

    def _documents(self, root: bytes | None = None) -> DocumentStore:
        return DocumentStore(
            open_database(self.home.database, MIGRATIONS),
            country=self._settings.country,
            officer_key=VerifyKey.from_text(self._settings.officer_key),
            pinned_root=root,
        )

    def _check_agreement(self) -> str:
        if self._settings.enrolment is None or not self.home.database.exists():
            raise SkipCheck("the node is not enrolled")
        root = read_public(self.home.root, "The root of the documents", _ENROL)
        try:
            view = self._documents(root).view(self.clock())
        except DocumentFault as fault:
            raise SkipCheck("the documents on this node are not up to date") from fault
        view.require_signature_algorithms([self._settings.country])
        finding = (
            f"{quoted(view.agreement.title)}; the countries' signatures are valid until "
            f"{view.signed_until:%Y-%m-%d}"
        )
        if view.signed_until - self.clock() < WARN_BEFORE_SIGNATURES_END:
            raise NeedsAttention(
                finding,
                "ask the coordinator to run `agreement renew`, and the officers to run `sign`",
            )
        return finding

    def _check_data(self) -> str:
        report = self._records.report
        if report.warning:
            raise NeedsAttention(report.warning, EXPORT_AGAIN)
        return "; ".join(report.lines()[:1])

    @cached_property
    def _records(self) -> ReadRecords:
        return read_records(self._settings)

    def _check_opt_outs(self) -> str:
        if self._settings.opt_out is None:
            return "no list of patients who opted out"
        try:
            records = self._records
        except RecordFault as fault:
            raise SkipCheck("the records cannot be read") from fault
        if not self.home.database.exists():
            raise SkipCheck("there is no state.db yet")
        engine = open_database(self.home.database, MIGRATIONS)
        confirmations = OptOutConfirmations(engine, self._keyring.split_key)
        unconfirmed = set(confirmations.unconfirmed(self._settings, records.report))
        entries = tuple(entry for entry in records.unmatched if entry.entry in unconfirmed)
        if entries:
            raise PratiqueError(
                f"{unconfirmed_sentence(len(entries))}: {listed(entries, SHOWN)}",
                why="if an id is written differently in the list, this patient is not left out",
                fix=f"this fault stays until {CONFIRM_FIX}",
            )
        return f"{counted(records.report.opted_out, 'patient is', 'patients are')} left out"

    def _check_officer(self) -> str:
        own = self._own_documents()
        finding = (
            f"documents of version {own.version}, valid until {own.expires:%Y-%m-%d %H:%M} UTC"
        )
        keys = read_public(self.home.node_keys, "The node's public keys", "restore node-keys.json")
        if own.node != NodeKeys.from_canonical(keys):
            fix = self._how_to_sign_keys
            if own.node and own.node.identity_key == self._keyring.identity.public.to_text():
                raise NeedsAttention("the officer has not signed this node's new keys", fix)
            raise PratiqueError(
                "The officer has not signed this node's keys",
                why="the signed documents contain other keys, or none",
                fix=fix,
            )
        if own.expires - self.clock() < timedelta(days=1):
            raise NeedsAttention(finding, "ask your officer to run `pratique-officer renew`")
        return finding

    @property
    def _how_to_sign_keys(self) -> str:
        command = f"pratique-officer sign {self.home.node_keys} --node {self.home.path}"
        return f"ask your officer to run `{command}`"

    def _own_documents(self) -> CountryDocuments:
        """Return the newest documents of the country.

        These are the documents that the daemon stored, and those in the node's folder `officer`.
        """
        candidates: list[CountryDocuments] = []
        fault = None
        for read in (self._stored_documents, self._handed_over_documents):
            try:
                candidates.extend(read())
            except DocumentFault as error:
                fault = error
        if not candidates:
            raise fault or DocumentFault(
                "The officer has not handed over the country's documents",
                fix=self._how_to_sign_keys,
            )
        return max(candidates, key=lambda own: own.version)

    def _stored_documents(self) -> list[CountryDocuments]:
        exists = self.home.database.exists()
        return [self._documents().own(self.clock())] if exists else []

    def _handed_over_documents(self) -> list[CountryDocuments]:
        key = VerifyKey.from_text(self._settings.officer_key)
        country, now = self._settings.country, self.clock()
        bundles = map(_bundle_in, sorted(self.home.officer.glob("*.json")))
        return [
            own_country(bundle, country, signer_of(bundle, country, key), now) for bundle in bundles
        ]

    def _check_daemon(self) -> str:
        if not self.home.socket.exists():
            raise NeedsAttention("the daemon is not running", "run `pratique-node up`")
        status = ask(self.home.socket, "status", 10.0)
        if status["connected"]:
            return str(status["waiting_for"])
        raise NodeFault(
            f"The daemon is not connected: it is {status['waiting_for']}",
            fix="wait, if it just started; restart it after `enrol`; else see `link` above",
        )

    def _check_observe(self) -> str:
        address = self._settings.observe
        if address is None:
            return "off; `observe: 127.0.0.1:9464` in node.yaml turns metrics and health on"
        if not self.home.socket.exists():
            raise SkipCheck("the daemon is not running")
        problems = failing_checks(address)
        if problems:
            faults = "; ".join(f"{name}: {why}" for name, why in problems.items())
            raise NeedsAttention(
                f"http://{address}/health/ready reports faults: {faults}", "see the checks above"
            )
        return f"http://{address}/metrics answers, and /health/ready reports no fault"


def _bundle_in(file: Path) -> bytes:
    try:
        return read_bounded(file, CountryBundle.most_bytes)
    except (OSError, ValueError) as error:
        raise DocumentFault(
            f"The file {file} cannot be read",
            why=reason_of(error),
            fix="remove it, and ask your officer to hand the documents over again",
        ) from None
