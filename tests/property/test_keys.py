"""Parsers in `keys` read bytes from outside: they return a value or raise KeyFault."""

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keys.certificates import (
    Peer,
    Role,
    TransportAuthority,
    certificate_fingerprint,
    new_transport_key,
    peer_of,
    public_pem,
)
from keys.derive import frame
from keys.errors import KeyFault
from keys.hybrid import HybridKey, HybridPublic, encapsulate
from keys.identity import SigningKey, VerifyKey
from keys.sealing import open_sealed, seal
from keys.store import HEADER_BYTES, HEADER_NAME, KeyStore
from tests.support.examples import examples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PASSPHRASE = b"four random words here"
AUTHORITY = TransportAuthority.create("danube", NOW)
CERTIFICATE = AUTHORITY.issue(
    public_pem(new_transport_key()),
    country="AT",
    role=Role.NODE,
    now=NOW,
    lifetime=timedelta(days=30),
)
DER = x509.load_pem_x509_certificate(CERTIFICATE).public_bytes(Encoding.DER)
HYBRID = HybridKey.generate()
SIGNER = SigningKey.generate()
NAMES = st.from_regex(r"[a-c]{1,2}(-[0-9])?", fullmatch=True)

changes = st.lists(
    st.tuples(st.integers(0, len(DER) - 1), st.integers(1, 255)), min_size=1, max_size=4
)


def admitted(pem: bytes) -> Peer:
    authority = AUTHORITY.certificate_pem
    return peer_of(pem, authority_pem=authority, now=NOW, revoked=frozenset())


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4))
def test_framing_is_one_to_one(one: list[bytes], other: list[bytes]) -> None:
    assert (frame(*one) == frame(*other)) == (one == other)


@given(st.binary(min_size=32, max_size=32), st.binary(), st.binary())
def test_sealed_data_opens_to_the_same_data(
    key: bytes, plaintext: bytes, associated: bytes
) -> None:
    assert open_sealed(key, seal(key, plaintext, associated), associated) == plaintext


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.binary(max_size=20))
def test_no_random_bytes_open(key: bytes, sealed: bytes, associated: bytes) -> None:
    with pytest.raises(KeyFault):
        open_sealed(key, sealed, associated)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_no_random_bytes_are_a_signature(signature: bytes, message: bytes) -> None:
    with pytest.raises(KeyFault):
        SIGNER.public.verify(signature, message)


@given(st.binary(min_size=32, max_size=32), st.binary(), st.binary())
def test_a_signature_is_valid_for_the_signed_message_only(
    seed: bytes, message: bytes, other: bytes
) -> None:
    key = SigningKey.from_bytes(seed)
    signature = key.sign(message)
    key.public.verify(signature, message)
    if other != message:
        with pytest.raises(KeyFault):
            key.public.verify(signature, other)


@given(st.one_of(st.text(), st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())))
def test_the_text_of_a_key_is_canonical_or_refused(text: str) -> None:
    for key_text in (text, "ed25519:" + text):
        with suppress(KeyFault):
            assert VerifyKey.from_text(key_text).to_text() == key_text


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_one_key_or_none(raw: bytes) -> None:
    with suppress(KeyFault):
        assert VerifyKey.from_text(VerifyKey(raw).to_text()).raw == raw


@given(st.binary(max_size=64), st.binary(max_size=2000))
def test_random_public_halves_are_refused_or_usable(x25519: bytes, mlkem: bytes) -> None:
    for half in (mlkem, HYBRID.public.mlkem):
        with suppress(KeyFault):
            public = HybridPublic(x25519, half)
            assert len(encapsulate(public)[1]) == 32
            assert len(HYBRID.exchange(public)) == 32


@given(st.one_of(st.binary(max_size=1200), st.binary(min_size=1088, max_size=1088)))
def test_a_random_ciphertext_is_refused_or_gives_some_secret(ciphertext: bytes) -> None:
    with suppress(KeyFault):
        assert len(HYBRID.decapsulate(ciphertext)) == 32


@given(st.one_of(st.binary(max_size=1000), st.binary(max_size=1000).map(base64.encodebytes)))
def test_a_random_certificate_or_key_is_refused(data: bytes) -> None:
    for label in (b"CERTIFICATE", b"PRIVATE KEY", b"EC PRIVATE KEY", b"PUBLIC KEY"):
        pem = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, data, label)
        for read in (admitted, certificate_fingerprint, public_pem):
            for form in (data, pem):
                with pytest.raises(KeyFault):
                    read(form)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=examples(500))
@given(changes)
def test_a_changed_certificate_is_refused_or_names_the_same_peer(
    made: list[tuple[int, int]],
) -> None:
    """It names the same peer if only the encoding of the signature changed, which nothing signs."""
    changed = bytearray(DER)
    for position, mask in made:
        changed[position] ^= mask
    body = base64.encodebytes(changed)
    with suppress(KeyFault):
        pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
        assert admitted(pem) == admitted(CERTIFICATE)


@given(st.text(max_size=5))
def test_a_country_is_two_capital_letters_or_refused(country: str) -> None:
    plain = len(country) == 2 and all("A" <= letter <= "Z" for letter in country)
    key = public_pem(new_transport_key())
    try:
        pem = AUTHORITY.issue(
            key, country=country, role=Role.OFFICER, now=NOW, lifetime=timedelta(days=1)
        )
    except KeyFault:
        assert not plain
    else:
        assert plain
        peer = admitted(pem)
        assert (peer.country, peer.role) == (country, Role.OFFICER)


@given(st.binary(max_size=HEADER_BYTES + 2))
def test_a_random_header_is_refused(header: bytes) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory) / HEADER_NAME
        file.touch(mode=0o600)
        file.write_bytes(header)
        with pytest.raises(KeyFault):
            KeyStore.open(Path(directory), PASSPHRASE)


class StoreMachine(RuleBasedStateMachine):
    """The store works as a dictionary that survives reopening with the right passphrase only."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.folder = Path(self.directory.name) / "keys"
        self.store = KeyStore.create(self.folder, PASSPHRASE, cost=2)
        self.model: dict[str, bytes] = {}

    @rule(name=NAMES, secret=st.binary(max_size=40))
    def put(self, name: str, secret: bytes) -> None:
        self.store.put(name, secret)
        self.model[name] = secret

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name in self.model:
            self.store.delete(name)
            del self.model[name]
        else:
            with pytest.raises(KeyFault):
                self.store.delete(name)

    @rule()
    def reopen(self) -> None:
        self.store = KeyStore.open(self.folder, PASSPHRASE)

    @rule(wrong=st.binary(max_size=30))
    def try_a_wrong_passphrase(self, wrong: bytes) -> None:
        if wrong != PASSPHRASE:
            with pytest.raises(KeyFault):
                KeyStore.open(self.folder, wrong)

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def swap_two_files_and_back(self, data: st.DataObject) -> None:
        one, other = data.draw(st.permutations(sorted(self.model)))[:2]
        self.swap(one, other)
        for name in (one, other):
            with pytest.raises(KeyFault):
                self.store.get(name)
        self.swap(one, other)

    def swap(self, one: str, other: str) -> None:
        aside = self.folder / ".aside"
        (self.folder / f"{one}.sealed").rename(aside)
        (self.folder / f"{other}.sealed").rename(self.folder / f"{one}.sealed")
        aside.rename(self.folder / f"{other}.sealed")

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert self.store.names() == sorted(self.model)
        assert {name: self.store.get(name) for name in self.model} == self.model

    def teardown(self) -> None:
        self.directory.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=examples(30), stateful_step_count=25)
TestStore = StoreMachine.TestCase
