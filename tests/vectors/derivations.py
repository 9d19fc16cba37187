"""The derivations of docs/private-sum.md, implemented independently of the project's code.

Of the project only the generated messages are used.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import rfc8785
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError, Message

from protocols.proto import round_pb2 as pb

PRIME = 2**256 - 189
BUNDLE, ENCAPSULATE, CONFIRM, CONTRIBUTE, AGREE, ANSWER = range(1, 7)
CHECKS = 4
Words = np.ndarray
M = TypeVar("M", bound=Message)


class RefusedRequest(Exception):
    """A refused request, with its reason code."""


def demand(holds: object, code: str) -> None:
    if not holds:
        raise RefusedRequest(code)


# ---- messages ----------------------------------------------------------------------------


def parsed(kind: Callable[[], M], content: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(content)
    except DecodeError as fault:
        raise RefusedRequest("malformed") from fault
    return message


def serialised(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def joined(parts: Mapping[str, bytes]) -> bytes:
    return b"".join(parts[part] for part in sorted(parts))


def split_by_country(data: bytes, countries: Sequence[str], size: int) -> dict[str, bytes]:
    """Return the parts by country: one of `size` bytes for each of these sorted countries."""
    demand(len(data) == size * len(countries), "roster")
    return {country: data[size * at : size * (at + 1)] for at, country in enumerate(countries)}


# ---- notation ----------------------------------------------------------------------------


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "big")


def frame(*fields: bytes) -> bytes:
    return b"".join(number(len(field)) + field for field in fields)


def digest(label: str, *fields: bytes) -> bytes:
    return hashlib.sha256(frame(label.encode(), *fields)).digest()


def derive(secret: bytes, label: str, *fields: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, frame(label.encode(), *fields)).derive(secret)


def bind(context: bytes, phase: int, sender: str, receiver: str, body: bytes = b"") -> bytes:
    label = "pratique/message/v1"
    binding = (context, number(phase, 1), sender.encode(), receiver.encode())
    return digest(label, *binding, digest(label, body))


def model_digest(model: bytes) -> str:
    return "sha256:" + hashlib.sha256(model).hexdigest()


def composite_signer(ed25519: bytes, mldsa: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the public key and the signing function for two seeds of 32 bytes."""
    first = Ed25519PrivateKey.from_private_bytes(ed25519)
    second = MLDSA65PrivateKey.from_seed_bytes(mldsa)
    key = first.public_key().public_bytes_raw() + second.public_key().public_bytes_raw()

    def sign(message: bytes) -> bytes:
        both = digest("pratique/composite-signature/v1", key, message)
        return first.sign(both) + second.sign(both)

    return key, sign


