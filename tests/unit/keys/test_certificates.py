from collections.abc import Callable
from datetime import timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from keys.certificates import (
    AUTHORITY_LIFETIME,
    CLOCK_SKEW,
    Peer,
    Role,
    TransportAuthority,
    certificate_fingerprint,
    new_node_auth_key,
    new_transport_key,
    public_pem,
)
from keys.errors import KeyFault
from keys.pem import PEM_LIMIT_BYTES
from tests.support.certificates import (
    KEY,
    MONTH,
    NOW,
    alternative_names,
    as_pem,
    forged,
    issued,
    seen_by,
    uri,
)

SECOND = timedelta(seconds=1)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # as DER, RFC 5758, section 3.2


# names in a certificate


@pytest.mark.parametrize("role", Role)
def test_a_certificate_names_its_federation_country_and_role(
    authority: TransportAuthority, role: Role
) -> None:
    pem = issued(authority, role=role)
    serial = x509.load_pem_x509_certificate(pem).serial_number
    end = (NOW + MONTH).replace(microsecond=0)
    assert seen_by(authority, pem) == Peer("danube", "AT", role, serial, end)
    names = alternative_names(pem)
    assert list(names) == [uri(f"pratique://danube/AT/{role}")]


def test_every_certificate_has_its_own_serial_number(authority: TransportAuthority) -> None:
    assert len({seen_by(authority, issued(authority)).serial for _ in range(20)}) == 20


def test_the_server_s_certificate_names_its_hosts_too(authority: TransportAuthority) -> None:
    hosts = ("localhost", "127.0.0.1", "Exchange.Example.org", "::1", "xn--bcher-kva.example")
    names = alternative_names(issued(authority, role=Role.COORDINATOR, hosts=hosts))
    assert names.get_values_for_type(x509.DNSName) == [
        "localhost",
        "Exchange.Example.org",
        "xn--bcher-kva.example",
    ]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
    ]


def usages(pem: bytes) -> list[x509.ObjectIdentifier]:
    extensions = x509.load_pem_x509_certificate(pem).extensions
    return list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_server_certificate_is_no_client_certificate_and_vice_versa(
    authority: TransportAuthority,
) -> None:
    server = issued(authority, role=Role.COORDINATOR, hosts=("localhost",))
    assert usages(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for role in Role:
        assert usages(issued(authority, role=role)) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.COORDINATOR])
def test_only_the_coordinator_can_name_hosts(authority: TransportAuthority, role: Role) -> None:
    with pytest.raises(KeyFault, match="cannot name hosts"):
        issued(authority, role=role, hosts=("localhost",))


def test_no_certificate_it_issues_can_issue_another(authority: TransportAuthority) -> None:
    extensions = x509.load_pem_x509_certificate(issued(authority)).extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign) == (True, False)


