"""The exchange's own certificate and the authorities over the years."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from governance.audit.events import EventKind
from governance.runtime.database import open_database
from keys.certificates import Role, certificate_fingerprint, peer_of, public_pem
from keys.errors import KeyFault
from keys.renewal import certified_key, ends_of
from keys.store import KeyStore
from keys.succession import BEFORE_THE_END, NOTICE, OVERLAP, followed
from server.membership.transport_authority import SERVER_LIFETIME, ExchangeTransport
from server.state.tables import MIGRATIONS
from tests.support.certificates import alternative_names
from tests.support.enrolling import enrolment_of
from tests.support.keystore import fast_store, reopen
from tests.support.long_lived_parties import (
    Death,
    DirectLink,
    Party,
    dying,
)

BEGUN = datetime(2026, 9, 1, 12, tzinfo=UTC)
DAY, YEAR = timedelta(days=1), timedelta(days=365)
HOSTS = ("exchange.example.org", "localhost")
FOLLOWED, RENEWED = EventKind.AUTHORITY_FOLLOWED, EventKind.CERTIFICATE_RENEWED


@pytest.fixture
def transport(tmp_path: Path) -> ExchangeTransport:
    return ExchangeTransport.create(
        tmp_path, HOSTS, fast_store(tmp_path / "keys"), federation="danube", now=BEGUN
    )


def store_of(folder: Path) -> KeyStore:
    return reopen(folder / "keys")


def again(folder: Path) -> ExchangeTransport:
    """Open the transport as a restarted coordinator does."""
    return ExchangeTransport(folder, HOSTS, store_of(folder))


def serves(transport: ExchangeTransport, now: datetime) -> bool:
    """Return whether a party that trusts these authorities accepts the exchange's certificate."""
    peer = peer_of(transport.certificate, authority_pem=transport.trusted(now), now=now, revoked=())
    return peer.role is Role.COORDINATOR and certified_key(transport.certificate) == public_pem(
        transport.pair[0]
    )


def the_end(transport: ExchangeTransport) -> datetime:
    return transport.line.generations[-1].authority.ends


def test_the_certificate_is_renewed_in_use_with_another_key_and_the_same_names(
    transport: ExchangeTransport, tmp_path: Path
) -> None:
    key, certificate = transport.pair
    assert transport.renew_due(BEGUN + SERVER_LIFETIME * 0.66) == []
    now = BEGUN + SERVER_LIFETIME * 0.67
    assert transport.renew_due(now) == [RENEWED]
    assert transport.pair[0] != key
    assert str(alternative_names(transport.certificate)) == str(alternative_names(certificate))
    assert serves(transport, now + SERVER_LIFETIME - DAY)
    assert transport.renew_due(now) == []
    opened = again(tmp_path)
    assert opened.pair == transport.pair


def test_a_new_authority_is_announced_takes_over_and_the_old_one_is_destroyed(
    transport: ExchangeTransport, tmp_path: Path
) -> None:
    old = transport.in_force(BEGUN)
    announced = old.ends - BEFORE_THE_END
    transport.renew_due(announced - DAY)
    assert transport.renew_due(announced) == [FOLLOWED]
    new = transport.line.generations[1].authority
    taken_over = new.begins + NOTICE
    assert transport.in_force(taken_over - DAY).digest == old.digest
    assert RENEWED in transport.renew_due(taken_over)
    assert new.issued(transport.certificate)
    over = taken_over + OVERLAP
    assert transport.trusted(over - DAY) == old.certificate_pem + new.certificate_pem
    assert store_of(tmp_path).names() == ["authority", "authority-2", "transport"]
    transport.renew_due(over)
    assert transport.trusted(over) == new.certificate_pem
    assert store_of(tmp_path).names() == ["authority-2", "transport"]
    assert not (tmp_path / "authority.pem").exists()
    opened = again(tmp_path)
    assert opened.in_force(over).digest == new.digest
    assert serves(opened, over)


