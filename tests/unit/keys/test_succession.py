"""One authority after another: by the older one's signature, and in no other way."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from keys.certificates import Role, TransportAuthority, certificate_fingerprint, peer_of
from keys.errors import KeyFault
from keys.pem import MOST_CERTIFICATES, pem_of_public
from keys.succession import (
    BEFORE_THE_END,
    NOTICE,
    OVERLAP,
    AuthorityLine,
    followed,
    issuer_among,
)
from tests.support.certificates import NOW, issued

DAY = timedelta(days=1)
OLD = TransportAuthority.create("danube", NOW)
FIRST = AuthorityLine.of(OLD)
DUE = OLD.ends - BEFORE_THE_END
LINE = FIRST.extended(DUE)
NEW = LINE.generations[1].authority
VOUCHER = LINE.generations[1].voucher
SWITCH = NEW.begins + NOTICE
HELD, BOTH = OLD.certificate_pem, OLD.certificate_pem + NEW.certificate_pem


def test_the_next_authority_is_due_two_years_before_the_end() -> None:
    assert not FIRST.next_is_due(DUE - DAY)
    assert FIRST.next_is_due(DUE)
    assert not LINE.next_is_due(DUE)


def test_it_is_known_for_half_a_year_before_it_issues() -> None:
    assert LINE.in_force(DUE) is OLD
    assert LINE.in_force(SWITCH - timedelta(seconds=1)) is OLD
    assert LINE.in_force(SWITCH) is NEW
    assert LINE.trusted(DUE) == LINE.trusted(SWITCH) == BOTH


def test_the_old_one_is_believed_until_what_it_issued_has_ended() -> None:
    assert LINE.trusted(SWITCH + OVERLAP - DAY) == BOTH
    assert LINE.retired(SWITCH + OVERLAP - DAY) == 0
    assert LINE.retired(SWITCH + OVERLAP) == 1
    assert LINE.trusted(SWITCH + OVERLAP) == NEW.certificate_pem
    assert LINE.vouchers(SWITCH) == VOUCHER
    assert LINE.vouchers(SWITCH + OVERLAP) == b""


def test_what_was_asked_of_the_figures() -> None:
    """A party's certificate lives 90 days and is renewed by day 68."""
    assert NOTICE >= 2 * 90 * DAY
    assert OVERLAP > 90 * DAY
    assert BEFORE_THE_END > NOTICE + OVERLAP + 365 * DAY


def test_begun_late_it_takes_over_half_way_to_the_end() -> None:
    late = FIRST.extended(OLD.ends - 40 * DAY)
    assert late.in_force(OLD.ends - 21 * DAY) is OLD
    assert late.in_force(OLD.ends - 19 * DAY) is late.generations[1].authority


def test_a_party_follows_by_the_older_one_s_voucher() -> None:
    assert followed(HELD, BOTH, VOUCHER, DUE) == BOTH
    assert followed(BOTH, NEW.certificate_pem, b"", SWITCH + OVERLAP) == NEW.certificate_pem
    assert followed(HELD, HELD, b"", DUE) == HELD


def test_two_steps_at_once_lead_as_far() -> None:
    longer = LINE.extended(DUE + DAY)
    everything = b"".join(one.authority.certificate_pem for one in longer.generations)
    vouchers = longer.vouchers(DUE + DAY)
    assert followed(HELD, everything, vouchers, DUE + DAY) == everything
    with pytest.raises(KeyFault):  # the step between is missing
        followed(HELD, longer.generations[2].authority.certificate_pem, vouchers, DUE + DAY)


def stranger() -> TransportAuthority:
    return TransportAuthority.create("danube", DUE)


def self_vouched() -> bytes:
    other = stranger()
    return other.vouch(other, DUE)


def vouched_by_a_stranger() -> bytes:
    return stranger().vouch(STRANGER, DUE)


def certified_as_a_party() -> bytes:
    """A party with the stranger's key has a certificate of the old authority for it."""
    key = pem_of_public(STRANGER._key.public_key())
    return OLD.issue(key, country="AT", role=Role.NODE, now=DUE, lifetime=30 * DAY)


