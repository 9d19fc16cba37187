"""A party's key and certificate change while in use, and a crash leaves a usable pair."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from governance.runtime.database import open_database
from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.errors import KeyFault
from keys.renewal import certified_key
from protocols.proto.exchange_pb2 import RenewReply, RenewRequest
from protocols.wire.channel import LinkFault
from server.membership.certificates import CERTIFICATE_LIFETIME, SETTLING
from server.membership.transport_authority import ExchangeTransport
from server.state.tables import MIGRATIONS
from tests.support.enrolling import enrolment_of
from tests.support.keystore import fast_store, reopen
from tests.support.long_lived_parties import (
    Death,
    DirectLink,
    Party,
    dying,
)

DAY = timedelta(days=1)
BEGUN = datetime(2026, 9, 1, 12, tzinfo=UTC)
WRITES = ["put", "write", "write", "put", "delete"]
"""The writes, in order: new key, authorities, certificate, key renamed, copy removed."""


class Clock:
    def __init__(self) -> None:
        self.now = BEGUN

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def link(tmp_path: Path, clock: Clock) -> DirectLink:
    folder = tmp_path / "exchange"
    folder.mkdir()
    store = fast_store(folder / "keys")
    transport = ExchangeTransport.create(
        folder, ("localhost",), store, federation="danube", now=BEGUN
    )
    enrolment = enrolment_of(open_database(folder / "state.db", MIGRATIONS), transport)
    return DirectLink(enrolment, transport, clock)


@pytest.fixture
def party(tmp_path: Path, link: DirectLink) -> Party:
    return Party(tmp_path / "party", Role.NODE, link).enrol()


def test_a_renewal_gives_a_new_key_and_a_new_certificate(party: Party, clock: Clock) -> None:
    before = party.pair.load()
    clock.now += 60 * DAY
    assert party.credentials.due()
    party.renew()
    after = party.pair.load()
    assert before[0] != after[0]
    assert certified_key(after[1]) == public_pem(after[0])
    assert party.credentials.ends() == clock.now + CERTIFICATE_LIFETIME
    assert not party.credentials.due()
    assert reopen(party.folder / "keys").names() == ["transport"]
    party.link.call()


@pytest.mark.parametrize("step", range(len(WRITES) + 1))
def test_a_crash_before_any_write_leaves_a_usable_pair(
    party: Party, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    clock.now += 60 * DAY
    with dying(monkeypatch, step) as done:
        if step < len(WRITES):
            with pytest.raises(Death):
                party.renew()
        else:
            party.renew()
    assert done == WRITES[:step]
    assert party.holds_a_pair()
    party.start().link.call()
    if party.credentials.due():
        party.renew()
    party.start().link.call()
    assert party.credentials.ends() == clock.now + CERTIFICATE_LIFETIME
    clock.now += 60 * DAY  # what the crash left over does not count as a new key
    before = party.pair.load()[0]
    party.renew()
    assert party.pair.load()[0] != before
    party.link.call()
    assert reopen(party.folder / "keys").names() == ["transport"]
    assert party.link.enrolment.register.disputes() == []


@pytest.mark.parametrize("step", range(4))
def test_a_crash_before_any_write_of_an_enrolment_is_repaired_by_the_next(
    party: Party, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    clock.now += 200 * DAY
    with dying(monkeypatch, step), pytest.raises(Death):
        party.enrol()
    assert party.holds_a_pair()
    party.enrol()
    party.link.call()


def test_a_lost_reply_is_requested_again_with_the_same_key(party: Party, clock: Clock) -> None:
    clock.now += 65 * DAY
    party.link.lost = True
    for _ in range(3):
        with pytest.raises(LinkFault):
            party.renew()
        party.link.call()
        clock.now += timedelta(hours=3)
    waiting = party.pair.next_key()
    party.link.lost = False
    clock.now += 7 * DAY  # off for a week, with the old certificate
    with pytest.raises(KeyFault, match="refused"):
        party.start().link.call()
    party.renew()
    assert party.pair.load()[0] == waiting
    party.link.call()
    assert party.link.enrolment.register.disputes() == []


def test_a_copy_of_the_folder_is_detected(party: Party, clock: Clock, tmp_path: Path) -> None:
    import shutil  # noqa: PLC0415 (used here only)

    shutil.copytree(party.folder, tmp_path / "copy")
    other_link = DirectLink(party.link.enrolment, party.link.transport, clock)
    copy = Party(tmp_path / "copy", Role.NODE, other_link).start()
    clock.now += 60 * DAY
    party.renew()
    party.link.call()
    with pytest.raises(Exception, match="with another key"):
        copy.renew()
    clock.now += SETTLING
    with pytest.raises(KeyFault, match="refused"):
        copy.link.call()
    assert [dispute.country for dispute in party.link.enrolment.register.disputes()] == ["AT"]


def test_an_ended_certificate_says_what_to_do(party: Party, clock: Clock) -> None:
    clock.now += 91 * DAY
    with pytest.raises(KeyFault) as caught:
        party.credentials.presented()
    assert "expired on 2026-11-30" in caught.value.what
    assert "2026-12-01" in caught.value.why
    assert "new invitation" in caught.value.fix
    assert "clock" in caught.value.fix
    party.enrol().link.call()


def test_there_is_no_certificate_before_an_enrolment(tmp_path: Path, link: DirectLink) -> None:
    fast_store(tmp_path / "keys")
    with pytest.raises(KeyFault, match="no certificate") as caught:
        Party(tmp_path, Role.NODE, link).credentials.presented()
    assert "invitation" in caught.value.fix


def test_a_key_of_another_backup_is_named(party: Party) -> None:
    reopen(party.folder / "keys").put("transport", new_transport_key())
    with pytest.raises(KeyFault, match="No key here fits") as caught:
        party.credentials.presented()
    assert "backup" in caught.value.why


def another_country(link: DirectLink, request: RenewRequest) -> RenewReply:
    return answered(link, request, country="BE")


def another_role(link: DirectLink, request: RenewRequest) -> RenewReply:
    return answered(link, request, role=Role.OFFICER)


def another_key(link: DirectLink, request: RenewRequest) -> RenewReply:
    return answered(link, RenewRequest(public_key=public_pem(new_transport_key())))


def another_authority(link: DirectLink, request: RenewRequest) -> RenewReply:
    stranger = TransportAuthority.create("danube", link.clock())
    answer = answered(link, request, issuer=stranger)
    answer.authority += stranger.certificate_pem
    answer.succession = stranger.vouch(stranger, link.clock())
    return answer


def an_authority_not_among_those_offered(link: DirectLink, request: RenewRequest) -> RenewReply:
    return answered(link, request, issuer=TransportAuthority.create("danube", link.clock()))


def no_authority(link: DirectLink, request: RenewRequest) -> RenewReply:
    answer = answered(link, request)
    answer.authority = b""
    return answer


def answered(
    link: DirectLink,
    request: RenewRequest,
    *,
    country: str = "AT",
    role: Role = Role.NODE,
    issuer: TransportAuthority | None = None,
) -> RenewReply:
    now = link.clock()
    authority = issuer or link.transport.in_force(now)
    certificate = authority.issue(
        request.public_key, country=country, role=role, now=now, lifetime=90 * DAY
    )
    return RenewReply(certificate=certificate, authority=link.transport.trusted(now))


@pytest.mark.parametrize(
    "answer",
    [
        another_country,
        another_role,
        another_key,
        another_authority,
        an_authority_not_among_those_offered,
        no_authority,
    ],
)
def test_an_answer_that_is_not_for_this_party_changes_nothing(
    party: Party,
    answer: Callable[[DirectLink, RenewRequest], RenewReply],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = party.pair.load(), (party.folder / "authority.pem").read_bytes()
    monkeypatch.setattr(party.link, "renew", lambda request: answer(party.link, request))
    with pytest.raises(KeyFault):
        party.renew()
    assert (party.pair.load(), (party.folder / "authority.pem").read_bytes()) == before
    party.link.call()


def test_the_key_is_never_printed(party: Party) -> None:
    presented = party.credentials.presented()
    assert b"PRIVATE" in presented.key
    assert "PRIVATE" not in repr(presented)
