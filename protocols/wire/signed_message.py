"""Signed messages, each bound to its sender, receiver, phase and context.

A signature covers phase, context, sender, receiver and the digest of the body, so that a message
moved to another run, round, phase, sender or receiver does not verify. The caller takes a sender's
key from the documents: a message never brings its own key, and never states which algorithms signed
it (`keys.composite.Suite`).
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keys.composite import PublicIdentity
from keys.derive import labelled_hash
from keys.errors import KeyFault
from protocols.errors import ReasonCode, Refusal
from protocols.proto.round_pb2 import Phase, Signed

COORDINATOR = "coordinator"
"""The coordinator's name as a sender or receiver; a country's name is two capital letters."""
ROSTER = "roster"
"""The receiver of a message that every country of a run may read."""
CONTEXT_BYTES = 32
MESSAGE_LABEL = "pratique/message/v1"

Signer = Callable[[bytes], bytes]
"""Signs 32 bytes with the sender's identity key. Returns 64 bytes, or 3373 if the agreement
requires ML-DSA-65 as well as Ed25519."""
ProtocolMessage = TypeVar("ProtocolMessage", bound=Message)


def bind(context: bytes, phase: Phase, sender: str, receiver: str, body: bytes = b"") -> bytes:
    """Return the 32 bytes that bind a signature, key or sealed value to its one purpose.

    `context` is the digest of the run's terms in set-up and of the round's terms afterwards.
    """
    header = (context, int(phase).to_bytes(1, "big"), sender.encode(), receiver.encode())
    return labelled_hash(MESSAGE_LABEL, *header, labelled_hash(MESSAGE_LABEL, body))


def sign_message(
    sign: Signer, *, phase: Phase, context: bytes, sender: str, receiver: str, body: bytes
) -> Signed:
    """Sign a body, and return the message with it."""
    signature = sign(bind(context, phase, sender, receiver, body))
    return Signed(
        phase=phase,
        context=context,
        sender=sender,
        receiver=receiver,
        body=body,
        signature=signature,
    )


def open_signed(
    message: Signed,
    key: PublicIdentity,
    *,
    phase: Phase,
    context: bytes,
    sender: str,
    receiver: str,
) -> bytes:
    """Check a message's header and signature, and return its body.

    Raises Refusal: STALE if it names another phase, context or party, NOT_AUTHENTIC if `key` did
    not sign it.
    """
    require_header(message, phase=phase, context=context, sender=sender, receiver=receiver)
    verify_signed(message, key)
    return message.body


def require_header(
    message: Signed, *, phase: Phase, context: bytes, sender: str, receiver: str
) -> None:
    """Check a message's phase, context and parties, not its signature. Raises Refusal STALE."""
    expected = (phase, context, sender, receiver)
    if (message.phase, message.context, message.sender, message.receiver) != expected:
        raise Refusal(
            ReasonCode.STALE,
            f"A message of {sender} does not belong here",
            why="it names another phase, run, round, sender or receiver than the one expected",
        )


def verify_signed(message: Signed, key: PublicIdentity) -> None:
    """Check that `key` signed the message with its header. Raises Refusal NOT_AUTHENTIC."""
    signed = bind(message.context, message.phase, message.sender, message.receiver, message.body)
    try:
        key.verify(message.signature, signed)
    except KeyFault as fault:
        raise Refusal(
            ReasonCode.NOT_AUTHENTIC,
            f"A message in the name of {message.sender} is not signed by it",
        ) from fault


def parse(kind: type[ProtocolMessage], data: bytes, limit: int) -> ProtocolMessage:
    """Return the message in `data`. Raises Refusal MALFORMED if it is too long or unreadable."""
    if len(data) > limit:
        raise malformed(f"it has {len(data)} bytes, and {limit} are allowed")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise malformed("it is not a message of the expected form") from None


def serialise(message: Message) -> bytes:
    """Return the message in its deterministic form, for signing and hashing."""
    return message.SerializeToString(deterministic=True)


def malformed(why: str) -> Refusal:
    """Return the refusal of a message that cannot be read or used."""
    return Refusal(ReasonCode.MALFORMED, "A message cannot be read", why=why)
