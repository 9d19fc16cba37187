"""One authority follows another by the older one's signature, and in no other way."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keys.certificates import Role, TransportAuthority, certificate_fingerprint, peer_of
from keys.errors import KeyFault
from keys.pem import MAX_CERTIFICATES, pem_of_public
from keys.succession import (
    BEFORE_THE_END,
    NOTICE,
    OVERLAP,
    AuthorityLine,
    followed,
    issuer_among,
)
from tests.support.certificates import NOW, as_pem, issued

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


def test_the_next_authority_is_published_half_a_year_before_it_issues() -> None:
    assert LINE.in_force(DUE) is OLD
    assert LINE.in_force(SWITCH - timedelta(seconds=1)) is OLD
    assert LINE.in_force(SWITCH) is NEW
    assert LINE.trusted(DUE) == LINE.trusted(SWITCH) == BOTH


def test_the_old_authority_is_trusted_until_its_certificates_have_expired() -> None:
    assert LINE.trusted(SWITCH + OVERLAP - DAY) == BOTH
    assert LINE.retired(SWITCH + OVERLAP - DAY) == 0
    assert LINE.retired(SWITCH + OVERLAP) == 1
    assert LINE.trusted(SWITCH + OVERLAP) == NEW.certificate_pem
    assert LINE.vouchers(SWITCH) == VOUCHER
    assert LINE.vouchers(SWITCH + OVERLAP) == b""


def test_the_time_constants_fit_the_certificate_lifetimes() -> None:
    """A party's certificate is valid for 90 days and is renewed by day 68."""
    assert NOTICE >= 2 * 90 * DAY
    assert OVERLAP > 90 * DAY
    assert BEFORE_THE_END > NOTICE + OVERLAP + 365 * DAY


def test_a_late_successor_takes_over_half_way_to_the_end() -> None:
    late = FIRST.extended(OLD.ends - 40 * DAY)
    assert late.in_force(OLD.ends - 21 * DAY) is OLD
    assert late.in_force(OLD.ends - 19 * DAY) is late.generations[1].authority


def test_a_party_trusts_a_successor_that_the_older_authority_signed() -> None:
    assert followed(HELD, BOTH, VOUCHER, DUE) == BOTH
    assert followed(BOTH, NEW.certificate_pem, b"", SWITCH + OVERLAP) == NEW.certificate_pem
    assert followed(HELD, HELD, b"", DUE) == HELD


def test_two_steps_at_once_have_the_same_result() -> None:
    longer = LINE.extended(DUE + DAY)
    everything = b"".join(
        certificate.authority.certificate_pem for certificate in longer.generations
    )
    vouchers = longer.vouchers(DUE + DAY)
    assert followed(HELD, everything, vouchers, DUE + DAY) == everything
    with pytest.raises(KeyFault):  # the middle step is missing
        followed(HELD, longer.generations[2].authority.certificate_pem, vouchers, DUE + DAY)


def stranger() -> TransportAuthority:
    return TransportAuthority.create("danube", DUE)


def self_vouched() -> bytes:
    other = stranger()
    return other.vouch(other, DUE)


def vouched_by_a_stranger() -> bytes:
    return stranger().vouch(STRANGER, DUE)


def certified_as_a_party() -> bytes:
    """Return the stranger's authority, whose key the old authority certified as a party's key."""
    key = pem_of_public(STRANGER._key.public_key())
    return OLD.issue(key, country="AT", role=Role.NODE, now=DUE, lifetime=30 * DAY)


def in_the_authority_s_name_without_its_rights() -> bytes:
    """Return a certificate in the authority's name that the old one signed without its rights."""
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
def test_no_other_authority_is_accepted(voucher: Callable[[], bytes]) -> None:
    for offered in (STRANGER.certificate_pem, HELD + STRANGER.certificate_pem):
        with pytest.raises(KeyFault, match="cannot be trusted"):
            followed(HELD, offered, voucher(), DUE)


def test_an_authority_s_certificate_cannot_be_changed() -> None:
    """The forgery has the newer authority's key and name, and a longer validity."""
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
def test_an_expired_authority_cannot_sign_a_successor(now: datetime) -> None:
    with pytest.raises(KeyFault, match="cannot be trusted"):
        followed(HELD, BOTH, VOUCHER, now)


def test_a_successor_outside_its_validity_is_not_trusted() -> None:
    for now in (NEW.begins - DAY, NEW.ends + DAY):
        with pytest.raises(KeyFault):
            followed(HELD, BOTH, VOUCHER, now)


def test_every_party_always_has_a_valid_authority() -> None:
    for offered in (b"", b"junk", HELD * (MAX_CERTIFICATES + 1)):
        with pytest.raises(KeyFault):
            followed(HELD, offered, VOUCHER, DUE)


@given(st.binary(max_size=300))
def test_malformed_vouchers_are_refused(junk: bytes) -> None:
    with pytest.raises(KeyFault):
        followed(HELD, BOTH, junk, DUE)


def with_another_key(pem: bytes, key: bytes) -> bytes:
    """Return a certificate whose point is no point of the curve."""
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    point = NEW._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert point in der
    return as_pem(der.replace(point, key.ljust(len(point), b"\x01")))


@pytest.mark.parametrize("key", [b"\x04", b"\x02", b"\0"])
def test_a_certificate_with_a_key_that_cannot_be_read_is_refused(key: bytes) -> None:
    broken = with_another_key(NEW.certificate_pem, key)
    with pytest.raises(KeyFault, match="not a P-256 certificate"):
        followed(HELD, OLD.certificate_pem + broken, VOUCHER, DUE)
    with pytest.raises(KeyFault, match="not a P-256 certificate"):
        followed(HELD, BOTH, with_another_key(VOUCHER, key), DUE)


def test_certificates_of_both_authorities_are_accepted_in_the_overlap() -> None:
    for authority in (OLD, NEW):
        certificates = issued(authority, now=SWITCH)
        assert peer_of(certificates, authority_pem=BOTH, now=SWITCH, revoked=()).country == "AT"
        assert authority.issued(certificates)
        assert certificate_fingerprint(issuer_among(BOTH, certificates)) == authority.digest
    with pytest.raises(KeyFault, match="None of the"):
        issuer_among(HELD, issued(NEW, now=SWITCH))
    with pytest.raises(KeyFault, match="refused"):
        peer_of(issued(stranger(), now=DUE), authority_pem=BOTH, now=DUE, revoked=())
