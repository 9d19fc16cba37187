"""`pratique-node doctor`: what a node needs, looked at one by one, with the way to mend each.

It works whether the daemon runs or not, and changes nothing. A check that cannot be made because
of an earlier one says so.
"""

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from client.commands.init import read_records
from client.credentials.certificate_renewal import kept_pair
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.documents.store import DocumentStore
from client.home import NodeHome, read_public
from client.settings import NodeSettings
from client.state.decision_log import log_origin
from client.state.log_head import LogHeadGuard
from client.state.tables import MIGRATIONS
from governance.audit.log import AuditLog
from governance.documents.permit import NodeKeys
from governance.errors import DocumentFault
from governance.runtime.database import open_database
from governance.runtime.health import asked
from governance.runtime.local_rpc import ask
from governance.trust.bundle import CountryDocuments, own_country, signer_of
from keys.certificates import peer_of
from keys.composite import algorithms, read_identity
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from keys.store import KeyStore

WANTED = {"flwr": "1.42.", "tuf": "7.0.", "cedarpy": "4.12."}
"""Pinned by minor version: their behaviour was established by running them."""
OLDEST_PYTHON, OLDEST_SQLITE = (3, 11), (3, 37)
LEAST_DISK, LOW_DISK = 200 * 2**20, 2 * 2**30
SOON = timedelta(days=14)
SIGNATURES_SOON = timedelta(days=60)
_ENROL = "ask the coordinator for a new invitation, and run `pratique-node enrol`"
MOST_SKEW = timedelta(minutes=5)
TIMESTAMP_FILE = "metadata/timestamp.json"
NO_NODE = ("installation", "settings")  # what is checked where there is none