@pytest.mark.parametrize("step", range(9))
def test_a_crash_before_any_write_leaves_an_exchange_that_serves(
    transport: ExchangeTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Both are due at once: the next authority, and a certificate."""
    now = the_end(transport) - BEFORE_THE_END
    with dying(monkeypatch, step) as done:
        try:
            transport.renew_due(now)
        except Death:
            assert len(done) == step
        else:
            assert done == ["put", "write", "write", "put", "write", "put", "delete"]
    opened = again(tmp_path)
    opened.renew_due(now)
    assert serves(opened, now)
    assert len(opened.line.generations) == 2
    assert opened.line.vouchers(now)
    names = set(store_of(tmp_path).names()) - {"transport-next"}  # moved at the next renewal
    assert names == {"authority", "authority-2", "transport"}


@pytest.mark.parametrize("step", [0, 1])
def test_the_destruction_of_an_authority_is_completed_after_a_crash(
    transport: ExchangeTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    transport.renew_due(the_end(transport) - BEFORE_THE_END)
    taken_over = transport.line.generations[1].authority.begins + NOTICE
    transport.renew_due(taken_over)
    with dying(monkeypatch, step):
        try:
            transport.renew_due(taken_over + OVERLAP)
        except Death:
            assert step == 0
    opened = again(tmp_path)
    assert store_of(tmp_path).names() == ["authority-2", "transport"]
    assert serves(opened, taken_over + OVERLAP)


def test_a_folder_of_the_first_version_is_opened_as_it_is(tmp_path: Path) -> None:
    """Authority and exchange have the file names of the first version."""
    store = fast_store(tmp_path / "keys")
    created = ExchangeTransport.create(tmp_path, HOSTS, store, federation="danube", now=BEGUN)
    assert sorted(path.name for path in tmp_path.glob("*.pem")) == ["authority.pem", "exchange.pem"]
    assert store.names() == ["authority", "transport"]
    fingerprint = certificate_fingerprint((tmp_path / "authority.pem").read_bytes())
    assert created.in_force(BEGUN).digest == fingerprint


def test_a_late_renewal_does_not_outlive_its_authority(transport: ExchangeTransport) -> None:
    """A coordinator that was off until shortly before the end, with its certificate ended too."""
    old = transport.in_force(BEGUN)
    late = old.ends - 100 * DAY
    assert transport.renew_due(late) == [FOLLOWED, RENEWED]
    assert old.issued(transport.certificate)
    assert ends_of(transport.certificate) <= old.ends
    half_way = late + 51 * DAY
    transport.renew_due(half_way)
    assert not old.issued(transport.certificate)
    assert serves(transport, half_way)


def test_a_coordinator_that_was_off_for_years_gets_a_new_authority(
    transport: ExchangeTransport, tmp_path: Path
) -> None:
    """No party can trust the successor of an expired authority: all enrol again."""
    long_after = the_end(transport) + DAY
    old = transport.trusted(BEGUN)
    assert transport.renew_due(long_after) == [FOLLOWED, RENEWED]
    assert serves(transport, long_after)
    assert serves(again(tmp_path), long_after)
    assert transport.vouchers(long_after) == b""
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(old, transport.trusted(long_after), transport.vouchers(long_after), long_after)


class Federation:
    """A coordinator, a node and an officer, with a clock that the test moves by years."""

    def __init__(self, folder: Path, transport: ExchangeTransport, now: datetime = BEGUN) -> None:
        self.now, self.transport = now, transport
        transport.renew_due(now)
        self.noted: list[tuple[EventKind, str]] = []
        engine = open_database(folder / "state.db", MIGRATIONS)
        self.enrolment = enrolment_of(engine, transport, noted=self.noted)
        self.parties = [self._let_in(folder, *who) for who in WHO]

    def _let_in(self, folder: Path, country: str, role: Role, share: float) -> Party:
        link = DirectLink(self.enrolment, self.transport, lambda: self.now)
        home = folder / f"{country}-{role}"
        return Party(home, role, link, country=country, share=share).enrol()

    def live(self, days: int) -> None:
        """Let these days pass: each party renews its certificate, and calls the exchange."""
        self.now += days * DAY
        self.transport.renew_due(self.now)
        for party in self.parties:
            if party.credentials.due():
                party.renew()
            party.link.call()


WHO = [("AT", Role.NODE, 0.9), ("AT", Role.OFFICER, 0.0), ("BE", Role.NODE, 0.1)]


def test_after_a_year_all_parties_can_still_call(
    tmp_path: Path, transport: ExchangeTransport
) -> None:
    federation = Federation(tmp_path, transport)
    for _ in range(365):
        federation.live(1)
    renewals = [whom for kind, whom in federation.noted if kind is RENEWED]
    assert {whom: renewals.count(whom) for whom in set(renewals)} == {
        "AT node": 5,
        "AT officer": 6,
        "BE node": 5,
    }
    assert federation.enrolment.register.disputes() == []


def test_after_a_change_of_authority_all_parties_can_still_call(
    tmp_path: Path, transport: ExchangeTransport
) -> None:
    old = transport.in_force(BEGUN)
    federation = Federation(tmp_path, transport, old.ends - BEFORE_THE_END - 30 * DAY)
    for _ in range(30):
        federation.live(15)
    assert transport.in_force(federation.now).digest != old.digest
    for party in federation.parties:
        assert (party.folder / "authority.pem").read_bytes() == transport.trusted(federation.now)
    assert transport.trusted(federation.now).count(b"BEGIN") == 1


@pytest.mark.slow
def test_after_several_changes_of_authority_all_parties_can_still_call(
    tmp_path: Path, transport: ExchangeTransport
) -> None:
    """Twenty years, in steps of fifteen days: two authorities are replaced."""
    federation = Federation(tmp_path, transport)
    first = transport.in_force(federation.now).digest
    digests = {first}
    for _ in range(20 * 365 // 15):
        federation.live(15)
        digests.add(transport.in_force(federation.now).digest)
    assert len(digests) == 3
    assert len(transport.line.generations) <= 2
    for party in federation.parties:
        stored_authorities = (party.folder / "authority.pem").read_bytes()
        assert stored_authorities == transport.trusted(federation.now)
        assert party.holds_a_pair()


def test_a_node_that_was_off_for_months_enrols_again_and_can_call(
    tmp_path: Path, transport: ExchangeTransport
) -> None:
    federation = Federation(tmp_path, transport)
    away = federation.parties.pop()
    for _ in range(20):
        federation.live(20)
    with pytest.raises(KeyFault, match="expired on"):
        away.start()
    with pytest.raises(KeyFault, match="refused"):
        away.link.call()
    federation.parties.append(away.enrol())
    for _ in range(20):
        federation.live(10)
