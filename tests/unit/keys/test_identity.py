import base64
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keys.errors import KeyFault
from keys.identity import SigningKey, VerifyKey

# RFC 8032, section 7.1, test 2
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
MESSAGE = b"\x72"
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493

# the points of small order, as bytes, and those of their encodings that are not canonical
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
NOT_CANONICAL = [
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f5ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def with_sign_bit(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] | 0x80])


def text_of(raw: bytes) -> str:
    return "ed25519:" + base64.b64encode(raw).decode()


def test_it_is_ed25519() -> None:
    key = SigningKey.from_bytes(SEED)
    assert key.public == VerifyKey(PUBLIC)
    assert key.sign(MESSAGE) == SIGNATURE
    assert key.to_bytes() == SEED


def test_a_new_key_signs_and_its_stored_form_is_the_same_key() -> None:
    key = SigningKey.generate()
    again = SigningKey.from_bytes(key.to_bytes())
    key.public.verify(again.sign(b"message"), b"message")
    assert again.public == key.public
    assert len({SigningKey.generate().to_bytes() for _ in range(20)}) == 20


def test_a_signature_is_valid_for_its_message_and_key_only() -> None:
    VerifyKey(PUBLIC).verify(SIGNATURE, MESSAGE)
    for key, message in [
        (VerifyKey(PUBLIC), b""),
        (VerifyKey(PUBLIC), MESSAGE + b"\0"),
        (SigningKey.generate().public, MESSAGE),
    ]:
        with pytest.raises(KeyFault, match="not valid"):
            key.verify(SIGNATURE, message)


def test_every_bit_of_a_signature_counts() -> None:
    for position in range(512):
        changed = bytearray(SIGNATURE)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(KeyFault):
            VerifyKey(PUBLIC).verify(bytes(changed), MESSAGE)


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE + b"\0", SIGNATURE * 2])
def test_a_signature_of_another_length_is_refused(signature: bytes) -> None:
    with pytest.raises(KeyFault):
        VerifyKey(PUBLIC).verify(signature, MESSAGE)


def test_a_signature_has_one_encoding() -> None:
    """RFC 8032, 5.1.7: S is below the group order; otherwise one signature would have two forms."""
    s = int.from_bytes(SIGNATURE[32:], "little") + GROUP_ORDER
    with pytest.raises(KeyFault):
        VerifyKey(PUBLIC).verify(SIGNATURE[:32] + s.to_bytes(32, "little"), MESSAGE)


def test_the_identity_point_would_verify_a_forgery_for_every_message() -> None:
    """The reason to refuse such keys: the library alone accepts this signature."""
    identity = bytes.fromhex(SMALL_ORDER[1])
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"anything at all")


@pytest.mark.parametrize("encoding", SMALL_ORDER + NOT_CANONICAL)
def test_keys_of_small_order_or_noncanonical_encoding_are_refused(encoding: str) -> None:
    for raw in (bytes.fromhex(encoding), with_sign_bit(bytes.fromhex(encoding))):
        with pytest.raises(KeyFault, match="not an Ed25519 key"):
            VerifyKey(raw)
        with pytest.raises(KeyFault, match="not an Ed25519 key"):
            VerifyKey.from_text(text_of(raw))


def test_a_key_that_is_not_a_curve_point_verifies_nothing() -> None:
    with pytest.raises(KeyFault):
        VerifyKey(bytes([2]) + bytes(31)).verify(SIGNATURE, MESSAGE)


def test_a_key_is_written_as_text_and_read_back() -> None:
    key = VerifyKey(PUBLIC)
    assert key.to_text() == "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
    assert VerifyKey.from_text(key.to_text()) == key
    assert len({key, VerifyKey.from_text(key.to_text())}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "Ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519: PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw",
        "ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgx=",
        "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=PUAX",
        "ed25519:" + "A" * 1_000_000,
        text_of(PUBLIC[:-1]),
        text_of(PUBLIC + b"\0"),
    ],
)
def test_any_other_form_of_a_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFault, match="not an Ed25519 key"):
        VerifyKey.from_text(text)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_or_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFault):
        SigningKey.from_bytes(bytes(length))
    with pytest.raises(KeyFault):
        VerifyKey(b"\x05" * length)


def test_a_fingerprint_is_short_easy_to_read_aloud_and_stable() -> None:
    fingerprint = VerifyKey(PUBLIC).fingerprint
    assert fingerprint == "SHA256:zcsm-53cr-3wzo-nsqo-2u4j-lrj3"
    assert fingerprint != SigningKey.generate().public.fingerprint


def test_a_failed_signature_names_the_key_and_not_the_message() -> None:
    with pytest.raises(KeyFault) as caught:
        VerifyKey(PUBLIC).verify(SIGNATURE, b"patient 12")
    assert VerifyKey(PUBLIC).fingerprint in str(caught.value)
    assert "patient" not in str(caught.value)


def test_a_signing_key_does_not_show_or_pickle_itself() -> None:
    key = SigningKey.from_bytes(SEED)
    for texts in (repr(key), str(key), repr(vars(key))):
        assert SEED.hex() not in texts
        assert repr(SEED) not in texts
    with pytest.raises(TypeError):
        pickle.dumps(key)