class CheckState(StrEnum):
    """What a check found."""

    GOOD = "good"
    SOON = "soon"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """One thing looked at: what it is like, and what to do about it."""

    name: str
    state: CheckState
    says: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the fields."""
        return {key: str(value) for key, value in asdict(self).items()}


class _Skip(Exception):
    """A check that cannot be made; the text says why."""


class _Soon(Exception):
    """Something that holds, and not for long: (says, fix)."""


class Dial(Protocol):
    """Opens a channel to the exchange and returns how to fetch from it, and how to close it."""

    def __call__(
        self, address: str, *, authority: bytes, key: bytes, certificate: bytes
    ) -> "Channel":
        """Open the channel."""


class Channel(Protocol):
    """What the doctor needs of the exchange."""

    def fetch(self, path: str, seconds: float = 10) -> bytes | None:
        """Return one published file."""

    def close(self) -> None:
        """Close the channel."""


@dataclass
class Doctor:
    """Looks at one node. `passphrase` is asked once; `dial` opens a channel to the exchange."""

    home: NodeHome
    passphrase: Callable[[], bytes]
    dial: Dial
    clock: Callable[[], datetime]
    _timestamp: bytes | None = field(default=None, init=False)

    def findings(self) -> Iterator[CheckResult]:
        """Yield what each check found, in the order in which they build on each other."""
        checks: dict[str, Callable[[], str]] = {
            "installation": _installation,
            "settings": self._check_settings,
            "disk": self._check_disk,
            "keys": self._check_keys,
            "state": self._check_state,
            "certificate": self._check_certificate,
            "link": self._check_link,
            "clock": self._check_clock,
            "data": self._check_data,
            "officer": self._check_officer,
            "agreement": self._check_agreement,
            "daemon": self._check_daemon,
            "observe": self._check_observe,
        }
        for name, check in checks.items():
            yield _made(name, check if name in NO_NODE else partial(self._of_node, check))

    def _of_node(self, check: Callable[[], str]) -> str:
        if not self.home.settings_file.exists():
            raise _Skip("there is no node yet")
        return check()

    @cached_property
    def _settings(self) -> NodeSettings:
        try:
            return self.home.settings()
        except PratiqueError as fault:
            raise _Skip("the settings cannot be read") from fault

    @cached_property
    def _keyring(self) -> NodeKeyring:
        try:
            return self._opened()
        except PratiqueError as fault:
            raise _Skip("the keys cannot be opened") from fault

    @cached_property
    def _store(self) -> KeyStore:
        return KeyStore.open(self.home.keys, self.passphrase())

    def _opened(self) -> NodeKeyring:
        return NodeKeyring.load(self._store)

    def _check_settings(self) -> str:
        settings = self.home.settings()
        enrolment = settings.enrolment
        if enrolment is None:
            raise _Soon(
                f"node of {settings.country}, in no federation yet",
                "run `pratique-node enrol INVITATION`",
            )
        return f"node of {settings.country} in {enrolment.federation}"

    def _check_disk(self) -> str:
        free = shutil.disk_usage(self.home.path).free
        says = f"{free / 2**30:.1f} GiB free"
        fix = f"make room on the disk of {self.home.path}"
        if free < LEAST_DISK:
            raise PratiqueError(says, why="with a full disk the node refuses everything", fix=fix)
        if free < LOW_DISK:
            raise _Soon(says, fix)
        return says

    def _check_keys(self) -> str:
        keyring = self.__dict__["_keyring"] = self._opened()
        content = read_public(
            self.home.node_keys, "The node's public keys", "restore node-keys.json from a backup"
        )
        keys = NodeKeys.from_canonical(content)
        following = IdentityKeys(self._store).following
        held = {keyring.identity.public, following.public if following else None}
        if read_identity(keys.identity_key) not in held:
            raise PratiqueError(
                "node-keys.json holds another node's keys",
                fix="restore it from a backup of this node, and have the officer sign it",
            )
        own = keyring.identity.public
        return f"all there; identity {own.fingerprint} ({algorithms(own)})"

    def _check_state(self) -> str:
        if not self.home.database.exists():
            raise _Skip("there is no state.db yet")
        engine = open_database(self.home.database, MIGRATIONS)
        log = AuditLog(engine, log_origin(self._settings.country), self._keyring.log)
        LogHeadGuard(self.home, engine, log).require_newest()
        return "state.db continues all that has left this node"

    def _check_certificate(self) -> str:
        if self._settings.enrolment is None:
            raise _Skip("the node is not enrolled")
        again = "run `pratique-node enrol` with a new invitation; nothing else is lost"
        peer = peer_of(
            read_public(self.home.certificate, "The certificate", again),
            authority_pem=read_public(self.home.authority, "The authority", again),
            now=self.clock(),
            revoked=(),
        )
        says = f"valid until {peer.not_after:%Y-%m-%d}"
        if peer.not_after - self.clock() < SOON:
            renews = "it should have renewed itself: is the daemon up, and connected? If it ends,"
            raise _Soon(says, f"{renews} {again}")
        return says

    def _check_link(self) -> str:
        enrolment = self._settings.enrolment
        if enrolment is None:
            raise _Skip("the node is not enrolled")
        _ = self._keyring  # a check that needs the keys is skipped where they cannot be opened
        key, certificate = kept_pair(self.home, self._store).load()
        channel = self.dial(
            enrolment.exchange,
            authority=self.home.authority.read_bytes(),
            key=key,
            certificate=certificate,
        )
        try:
            self._timestamp = channel.fetch(TIMESTAMP_FILE)
        finally:
            channel.close()
        return f"{enrolment.exchange} answers"

    def _check_clock(self) -> str:
        now, seen = self.clock(), self._latest_signed()
        if seen is None:
            raise _Skip("no signed time has been seen yet")
        if seen - now > MOST_SKEW:
            raise PratiqueError(
                f"the clock is behind by {_minutes(seen - now)} or more",
                why=f"a document was signed at {seen:%Y-%m-%d %H:%M} UTC; here it is "
                f"{now:%Y-%m-%d %H:%M} UTC",
                fix="set the clock of this machine, and keep it set (NTP)",
            )
        expires = _time(self._timestamp, "expires")
        if expires is not None and expires < now:
            raise PratiqueError(
                "the exchange's newest timestamp has expired",
                why=f"it held until {expires:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M}",
                fix="check this machine's clock; if it is right, the coordinator must be started",
            )
        return f"{now:%Y-%m-%d %H:%M} UTC, in step with signed times"

    def _latest_signed(self) -> datetime | None:
        seen = _time(self._timestamp, "x-pratique-signed-at")
        mirrored = self._documents().latest_signed() if self.home.database.exists() else None
        return max((one for one in (seen, mirrored) if one), default=None)

    def _documents(self, root: bytes | None = None) -> DocumentStore:
        return DocumentStore(
            open_database(self.home.database, MIGRATIONS),
            country=self._settings.country,
            officer_key=VerifyKey.from_text(self._settings.officer_key),
            pinned_root=root,
        )

    def _check_agreement(self) -> str:
        if self._settings.enrolment is None or not self.home.database.exists():
            raise _Skip("the node is not enrolled")
        root = read_public(self.home.root, "The root of the documents", _ENROL)
        try:
            view = self._documents(root).view(self.clock())
        except DocumentFault as fault:
            raise _Skip("the documents held here are not up to date") from fault
        view.require_suite([self._settings.country])
        says = f"{view.agreement.title}; signed by the countries until {view.signed_until:%Y-%m-%d}"
        if view.signed_until - self.clock() < SIGNATURES_SOON:
            raise _Soon(says, "the coordinator runs `agreement renew`, and the officers `sign`")
        return says

    def _check_data(self) -> str:
        report = read_records(self._settings)
        return "; ".join(report.lines()[:1])

    def _check_officer(self) -> str:
        own = self._own_documents()
        says = f"version {own.version}, until {own.expires:%Y-%m-%d %H:%M} UTC"
        keys = read_public(self.home.node_keys, "The node's public keys", "restore node-keys.json")
        if own.node != NodeKeys.from_canonical(keys):
            fix = f"there: `pratique-officer sign {self.home.node_keys} --node {self.home.path}`"
            if own.node and own.node.identity_key == self._keyring.identity.public.to_text():
                raise _Soon("the officer has not signed this node's new keys", fix)
            raise PratiqueError("the officer has not signed this node's keys", why=says, fix=fix)
        if own.expires - self.clock() < timedelta(days=1):
            raise _Soon(says, "there: `pratique-officer renew`")
        return says

    def _own_documents(self) -> CountryDocuments:
        """Return the newest of what the daemon has taken and what waits in the officer's folder."""
        found, fault = [], None
        for read in (self._mirrored, self._waiting):
            try:
                found.extend(read())
            except DocumentFault as error:
                fault = error
        if not found:
            raise fault or DocumentFault(
                "the officer has not handed over the country's documents",
                fix=f"there: `pratique-officer sign {self.home.node_keys} --node {self.home.path}`",
            )
        return max(found, key=lambda own: own.version)

    def _mirrored(self) -> list[CountryDocuments]:
        known = self.home.database.exists()
        return [self._documents().own(self.clock())] if known else []

    def _waiting(self) -> list[CountryDocuments]:
        key = VerifyKey.from_text(self._settings.officer_key)
        country, now = self._settings.country, self.clock()
        files = sorted(self.home.officer.glob("*.json"))
        read = [file.read_bytes() for file in files]
        return [own_country(one, country, signer_of(one, country, key), now) for one in read]

    def _check_daemon(self) -> str:
        if not self.home.socket.exists():
            raise _Soon("it is not running", "run `pratique-node up`")
        found = ask(self.home.socket, "status", 10.0)
        return str(found["waiting_for"])

    def _check_observe(self) -> str:
        address = self._settings.observe
        if address is None:
            return "off; `observe: 127.0.0.1:9464` in node.yaml shows metrics and health there"
        if not self.home.socket.exists():
            raise _Skip("the node is not running")
        unwell = asked(address)
        if unwell:
            says = "; ".join(f"{name}: {why}" for name, why in unwell.items())
            raise _Soon(f"http://{address}/health/ready is red: {says}", "see the checks above")
        return f"http://{address}/metrics, and /health/ready is green"


