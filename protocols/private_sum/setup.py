"""Set-up of a run: signed key bundles, encapsulations, and the secret of each pair of countries.

These functions only compute; the state machines of both sides decide when. Every country of the
roster reads the same bundles and the same signed lists of ciphertext digests, and the transcript is
the digest of all of them. If two countries were shown different ones, their key confirmation fails.
"""

from collections.abc import Mapping, Sequence

from keys.derive import derive_key, frame, labelled_hash
from keys.errors import KeyFault
from keys.hybrid import HybridPublic
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import RunTerms
from protocols.proto.round_pb2 import (
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_ENCAPSULATE,
    Bundle,
    Encapsulation,
    Encapsulations,
)
from protocols.wire.signed_message import bind, parse

SETUP_LABEL = "pratique/set-up/v1"
PAIR_LABEL = "pratique/pair/v1"
LARGEST_BODY = 1 << 20


def read_bundle(body: bytes) -> Bundle:
    """Return the keys and versions of a bundle. Raises Refusal MALFORMED."""
    return parse(Bundle, body, LARGEST_BODY)


def public_keys(bundle: Bundle, country: str) -> HybridPublic:
    """Return a bundle's keys. Raises Refusal NOT_AUTHENTIC naming the country."""
    try:
        return HybridPublic(bundle.x25519, bundle.mlkem)
    except KeyFault as fault:
        raise refuse_party(country, "its key bundle holds no usable keys") from fault


def bundle_digest(terms: RunTerms, country: str, body: bytes) -> bytes:
    """Return the 32-byte digest of a country's bundle in this run."""
    return bind(terms.context, PHASE_BUNDLE, country, "", body)


def ciphertext_digest(terms: RunTerms, sender: str, receiver: str, ciphertext: bytes) -> bytes:
    """Return the 32-byte digest of a ciphertext from one country for another."""
    return bind(terms.context, PHASE_ENCAPSULATE, sender, receiver, ciphertext)


def encapsulations(
    terms: RunTerms, sender: str, bundles: Mapping[str, bytes], ciphertexts: Mapping[str, bytes]
) -> Encapsulations:
    """Return the list that a country signs: the digests of its ciphertexts and of the bundles.

    `bundles` has the digest of every bundle, `ciphertexts` one ciphertext for each higher country.
    """
    entries = [
        Encapsulation(
            receiver=receiver,
            receiver_bundle=bundles[receiver],
            ciphertext_digest=ciphertext_digest(terms, sender, receiver, ciphertexts[receiver]),
        )
        for receiver in higher(terms, sender)
    ]
    return Encapsulations(sender_bundle=bundles[sender], encapsulations=entries)


def read_encapsulations(
    terms: RunTerms, sender: str, bundles: Mapping[str, bytes], body: bytes
) -> dict[str, bytes]:
    """Return the ciphertext digests a country signed, by receiver.

    Raises Refusal NOT_AUTHENTIC that names the country, unless they are for exactly the higher
    countries and for the same bundles that this party has.
    """
    message = parse(Encapsulations, body, LARGEST_BODY)
    signed = [(entry.receiver, entry.receiver_bundle) for entry in message.encapsulations]
    expected = [(receiver, bundles[receiver]) for receiver in higher(terms, sender)]
    if message.sender_bundle != bundles[sender] or signed != expected:
        raise refuse_party(sender, "it encapsulated to other key bundles than those received here")
    return {entry.receiver: entry.ciphertext_digest for entry in message.encapsulations}


def transcript(terms: RunTerms, bundles: Mapping[str, bytes], bodies: Sequence[bytes]) -> bytes:
    """Return the digest of a whole set-up: bundle digests and signed bodies in roster order."""
    listed = frame(*(frame(c.encode(), bundles[c]) for c in terms.roster))
    return labelled_hash(SETUP_LABEL, terms.context, listed, *bodies)


def pair_secret(
    terms: RunTerms,
    pair: tuple[str, str],
    bundles: Mapping[str, bytes],
    secrets: tuple[bytes, bytes],
    digest: bytes,
) -> bytes:
    """Return a pair's 32-byte secret from its (X25519, ML-KEM) secrets.

    `pair` is (lower, higher). The secret is bound to the two bundles and the ciphertext's digest.
    """
    binding = bind(terms.context, PHASE_CONFIRM, *pair, digest)
    return derive_key(b"".join(secrets), PAIR_LABEL, binding, *(bundles[one] for one in pair))


def higher(terms: RunTerms, country: str) -> tuple[str, ...]:
    """Return the roster's countries after this one: those it encapsulates to."""
    return terms.roster[terms.roster.index(country) + 1 :]


def lower(terms: RunTerms, country: str) -> tuple[str, ...]:
    """Return the roster's countries before this one: those that encapsulate to it."""
    return terms.roster[: terms.roster.index(country)]


def ordered(one: str, other: str) -> tuple[str, str]:
    """Return the pair as (lower, higher)."""
    return (one, other) if one < other else (other, one)


def refuse_party(country: str, why: str) -> Refusal:
    """Return the refusal that names the country whose set-up message is wrong."""
    return Refusal(
        ReasonCode.NOT_AUTHENTIC,
        f"A set-up message of {country} is not valid",
        why=why,
        fix=f"notify the officer of {country} and the coordinator; a new run needs a new run id",
    )


def other_roster() -> Refusal:
    """Return the refusal of a request that names other countries than the run's."""
    return Refusal(
        ReasonCode.ROSTER,
        "A request names other countries than those of the run",
        why="the countries of a run never change",
    )
