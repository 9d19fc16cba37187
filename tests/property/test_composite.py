"""Composite identities under Hypothesis: keys are read back, and no forged signature verifies."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.composite import (
    PREFIX,
    PUBLIC_BYTES,
    CompositeSigningKey,
    CompositeVerifyKey,
    Suite,
    identity_from_bytes,
    read_identity,
)
from keys.errors import KeyFault
from keys.identity import SigningKey
from tests.support.examples import examples

SIGNER = CompositeSigningKey.from_bytes(b"composite identity of one party." * 2)
MESSAGE = b"m" * 32
SIGNATURE = SIGNER.sign(MESSAGE)
seeds = st.binary(min_size=64, max_size=64)


@settings(max_examples=examples(25))
@given(seeds, st.binary(max_size=100), st.binary(max_size=100))
def test_a_signature_is_valid_for_the_signed_message_only(
    seed: bytes, message: bytes, other: bytes
) -> None:
    key = CompositeSigningKey.from_bytes(seed)
    signature = key.sign(message)
    key.public.verify(signature, message)
    if other != message:
        with pytest.raises(KeyFault):
            key.public.verify(signature, other)


@settings(max_examples=examples(25))
@given(st.one_of(seeds, st.binary(min_size=32, max_size=32)))
def test_both_forms_are_read_back_from_bytes_and_text(seed: bytes) -> None:
    key = identity_from_bytes(seed)
    assert key.to_bytes() == seed
    assert read_identity(key.public.to_text()) == key.public


@given(st.one_of(st.binary(max_size=200), st.binary(min_size=3373, max_size=3373)))
def test_no_random_bytes_are_a_signature(signature: bytes) -> None:
    with pytest.raises(KeyFault):
        SIGNER.public.verify(signature, MESSAGE)


@given(st.integers(0, len(SIGNATURE) - 1), st.integers(1, 255))
def test_no_changed_signature_verifies(position: int, mask: int) -> None:
    changed = bytearray(SIGNATURE)
    changed[position] ^= mask
    with pytest.raises(KeyFault):
        SIGNER.public.verify(bytes(changed), MESSAGE)


@given(st.integers(0, len(SIGNATURE)), st.integers(0, len(SIGNATURE)))
def test_no_two_pieces_of_signatures_verify(cut: int, start: int) -> None:
    """Both are valid; combined parts verify only if the cut lies between the halves."""
    pieced = SIGNATURE[:cut] + SIGNER.sign(MESSAGE)[start:]
    if cut == start in (0, 64, len(SIGNATURE)):
        SIGNER.public.verify(pieced, MESSAGE)
    elif cut != start:
        with pytest.raises(KeyFault):
            SIGNER.public.verify(pieced, MESSAGE)


@given(st.one_of(st.text(), st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())))
def test_the_text_of_a_key_is_canonical_or_refused(text: str) -> None:
    for key_text in (text, "ed25519:" + text, PREFIX + text):
        with suppress(KeyFault):
            assert read_identity(key_text).to_text() == key_text


@given(st.binary(min_size=PUBLIC_BYTES, max_size=PUBLIC_BYTES))
def test_bytes_of_the_right_length_have_one_text_form_or_are_refused(raw: bytes) -> None:
    with suppress(KeyFault):
        assert CompositeVerifyKey.from_text(CompositeVerifyKey(raw).to_text()).raw == raw


@settings(max_examples=examples(25))
@given(seeds)
def test_a_signature_verifies_under_its_own_suite_only(
    seed: bytes,
) -> None:
    key = CompositeSigningKey.from_bytes(seed)
    for suite, other in ((Suite.ED25519, Suite.COMPOSITE), (Suite.COMPOSITE, Suite.ED25519)):
        signature = suite.private(key).sign(MESSAGE)
        suite.public(key.public).verify(signature, MESSAGE)
        with pytest.raises(KeyFault):
            other.public(key.public).verify(signature, MESSAGE)


@given(st.binary(min_size=32, max_size=32))
def test_under_ed25519_nothing_changes_for_an_ed25519_key(seed: bytes) -> None:
    key = SigningKey.from_bytes(seed)
    assert Suite.ED25519.private(key) is key
    assert Suite.ED25519.public(key.public) is key.public