def verified(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether a signature is valid: Ed25519 for a key of 32 bytes, otherwise composite."""
    try:
        if len(key) == 32:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
            return True
        both = digest("pratique/composite-signature/v1", key, message)
        Ed25519PublicKey.from_public_bytes(key[:32]).verify(signature[:64], both)
        MLDSA65PublicKey.from_public_bytes(key[32:]).verify(signature[64:], both)
    except InvalidSignature:
        return False
    return True


# ---- words, masks and shares -------------------------------------------------------------


def word_count(dimension: int, lane_bits: int) -> int:
    return -(-(dimension + CHECKS) // (64 // lane_bits))


def packed(values: Sequence[int], lane_bits: int) -> Words:
    """Return the words of d coordinates; the four check zeros are appended here."""
    count = word_count(len(values), lane_bits)
    words = [0] * count
    for at, value in enumerate(values):
        words[at % count] += value << (lane_bits * (at // count))
    return np.array([word % 2**64 for word in words], dtype=np.uint64)


def unpacked(words: Words, lane_bits: int, size: int) -> list[int]:
    """Return the first `size` coordinates of summed words."""
    lanes: list[list[int]] = [[] for _ in range(64 // lane_bits)]
    for word in (int(word) for word in words.astype(np.int64)):
        left = word
        for lane in lanes[:-1]:
            low = (left + 2 ** (lane_bits - 1)) % 2**lane_bits - 2 ** (lane_bits - 1)
            lane.append(low)
            left = (left - low) >> lane_bits
        lanes[-1].append(left)
    return [value for lane in lanes for value in lane][:size]


def key_stream(key: bytes, count: int) -> Words:
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def share_of(polynomial: Sequence[int], at: int) -> bytes:
    return number(sum(a * at**power for power, a in enumerate(polynomial)) % PRIME, 32)


def interpolated(shares: Mapping[int, bytes]) -> bytes:
    """Return the seed from t shares, by the holder's position in the roster counted from 1."""
    total = 0
    for i, share in shares.items():
        weight = 1
        for j in set(shares) - {i}:
            weight = weight * j * pow(j - i, -1, PRIME) % PRIME
        total += weight * int.from_bytes(share, "big")
    return number(total % PRIME, 32)


# ---- what a country knows ----------------------------------------------------------------


@dataclass(frozen=True)
class Mechanism:
    """A mechanism of the study: `fields` is its JSON object in the study, with all ten fields."""

    fields: Mapping[str, Any]

    def number(self, name: str) -> float:
        return float(str(self.fields[name]))

    def integer(self, name: str) -> int:
        return int(str(self.fields[name]))

    @property
    def squared_sensitivity(self) -> int:
        r, d = self.number("clip_norm") * self.integer("scale"), self.integer("dimension")
        conditional = min((r + math.sqrt(d)) ** 2, r**2 + d / 4 + (r + math.sqrt(d) / 2))
        factored = (r * 1.01) ** 2
        bounds = {"integer": r**2, "factored": factored, "conditional": conditional}
        return math.floor(bounds[str(self.fields["rounding"])])

    def lane_bits(self, n: int) -> int:
        parts = n if self.fields["scope"] == "derived" else 1
        width = self.integer("patients_bound") * math.ceil(math.sqrt(self.squared_sensitivity))
        union = 2 * (math.log(2 * self.integer("dimension")) + 40 * math.log(2))
        tail = math.ceil(self.integer("noise_std") * math.sqrt(n) * math.sqrt(union))
        needed = (parts * width + tail).bit_length() + 1
        return min(bits for bits in (21, 32, 64) if bits >= needed)

    def sizes(self, n: int) -> tuple[int, ...]:
        """Return the numbers of the round's context, from d to words."""
        d, k = self.integer("dimension"), self.lane_bits(n)
        scale, noise = self.integer("scale"), self.integer("noise_std")
        return d, k, scale, self.squared_sensitivity, noise, word_count(d, k)


@dataclass(frozen=True)
class Terms:
    """Agreement and study as the country itself knows them, with the keys of all parties."""

    agreement: str
    study: str
    countries: tuple[str, ...]
    colluding: int
    honest: int
    smallest: int
    task_kind: str
    mechanisms: tuple[Mechanism, ...]
    keys: Mapping[str, bytes]
    versions: pb.DocumentVersions

    @property
    def floor(self) -> int:
        return max(self.honest + self.colluding, self.smallest)

    def threshold(self, n: int) -> int:
        return (n + self.colluding) // 2 + 1

    def run_context(self, run_id: bytes, roster: Sequence[str]) -> bytes:
        n = len(roster)
        counts = (n, self.threshold(n), self.colluding, self.honest, self.floor)
        documents = self.agreement.encode(), self.study.encode(), run_id, names(roster)
        plan = rfc8785.dumps([dict(mechanism.fields) for mechanism in self.mechanisms])
        rest = *(number(field) for field in counts), self.task_kind.encode(), plan
        return digest("pratique/run/v2", *documents, *rest)

    def mechanism(self, kind: str) -> Mechanism:
        matching = [mechanism for mechanism in self.mechanisms if mechanism.fields["phase"] == kind]
        demand(matching and matching[0].fields["scope"] != "local", "task-unknown")
        return matching[0]


def names(countries: Sequence[str]) -> bytes:
    return frame(*(country.encode() for country in countries))


def bundle_list(digests: Mapping[str, bytes]) -> bytes:
    return frame(*(frame(name.encode(), country) for name, country in sorted(digests.items())))


def check_versions(claimed: pb.DocumentVersions, known: pb.DocumentVersions) -> None:
    """Require that no claimed version is newer than this country's."""
    demand(len(claimed.countries) <= 256, "malformed")
    demand(claimed.root <= known.root and claimed.targets <= known.targets, "documents-behind")
    demand(
        all(v <= known.countries.get(k, 0) for k, v in claimed.countries.items()),
        "documents-behind",
    )


def versions_digest(versions: pb.DocumentVersions) -> bytes:
    return digest("pratique/versions/v1", serialised(versions))


# ---- set-up ------------------------------------------------------------------------------


@dataclass
class Run:
    """The state of a country in a run. `links` are those of `link_round`."""

    context: bytes
    roster: tuple[str, ...]
    x25519: X25519PrivateKey | None
    mlkem: MLKEM768PrivateKey | None
    stage: int = 0
    bundles: dict[str, pb.Bundle] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    sent: dict[int, pb.Signed] = field(default_factory=dict)
    ciphertexts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    expected: dict[str, bytes] = field(default_factory=dict)
    transcript: bytes = b""
    links: dict[str, bytes] = field(default_factory=dict)
    link_round: int = 1
    contributed: list[str] = field(default_factory=list)
    last: int = 0


def encapsulated(_country: str, key: bytes) -> tuple[bytes, bytes]:
    try:
        return MLKEM768PublicKey.from_public_bytes(key).encapsulate()
    except ValueError as fault:
        raise RefusedRequest("not-authentic") from fault


def exchanged(private_key: X25519PrivateKey, key: bytes) -> bytes:
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError as fault:
        raise RefusedRequest("not-authentic") from fault


@dataclass(frozen=True)
class Pair:
    """Two countries, and what they derive from their common secret."""

    lower: str
    higher: str

    @classmethod
    def of(cls, a: str, b: str) -> "Pair":
        return cls(min(a, b), max(a, b))

    def bound(self, context: bytes, phase: int, body: bytes = b"") -> bytes:
        return bind(context, phase, self.lower, self.higher, body)

    def secret(self, run: Run, x25519: bytes, mlkem: bytes) -> bytes:
        ciphertext = run.ciphertexts[self.lower, self.higher]
        digests = run.digests[self.lower], run.digests[self.higher]
        binding = self.bound(run.context, CONFIRM, ciphertext)
        return derive(x25519 + mlkem, "pratique/pair/v1", binding, *digests)

    def link(self, secret: bytes, transcript: bytes, phase: int) -> bytes:
        return derive(secret, "pratique/chain/v1", self.bound(transcript, phase))


def confirmation(secret: bytes, transcript: bytes, sender: str, receiver: str) -> bytes:
    return derive(secret, "pratique/confirm/v1", bind(transcript, CONFIRM, sender, receiver))


def transcript_of(run: bytes, digests: Mapping[str, bytes], bodies: Sequence[bytes]) -> bytes:
    return digest("pratique/set-up/v1", run, bundle_list(digests), *bodies)


# ---- a round -----------------------------------------------------------------------------


@dataclass
class Round:
    """The state of a country for the round to which it contributed last."""

    number: int
    context: bytes
    masks: dict[str, bytes]
    openers: dict[str, bytes]
    sealers: dict[str, bytes]
    head: pb.Signed = field(default_factory=pb.Signed)
    own_share: bytes = b""
    signed: tuple[str, ...] = ()
    answered: bool = False


def round_context(terms: Terms, run: Run, at: int, mechanism: Mechanism, model: bytes) -> bytes:
    kind = str(mechanism.fields["phase"])
    head = run.context, run.transcript, bundle_list(run.digests)
    sizes = (number(value, 16) for value in (at, *mechanism.sizes(len(run.roster))))
    tail = terms.task_kind, kind, model_digest(model)
    plan = rfc8785.dumps(dict(mechanism.fields))
    return digest("pratique/round/v2", *head, *sizes, *(value.encode() for value in tail), plan)


def round_keys(own: str, at: int, context: bytes, links: Mapping[str, bytes]) -> Round:
    def seal(link: bytes, a: str, b: str) -> bytes:
        return derive(link, "pratique/seal/v1", bind(context, CONTRIBUTE, a, b))

    pairs = {other: Pair.of(own, other).bound(context, CONTRIBUTE) for other in links}
    masks = {o: derive(link, "pratique/mask/v1", pairs[o]) for o, link in links.items()}
    openers = {o: seal(link, o, own) for o, link in links.items()}
    sealers = {o: seal(link, own, o) for o, link in links.items()}
    return Round(at, context, masks, openers, sealers)


def commitments_digest(context: bytes, owner: str, commitments: bytes) -> bytes:
    return digest("pratique/commitments/v1", context, owner.encode(), commitments)


def words_digest(context: bytes, owner: str, words: bytes) -> bytes:
    return bind(context, CONTRIBUTE, owner, "coordinator", blake3(words).digest())


def own_mask_key(seed: bytes, context: bytes, owner: str) -> bytes:
    return derive(seed, "pratique/seed/v1", bind(context, CONTRIBUTE, owner, "roster"))


def masked(words: Words, own: str, own_key: bytes, masks: Mapping[str, bytes]) -> Words:
    total: Words = words + key_stream(own_key, len(words))
    for other, key in masks.items():
        stream = key_stream(key, len(words))
        total = total + stream if other > own else total - stream
    return total