def in_the_authority_s_name_without_its_rights() -> bytes:
    """Signed by the old authority, in the right name, and no certificate of an authority."""
    name = STRANGER._certificate.subject
    builder = (
        x509.CertificateBuilder(issuer_name=OLD._certificate.subject, subject_name=name)
        .public_key(STRANGER._key.public_key())
        .serial_number(7)
        .not_valid_before(DUE - DAY)
        .not_valid_after(DUE + DAY)
    )
    return builder.sign(OLD._key, SHA256()).public_bytes(Encoding.PEM)


STRANGER = stranger()
SWAPS: list[Callable[[], bytes]] = [
    lambda: b"",
    lambda: VOUCHER,
    self_vouched,
    vouched_by_a_stranger,
    certified_as_a_party,
    in_the_authority_s_name_without_its_rights,
]


@pytest.mark.parametrize("voucher", SWAPS)
def test_no_other_authority_is_slipped_in(voucher: Callable[[], bytes]) -> None:
    for offered in (STRANGER.certificate_pem, HELD + STRANGER.certificate_pem):
        with pytest.raises(KeyFault, match="cannot be trusted"):
            followed(HELD, offered, voucher(), DUE)


def test_what_an_authority_says_of_itself_cannot_be_changed() -> None:
    """A certificate with the newer authority's key and name, and more years than it gave itself."""
    name = NEW._certificate.subject
    longer = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name)
        .public_key(NEW._key.public_key())
        .serial_number(7)
        .not_valid_before(DUE - DAY)
        .not_valid_after(DUE + 99 * 365 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(STRANGER._key, SHA256())
    )
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(HELD, longer.public_bytes(Encoding.PEM), VOUCHER, DUE)


def test_a_party_s_certificate_is_no_authority() -> None:
    leaf = issued(OLD, now=DUE)
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(HELD, leaf, VOUCHER, DUE)


def test_an_authority_of_another_federation_cannot_follow() -> None:
    other = TransportAuthority.create("rhine", DUE)
    with pytest.raises(KeyFault, match="another federation"):
        OLD.vouch(other, DUE)
    other._certificate, name = OLD._certificate, other._certificate
    voucher = OLD.vouch(other, DUE)
    other._certificate = name
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(HELD, other.certificate_pem, voucher, DUE)


@pytest.mark.parametrize("now", [OLD.ends, OLD.ends + DAY])
def test_an_authority_that_has_ended_vouches_for_nothing(now: datetime) -> None:
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(HELD, BOTH, VOUCHER, now)


def test_a_newer_one_that_does_not_hold_yet_or_any_more_is_not_followed() -> None:
    for now in (NEW.begins - DAY, NEW.ends + DAY):
        with pytest.raises(KeyFault):
            followed(HELD, BOTH, VOUCHER, now)


def test_nobody_is_left_without_an_authority() -> None:
    for offered in (b"", b"junk", HELD * (MOST_CERTIFICATES + 1)):
        with pytest.raises(KeyFault):
            followed(HELD, offered, VOUCHER, DUE)


@given(st.binary(max_size=300))
def test_a_stranger_s_bytes_vouch_for_nothing(junk: bytes) -> None:
    with pytest.raises(KeyFault):
        followed(HELD, BOTH, junk, DUE)


def test_certificates_of_both_are_believed_in_the_overlap() -> None:
    for authority in (OLD, NEW):
        made = issued(authority, now=SWITCH)
        assert peer_of(made, authority_pem=BOTH, now=SWITCH, revoked=()).country == "AT"
        assert authority.issued(made)
        assert certificate_fingerprint(issuer_among(BOTH, made)) == authority.digest
    with pytest.raises(KeyFault, match="None of the"):
        issuer_among(HELD, issued(NEW, now=SWITCH))
    with pytest.raises(KeyFault, match="refused"):
        peer_of(issued(stranger(), now=DUE), authority_pem=BOTH, now=DUE, revoked=())