def test_an_independent_verifier_accepts_the_chain_for_its_purpose_only(
    authority: TransportAuthority,
) -> None:
    root = x509.load_pem_x509_certificate(authority.certificate_pem)
    policy = PolicyBuilder().store(Store([root])).time(NOW)
    node = x509.load_pem_x509_certificate(issued(authority))
    server_pem = issued(authority, role=Role.COORDINATOR, hosts=("localhost",))
    server = x509.load_pem_x509_certificate(server_pem)
    subjects = policy.build_client_verifier().verify(node, []).subjects
    assert subjects == [uri("pratique://danube/AT/node")]
    policy.build_server_verifier(x509.DNSName("localhost")).verify(server, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_client_verifier().verify(server, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("localhost")).verify(node, [])


# validity


def test_it_is_valid_from_a_little_before_until_just_before_its_end(
    authority: TransportAuthority,
) -> None:
    pem = issued(authority)
    start, end = (NOW - CLOCK_SKEW).replace(microsecond=0), (NOW + MONTH).replace(microsecond=0)
    seen_by(authority, pem, now=start)
    seen_by(authority, pem, now=end - SECOND)
    with pytest.raises(KeyFault, match="not valid yet"):
        seen_by(authority, pem, now=start - SECOND)
    with pytest.raises(KeyFault, match="expired"):
        seen_by(authority, pem, now=end)


def test_the_clock_s_zone_does_not_matter(authority: TransportAuthority) -> None:
    far_east = timezone(timedelta(hours=14))
    pem = issued(authority, now=NOW.astimezone(far_east), lifetime=timedelta(hours=1))
    assert seen_by(authority, pem).not_after == (NOW + timedelta(hours=1)).replace(microsecond=0)
    with pytest.raises(KeyFault, match="expired"):
        seen_by(authority, pem, now=(NOW + timedelta(hours=2)).astimezone(far_east))


def test_a_clock_without_a_zone_is_a_mistake(authority: TransportAuthority) -> None:
    with pytest.raises(TypeError):
        seen_by(authority, issued(authority), now=NOW.replace(tzinfo=None))
    with pytest.raises(TypeError):
        issued(authority, now=NOW.replace(tzinfo=None))


@pytest.mark.parametrize("lifetime", [timedelta(0), -SECOND, AUTHORITY_LIFETIME + SECOND])
def test_a_lifetime_ends_after_now_and_before_the_authority(
    authority: TransportAuthority, lifetime: timedelta
) -> None:
    with pytest.raises(KeyFault, match="lifetime"):
        issued(authority, lifetime=lifetime)
    issued(authority, lifetime=AUTHORITY_LIFETIME)


def test_a_revoked_certificate_is_refused_and_its_successor_is_not(
    authority: TransportAuthority,
) -> None:
    lost, successor = issued(authority), issued(authority)
    revoked = frozenset({seen_by(authority, lost).serial})
    with pytest.raises(KeyFault, match="revoked"):
        seen_by(authority, lost, revoked=revoked)
    seen_by(authority, successor, revoked=revoked)


# the issuer


@pytest.mark.parametrize("federation", ["rhine", "danube"])
def test_another_authority_s_certificate_is_refused_even_under_the_same_name(
    authority: TransportAuthority, federation: str
) -> None:
    stranger = TransportAuthority.create(federation, NOW)
    with pytest.raises(KeyFault, match="not issued by this federation"):
        seen_by(authority, issued(stranger))
    assert seen_by(stranger, issued(stranger)).federation == federation


def test_a_node_cannot_issue_with_its_own_certificate(authority: TransportAuthority) -> None:
    node_pem = issued(authority)
    node_key = load_pem_private_key(KEY, None)
    assert isinstance(node_key, ec.EllipticCurvePrivateKey)
    node = TransportAuthority(x509.load_pem_x509_certificate(node_pem), node_key)
    with pytest.raises(KeyFault, match="not issued by this federation"):
        seen_by(authority, forged(node, [uri("pratique://danube/HU/officer")]))


def test_the_authority_s_own_certificate_names_no_peer(authority: TransportAuthority) -> None:
    with pytest.raises(KeyFault, match="name one country and role"):
        seen_by(authority, authority.certificate_pem)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_changed_byte_that_the_authority_signed_is_noticed(
    authority: TransportAuthority,
) -> None:
    certificate = x509.load_pem_x509_certificate(issued(authority))
    der, signed = certificate.public_bytes(Encoding.DER), certificate.tbs_certificate_bytes
    start = der.index(signed)
    for position in range(start, start + len(signed)):
        changed = der[:position] + bytes([der[position] ^ 1]) + der[position + 1 :]
        with pytest.raises(KeyFault):
            seen_by(authority, as_pem(changed))


@pytest.mark.parametrize("new_s", ["n - s", "the same"])
def test_a_certificate_with_another_signature_encoding_has_the_same_serial_number(
    authority: TransportAuthority, new_s: str
) -> None:
    """ECDSA signatures have several encodings and so fingerprints: revocation uses the serial."""
    certificate = x509.load_pem_x509_certificate(issued(authority))
    r, s = decode_dss_signature(certificate.signature)
    if new_s == "n - s":
        s = P256_ORDER - s
    outer = certificate.tbs_certificate_bytes + ECDSA_WITH_SHA256
    bits = b"\0" + encode_dss_signature(r, s)
    body = outer + bytes([3, len(bits)]) + bits
    pem = as_pem(b"\x30\x82" + len(body).to_bytes(2, "big") + body)
    peer = seen_by(authority, pem)
    assert peer.serial == certificate.serial_number
    same = certificate_fingerprint(pem) == "sha256:" + certificate.fingerprint(SHA256()).hex()
    assert same == (new_s == "the same")
    with pytest.raises(KeyFault, match="revoked"):
        seen_by(authority, pem, revoked=frozenset({certificate.serial_number}))


@pytest.mark.parametrize("pem", [b"", b"garbage", as_pem(b""), as_pem(b"\x30\x00"), KEY])
def test_malformed_certificates_give_a_clear_error(
    authority: TransportAuthority, pem: bytes
) -> None:
    with pytest.raises(KeyFault, match="not a P-256 certificate"):
        seen_by(authority, pem)
    with pytest.raises(KeyFault, match="not a P-256 certificate"):
        certificate_fingerprint(pem)


def test_a_huge_input_is_refused_before_it_is_parsed(authority: TransportAuthority) -> None:
    padded = issued(authority) + b"\n" * PEM_LIMIT_BYTES
    with pytest.raises(KeyFault, match="too large"):
        seen_by(authority, padded)


# keys


def other_kinds() -> list[bytes]:
    keys: list[PrivateKeyTypes] = [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ]
    return [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys]


def public_of(private_pem: bytes) -> bytes:
    public = load_pem_private_key(private_pem, None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("kind", range(4))
def test_only_p256_keys_are_certified(authority: TransportAuthority, kind: int) -> None:
    private = other_kinds()[kind]
    with pytest.raises(KeyFault, match="P-256 private key"):
        public_pem(private)
    with pytest.raises(KeyFault, match="P-256 public key"):
        authority.issue(public_of(private), country="AT", role=Role.NODE, now=NOW, lifetime=MONTH)


@pytest.mark.parametrize("pem", [b"", b"garbage", KEY, b"x" * (PEM_LIMIT_BYTES + 1)])
def test_a_private_key_or_random_bytes_are_not_certified(
    authority: TransportAuthority, pem: bytes
) -> None:
    with pytest.raises(KeyFault, match="P-256 public key"):
        authority.issue(pem, country="AT", role=Role.NODE, now=NOW, lifetime=MONTH)


def test_an_encrypted_key_gives_a_clear_error() -> None:
    key = load_pem_private_key(KEY, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"words")
    )
    with pytest.raises(KeyFault, match="encrypted"):
        public_pem(encrypted)


def test_a_transport_key_is_fresh_and_p256() -> None:
    key = load_pem_private_key(new_transport_key(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert new_transport_key() != new_transport_key()
    assert public_pem(KEY) == public_of(KEY)


def test_a_node_auth_key_is_p384_in_the_formats_of_flower() -> None:
    private, line = new_node_auth_key()
    key = load_pem_private_key(private, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert "\n" not in line
    assert load_ssh_public_key(line.encode()) == key.public_key()


# the authority itself


def test_an_authority_is_stored_and_read_back(authority: TransportAuthority) -> None:
    certificate, key = authority.to_pem()
    again = TransportAuthority.from_pem(certificate, key)
    assert (again.federation, again.digest) == ("danube", authority.digest)
    assert b"PRIVATE" not in certificate
    assert seen_by(authority, issued(again)).federation == "danube"


def test_its_digest_is_that_of_its_certificate(authority: TransportAuthority) -> None:
    root = x509.load_pem_x509_certificate(authority.certificate_pem)
    assert authority.digest == "sha256:" + root.fingerprint(SHA256()).hex()
    assert authority.digest == certificate_fingerprint(authority.certificate_pem)
    assert authority.digest != TransportAuthority.create("danube", NOW).digest


def strangers_key(authority: TransportAuthority) -> tuple[bytes, bytes]:
    return authority.certificate_pem, new_transport_key()


def a_node_s_pair(authority: TransportAuthority) -> tuple[bytes, bytes]:
    return issued(authority), KEY


@pytest.mark.parametrize("pair", [strangers_key, a_node_s_pair])
def test_a_wrong_pair_of_files_is_refused_as_an_authority(
    authority: TransportAuthority, pair: Callable[[TransportAuthority], tuple[bytes, bytes]]
) -> None:
    with pytest.raises(KeyFault, match="not a transport authority"):
        TransportAuthority.from_pem(*pair(authority))


def test_swapped_or_empty_files_give_a_clear_error(authority: TransportAuthority) -> None:
    certificate, key = authority.to_pem()
    for pair in [(key, certificate), (b"", key), (certificate, b"")]:
        with pytest.raises(KeyFault, match="not a P-256"):
            TransportAuthority.from_pem(*pair)
