"""Composite identities: a signature is valid only if both halves verify."""

import base64
import hashlib
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keys.composite import (
    COMPOSITE_LABEL,
    ED25519_SIGNATURE_BYTES,
    PREFIX,
    PUBLIC_BYTES,
    CompositeSigningKey,
    CompositeVerifyKey,
    Suite,
    halves,
    identity_from_bytes,
    read_identity,
)
from keys.derive import labelled_hash
from keys.errors import KeyFault
from keys.identity import KEY_BYTES, SigningKey

ED25519_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
"""RFC 8032, section 7.1, test 2."""
MLDSA_SEED = bytes(range(32))
"""RFC 9881, appendix C.1; the public key for ML-DSA-65 begins, ends and hashes like this."""
MLDSA_BEGINS = "48683d91978e31eb3dddb8b0473482d2b88a5f625949fd8f58a561e696bd4c27"
MLDSA_ENDS = "ad18bd13fca55059dd9b185f79f9c47196a4e81b2104bc460a051e02f2e8444f"
MLDSA_DIGEST = "d666806e11cee19a7c989f7445f90dd419cf4d2d51db8c0fdb4c0f0a542238c9"
KEY = CompositeSigningKey.from_bytes(ED25519_SEED + MLDSA_SEED)
OTHER = CompositeSigningKey.from_bytes(b"o" * 64)
MESSAGE = b"m" * 32
SIGNATURE = KEY.sign(MESSAGE)
CLASSIC, LATTICE = SIGNATURE[:ED25519_SIGNATURE_BYTES], SIGNATURE[ED25519_SIGNATURE_BYTES:]
NEVER = "not valid"


def mixed(one: CompositeSigningKey, other: CompositeSigningKey) -> CompositeSigningKey:
    """Return a key with the Ed25519 half of one and the ML-DSA half of another."""
    return CompositeSigningKey.from_bytes(one.to_bytes()[:32] + other.to_bytes()[32:])


def test_it_is_ed25519_beside_ml_dsa_65() -> None:
    raw = KEY.public.raw
    mldsa = raw[KEY_BYTES:]
    assert raw[:KEY_BYTES] == SigningKey.from_bytes(ED25519_SEED).public.raw
    assert (mldsa[:32].hex(), mldsa[-32:].hex()) == (MLDSA_BEGINS, MLDSA_ENDS)
    assert hashlib.sha256(mldsa).hexdigest() == MLDSA_DIGEST


def test_both_halves_sign_one_hash_that_holds_both_keys() -> None:
    signed = labelled_hash(COMPOSITE_LABEL, KEY.public.raw, MESSAGE)
    assert KEY.ed25519.sign(signed) == CLASSIC
    MLDSA65PrivateKey.from_seed_bytes(MLDSA_SEED).public_key().verify(LATTICE, signed)


def test_the_signed_hash_has_a_known_value() -> None:
    """Authors of another implementation can check theirs against this value."""
    digest = labelled_hash(COMPOSITE_LABEL, KEY.public.raw, MESSAGE).hex()
    assert digest == "a9d12cd3f226703852c60fbde0d3e5b29786ad568b086900e366ee6cd8a8ee03"
    assert hashlib.sha256(CLASSIC).hexdigest() == (
        "5c853d8e265d4f2078cf1a6f176d911d5b3848cdbc882497af4aec18aa05e288"
    )


def test_a_signature_is_64_and_3309_bytes() -> None:
    assert len(SIGNATURE) == 3373
    KEY.public.verify(SIGNATURE, MESSAGE)


def test_its_stored_form_is_the_same_key() -> None:
    key = CompositeSigningKey.generate()
    again = CompositeSigningKey.from_bytes(key.to_bytes())
    key.public.verify(again.sign(MESSAGE), MESSAGE)
    assert again.public == key.public
    assert len({again.public, key.public, KEY.public}) == 2


def test_a_signature_is_valid_for_its_message_and_key_only() -> None:
    for key, message in [(KEY, b""), (KEY, MESSAGE + b"\0"), (OTHER, MESSAGE)]:
        with pytest.raises(KeyFault, match=NEVER):
            key.public.verify(SIGNATURE, message)


def test_every_byte_of_a_signature_counts() -> None:
    for position in range(len(SIGNATURE)):
        changed = bytearray(SIGNATURE)
        changed[position] ^= 1 << position % 8
        with pytest.raises(KeyFault, match=NEVER):
            KEY.public.verify(bytes(changed), MESSAGE)


INCOMPLETE = {
    "nothing": b"",
    "no ML-DSA half": CLASSIC,
    "no Ed25519 half": LATTICE,
    "the other way round": LATTICE + CLASSIC,
    "cut": SIGNATURE[:-1],
    "longer": SIGNATURE + b"\0",
    "twice": SIGNATURE * 2,
    "zeros for ML-DSA": CLASSIC + bytes(len(LATTICE)),
    "zeros for Ed25519": bytes(len(CLASSIC)) + LATTICE,
}


@pytest.mark.parametrize("signature", INCOMPLETE.values(), ids=INCOMPLETE)
def test_a_signature_that_lacks_a_half_is_refused(signature: bytes) -> None:
    with pytest.raises(KeyFault, match=NEVER):
        KEY.public.verify(signature, MESSAGE)


def test_halves_of_two_signers_do_not_verify_together() -> None:
    theirs = OTHER.sign(MESSAGE)
    for signature in (CLASSIC + theirs[64:], theirs[:64] + LATTICE):
        for key in (KEY, OTHER, mixed(KEY, OTHER), mixed(OTHER, KEY)):
            with pytest.raises(KeyFault, match=NEVER):
                key.public.verify(signature, MESSAGE)


