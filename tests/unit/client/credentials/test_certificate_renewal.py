"""A node renews its certificate, reports failures, and enrols again by a new invitation."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from client.commands.enrol import Candidate
from client.credentials.certificate_renewal import (
    PAUSE,
    CertificateRenewal,
    credentials,
    transport_pair,
)
from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault
from client.home import NodeHome
from client.state.state_check import open_log, row_names
from client.state.tables import MIGRATIONS
from governance.audit.checkpoint import open_checkpoint
from governance.audit.log import AuditLog
from governance.budget.ledger import Ledger, ledger_entries
from governance.documents.permit import NodeKeys
from governance.runtime.database import open_database
from keys.certificates import Role
from keys.renewal import serial_of
from keys.store import KeyStore
from keys.succession import BEFORE_THE_END, NOTICE
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest, RenewReply, RenewRequest
from protocols.wire.encoding import digest
from server.membership.certificates import SETTLING
from server.membership.transport_authority import ExchangeTransport
from server.state.tables import MIGRATIONS as SERVER_MIGRATIONS
from tests.support.enrolling import enrolment_of
from tests.support.joining_node import (
    NOW,
    ROOT,
    create_joining_node,
    keyring,
)
from tests.support.keystore import PASSPHRASE, fast_store, reopen
from tests.support.ledger_and_log import (
    STUDY,
    event,
    release,
    run_id,
    terms,
)
from tests.support.long_lived_parties import DirectLink

DAY = timedelta(days=1)


class EnrolmentExchange(DirectLink):
    """The exchange, as a node connects to it for its enrolment."""

    root: bytes = ROOT

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        reply = self.enrolment.enrol("DK", request, self.clock())
        if reply.status == EnrolReply.PENDING:
            self.enrolment.admit(reply.fingerprint, self.clock())
        return self.enrolment.enrol("DK", request, self.clock())

    def fetch(self, path: str) -> bytes | None:
        return self.root

    def close(self) -> None:
        return None


class Life:
    """A node's home over the years, its exchange, and a clock for both."""

    def __init__(self, folder: Path) -> None:
        self.now, self.home = NOW, create_joining_node(folder)
        (folder / "exchange").mkdir()
        store = fast_store(folder / "exchange" / "keys")
        self.transport = ExchangeTransport.create(
            folder / "exchange", ("localhost",), store, federation="nordic-heart", now=NOW
        )
        engine = open_database(folder / "exchange" / "state.db", SERVER_MIGRATIONS)
        self.link = EnrolmentExchange(
            enrolment_of(engine, self.transport), self.transport, self.clock
        )

    def clock(self) -> datetime:
        return self.now

    def pass_by(self, days: float) -> None:
        """Let time pass; the coordinator renews its authority and its certificate."""
        self.now += days * DAY
        self.transport.renew_due(self.now)

    def enrol(self, **changed: str | None) -> "Life":
        store = reopen(self.home.keys)
        candidate = Candidate(
            home=self.home,
            settings=self.home.settings(),
            pair=transport_pair(self.home, store),
            keyring=NodeKeyring.load(store),
            keys=NodeKeys.from_canonical(self.home.node_keys.read_bytes()),
            dial=lambda *_: self.link,
            clock=self.clock,
        )
        asked = self.link.enrolment.invite(
            "DK", Role.NODE, exchange="x:1", root_digest=digest(ROOT), now=self.now
        )
        assert candidate.enrol(
            asked.model_copy(update=changed), wait=0, on_introduction=lambda _: None
        )
        return self.start()

    def start(self) -> "Life":
        shown = credentials(self.home, reopen(self.home.keys), self.clock).presented()
        self.link.present(authority=shown.authority, key=shown.key, certificate=shown.certificate)
        return self

    def renewal(self, share: float = 0.0) -> CertificateRenewal:
        node_credentials = credentials(self.home, reopen(self.home.keys), self.clock, share)
        return CertificateRenewal(self.home, node_credentials, self.link, self.clock)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path).enrol()


def pinned(home: NodeHome) -> str:
    enrolment = home.settings().enrolment
    assert enrolment is not None
    return enrolment.authority_digest


def test_a_due_certificate_is_renewed_and_used_at_once(life: Life) -> None:
    renewal, before = life.renewal(), life.link.certificate
    for _ in range(59):
        life.pass_by(1)
        renewal.renew_if_due()
    assert life.link.certificate == before
    life.pass_by(1.1)
    renewal.renew_if_due()
    assert life.link.certificate == life.home.certificate.read_bytes() != before
    life.link.call()
    renewal.renew_if_due()
    assert len(life.link.presented) == 2