def _made(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, CheckState.GOOD, check())
    except _Soon as soon:
        return CheckResult(name, CheckState.SOON, *soon.args)
    except _Skip as skipped:
        return CheckResult(name, CheckState.SKIPPED, f"not checked: {skipped}")
    except PratiqueError as fault:
        says = f"{fault.what}; {fault.why}" if fault.why else fault.what
        return CheckResult(name, CheckState.FAILED, says, fault.fix)
    except OSError as error:
        fix = "check that the file is there and that this user may read it"
        return CheckResult(name, CheckState.FAILED, str(error), fix)


def _installation() -> str:
    if sys.version_info < OLDEST_PYTHON or sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise PratiqueError(
            f"Python {sys.version.split()[0]} with SQLite {sqlite3.sqlite_version} is too old",
            fix="install Pratique under Python 3.11 or later",
        )
    for package, wanted in WANTED.items():
        _require_version(package, wanted)
    return f"Pratique {_version('pratique')}, Flower {_version('flwr')}"


def _require_version(package: str, wanted: str) -> None:
    found = _version(package)
    if not found.startswith(wanted):
        raise PratiqueError(
            f"{package} {found} is installed, and {wanted}x is needed",
            fix="install Pratique again from its lock files",
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _time(metadata: bytes | None, name: str) -> datetime | None:
    """Return a time in metadata that are looked at and not trusted."""
    try:
        text = json.loads(metadata or b"{}")["signed"][name]
        return datetime.fromisoformat(text)
    except (ValueError, KeyError, TypeError):
        return None


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} minutes"