def test_a_signature_is_not_valid_for_a_key_that_shares_a_half() -> None:
    for key in (mixed(KEY, OTHER), mixed(OTHER, KEY)):
        with pytest.raises(KeyFault, match=NEVER):
            key.public.verify(SIGNATURE, MESSAGE)


def test_a_half_of_a_composite_signature_does_not_verify_alone() -> None:
    alone = MLDSA65PrivateKey.from_seed_bytes(MLDSA_SEED)
    with pytest.raises(KeyFault, match=NEVER):
        KEY.public.ed25519.verify(CLASSIC, MESSAGE)
    for signature in (
        KEY.ed25519.sign(MESSAGE) + LATTICE,
        CLASSIC + alone.sign(MESSAGE),
        KEY.ed25519.sign(MESSAGE) + alone.sign(MESSAGE),
    ):
        with pytest.raises(KeyFault, match=NEVER):
            KEY.public.verify(signature, MESSAGE)


def test_a_key_is_written_as_text_and_read_back() -> None:
    text = KEY.public.to_text()
    assert text.startswith("ed25519+mldsa65:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgx")
    assert read_identity(text) == CompositeVerifyKey.from_text(text) == KEY.public


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        KEY.public.to_text().removeprefix(PREFIX),
        KEY.public.to_text().replace("mldsa65", "MLDSA65"),
        KEY.public.to_text() + "\n",
        KEY.public.to_text().rstrip("="),
        KEY.public.to_text()[:-3] + "B==",
        KEY.public.to_text().replace("+", "-"),
        PREFIX + "A" * 100_000,
        PREFIX + base64.b64encode(KEY.public.ed25519.raw).decode(),
        PREFIX + base64.b64encode(KEY.public.raw[:-1]).decode(),
        PREFIX + base64.b64encode(KEY.public.raw + b"\0").decode(),
        PREFIX + base64.b64encode(bytes(PUBLIC_BYTES)).decode(),
        "ed25519:" + base64.b64encode(KEY.public.raw).decode(),
    ],
)
def test_any_other_form_of_a_key_is_refused(text: str) -> None:
    for read in (CompositeVerifyKey.from_text, read_identity):
        with pytest.raises(KeyFault, match="not an Ed25519"):
            read(text)


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_seeds_or_a_key_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(KeyFault):
        CompositeSigningKey.from_bytes(bytes(length))
    with pytest.raises(KeyFault):
        CompositeVerifyKey(b"\x05" * length)


def test_an_ed25519_half_of_small_order_is_refused() -> None:
    with pytest.raises(KeyFault):
        CompositeVerifyKey(bytes(KEY_BYTES) + KEY.public.raw[KEY_BYTES:])


def test_a_fingerprint_is_over_both_halves() -> None:
    keys = (KEY, OTHER, mixed(KEY, OTHER), mixed(OTHER, KEY))
    fingerprint = {key.public.fingerprint for key in keys}
    assert len(fingerprint | {KEY.public.ed25519.fingerprint}) == 5
    assert KEY.public.fingerprint == "SHA256:fgi6-cq2x-yevk-ht6y-ytwc-uttf"


def test_a_failed_signature_names_the_key_and_not_the_message() -> None:
    with pytest.raises(KeyFault) as caught:
        KEY.public.verify(SIGNATURE, b"patient 12")
    assert KEY.public.fingerprint in str(caught.value)
    assert "patient" not in str(caught.value)


def test_a_signing_key_does_not_show_or_pickle_itself() -> None:
    for texts in (repr(KEY), str(KEY), repr(vars(KEY))):
        for seed in (ED25519_SEED, MLDSA_SEED):
            assert seed.hex() not in texts
            assert repr(seed) not in texts
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


def test_either_form_is_read_back() -> None:
    alone = SigningKey.from_bytes(ED25519_SEED)
    for key in (KEY, alone):
        assert read_identity(key.public.to_text()) == key.public
        assert identity_from_bytes(key.to_bytes()).public == key.public
    with pytest.raises(KeyFault):
        identity_from_bytes(bytes(33))


def test_a_shared_half_can_be_detected() -> None:
    alone = SigningKey.from_bytes(ED25519_SEED).public.to_text()
    assert halves(KEY.public.to_text()) & halves(alone)
    assert halves(KEY.public.to_text()) & halves(mixed(OTHER, KEY).public.to_text())
    assert not halves(KEY.public.to_text()) & halves(OTHER.public.to_text())


def test_under_ed25519_a_composite_key_gives_its_half() -> None:
    alone = SigningKey.from_bytes(ED25519_SEED)
    for key in (KEY, alone):
        assert Suite.ED25519.admits(key.public)
        assert Suite.ED25519.public(key.public) == alone.public
        assert Suite.ED25519.private(key).sign(MESSAGE) == alone.sign(MESSAGE)


def test_under_both_only_a_composite_key_is_accepted() -> None:
    assert Suite.COMPOSITE.public(KEY.public) == KEY.public
    assert Suite.COMPOSITE.private(KEY) is KEY
    alone = SigningKey.from_bytes(ED25519_SEED)
    assert not Suite.COMPOSITE.admits(alone.public)
    with pytest.raises(KeyFault, match="rotate-keys"):
        Suite.COMPOSITE.public(alone.public)
    with pytest.raises(KeyFault, match="Ed25519 only"):
        Suite.COMPOSITE.private(alone)