def test_a_failed_renewal_is_tried_again_later_and_delays_nothing(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    renewal, requests = life.renewal(), list[RenewRequest]()
    inner, life.link.lost = life.link.renew, True

    def counted(request: RenewRequest) -> RenewReply:
        requests.append(request)
        return inner(request)

    life.link.renew = counted  # type: ignore[method-assign]
    life.pass_by(61)
    for _ in range(20):
        renewal.renew_if_due()
    assert len(requests) == 1
    life.now += PAUSE
    renewal.renew_if_due()
    assert len(requests) == 2
    assert requests[0].public_key == requests[1].public_key
    assert "certificate not renewed" in caplog.text
    life.link.call()
    life.link.lost = False
    life.now += PAUSE
    renewal.renew_if_due()
    life.link.call()
    assert renewal.ended() == ""


def test_an_expired_certificate_is_reported_with_a_fix(life: Life) -> None:
    renewal = life.renewal()
    life.now += 89 * DAY
    assert renewal.ended() == ""
    life.now += 2 * DAY
    assert "new invitation" in renewal.ended()
    renewal.renew_if_due()  # makes no request with an expired certificate, and raises nothing


def test_the_pinned_digest_follows_the_authority(life: Life) -> None:
    first = life.transport.in_force(life.now)
    assert pinned(life.home) == first.digest
    life.pass_by((first.ends - BEFORE_THE_END - life.now) / DAY)
    life.enrol()
    renewal = life.renewal()
    for _ in range(int((NOTICE + 100 * DAY) / DAY)):
        life.pass_by(1)
        renewal.renew_if_due()
        life.link.call()
    second = life.transport.in_force(life.now)
    assert second.digest != first.digest
    assert pinned(life.home) == second.digest
    settings = life.home.settings()
    assert settings.enrolment is not None
    assert settings.enrolment.root_digest == digest(ROOT)


def books(home: NodeHome) -> tuple[int, bytes, list[bytes]]:
    """Return from the node's database the micro-units spent, the log's checkpoint and lines."""
    engine = open_database(home.database, MIGRATIONS)
    log = AuditLog(engine, "pratique/dk/node", keyring(home).log_key)
    spent = Ledger(engine).view(terms(10**9)).spent_micro
    return spent, log.checkpoint(), list(log.export())


def secrets(home: NodeHome) -> dict[str, bytes]:
    store = reopen(home.keys)
    return {name: store.get(name) for name in store.names()}


def test_a_node_off_for_months_enrols_again_and_keeps_ledger_log_and_keys(life: Life) -> None:
    engine = open_database(life.home.database, MIGRATIONS)
    log = open_log(engine, "pratique/dk/node", keyring(life.home).log_key, former=False)
    with engine.begin() as connection:
        Ledger(engine).reserve(
            terms(10**9),
            study=STUDY,
            run=run_id(1),
            mechanisms=[release()],
            now=NOW,
            connection=connection,
        )
        log.append(event(1, rows=row_names(connection, ledger_entries)), connection)
    before, keys, settings = books(life.home), secrets(life.home), life.home.settings()
    old = life.link.certificate
    life.pass_by(200)
    with pytest.raises(Exception, match="expired on"):
        life.start()
    life.enrol().link.call()
    spent, _, lines = books(life.home)
    assert spent == before[0] > 0
    log.require_head(open_checkpoint(before[1], log.verifier))
    assert lines[:-1] == before[2]
    assert b'"kind":"node-enrolled"' in lines[-1]
    changed = {name for name, secret in secrets(life.home).items() if keys[name] != secret}
    assert changed == {"transport"}
    assert life.home.settings() == settings
    assert serial_of(life.home.certificate.read_bytes()) != serial_of(old)


def test_a_node_enrols_again_only_in_its_federation_and_under_its_root(life: Life) -> None:
    before = (life.home.settings(), life.home.certificate.read_bytes(), life.home.root.read_bytes())
    for changed, why in (
        ({"federation": "south-sea"}, "belongs to nordic-heart"),
        ({"root_digest": digest(b"another")}, "another root of documents"),
    ):
        with pytest.raises(NodeFault) as caught:
            life.enrol(**changed)
        assert why in caught.value.why
    after = (life.home.settings(), life.home.certificate.read_bytes(), life.home.root.read_bytes())
    assert after == before


def test_a_revoked_node_enrols_again_with_another_key(life: Life) -> None:
    key = KeyStore.open(life.home.keys, PASSPHRASE).get("transport")
    life.link.enrolment.revoke("DK", Role.NODE, life.now)
    with pytest.raises(Exception, match="refused"):
        life.link.call()
    life.enrol().link.call()
    assert KeyStore.open(life.home.keys, PASSPHRASE).get("transport") != key
    life.now += SETTLING
    life.link.call()
