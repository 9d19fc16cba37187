from typing import cast

import pytest

from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from protocols.proto.round_pb2 import (
    PHASE_ANSWER,
    PHASE_BUNDLE,
    Bundle,
    DocumentVersions,
    Phase,
    Signed,
)
from protocols.wire.signed_message import (
    CONTEXT_BYTES,
    bind,
    open_signed,
    parse,
    serialise,
    sign_message,
)

KEY = SigningKey.from_bytes(b"k" * 32)
CONTEXT = b"c" * CONTEXT_BYTES
BINDING: dict[str, object] = {
    "phase": PHASE_BUNDLE,
    "context": CONTEXT,
    "sender": "AT",
    "receiver": "roster",
}
OTHER_BINDINGS: list[tuple[str, object]] = [
    ("phase", PHASE_ANSWER),
    ("context", b"d" * CONTEXT_BYTES),
    ("sender", "BE"),
    ("receiver", "coordinator"),
]


def signed(body: bytes = b"body") -> Signed:
    return sign_message(KEY.sign, body=body, **BINDING)  # type: ignore[arg-type]


def test_a_signed_message_opens_with_its_own_phase_context_and_parties() -> None:
    assert open_signed(signed(), KEY.public, **BINDING) == b"body"  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), OTHER_BINDINGS)
def test_a_signed_message_does_not_open_with_another_phase_context_or_party(
    field: str, value: object
) -> None:
    with pytest.raises(Refusal) as refusal:
        open_signed(signed(), KEY.public, **{**BINDING, field: value})  # type: ignore[arg-type]
    assert refusal.value.code is ReasonCode.STALE


@pytest.mark.parametrize(
    ("field", "value"), [*OTHER_BINDINGS, ("body", b"other"), ("signature", b"")]
)
def test_a_changed_field_is_detected(field: str, value: object) -> None:
    message = signed()
    setattr(message, field, value)
    binding = {**BINDING, **({field: value} if field in BINDING else {})}
    with pytest.raises(Refusal) as refusal:
        open_signed(message, KEY.public, **binding)  # type: ignore[arg-type]
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC


def test_another_key_is_refused() -> None:
    other_key = SigningKey.from_bytes(b"o" * 32).public
    with pytest.raises(Refusal) as refusal:
        open_signed(signed(), other_key, **BINDING)  # type: ignore[arg-type]
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
    assert "AT" in refusal.value.what


def test_digests_differ_even_if_the_joined_fields_are_equal() -> None:
    digests = {
        bind(CONTEXT, phase, sender, receiver, body)
        for phase in cast("list[Phase]", Phase.values())
        for sender, receiver in [("AT", "BE"), ("ATB", "E"), ("BE", "AT"), ("", "ATBE")]
        for body in [b"", b"x"]
    }
    assert len(digests) == 7 * 4 * 2


def test_a_message_beyond_its_limit_is_not_read() -> None:
    data = serialise(Bundle(x25519=b"x" * 100))
    assert parse(Bundle, data, len(data)).x25519 == b"x" * 100
    with pytest.raises(Refusal, match="bytes") as refusal:
        parse(Bundle, data, len(data) - 1)
    assert refusal.value.code is ReasonCode.MALFORMED


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff", b"\x0a\x05ab"])
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(Bundle, data, 1000)
    assert refusal.value.code is ReasonCode.MALFORMED


def test_equal_values_have_equal_bytes() -> None:
    versions = DocumentVersions(countries={"AT": 1, "BE": 2, "CZ": 3})
    reordered = DocumentVersions(countries={"CZ": 3, "BE": 2, "AT": 1})
    assert serialise(versions) == serialise(reordered)
