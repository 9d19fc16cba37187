"""Write `private_sum.json`: known answers for every derivation of docs/private-sum.md.

    python -m tests.vectors.generate_private_sum

A complete run of four countries goes through the real state machines of both sides and is recorded,
with its secrets: a round over the roster, one in which a country drops out, and one with this
country again, after a round in which nobody got a request. Every random number is derived from its
name, except ML-KEM ciphertexts and an ML-DSA signature, which a library draws itself: these are
read from the existing file. No value in the file protects anything.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from blake3 import blake3

from keys.composite import CompositeSigningKey
from keys.derive import derive_key, frame, labelled_hash
from keys.hybrid import HybridKey, HybridPublic, encapsulate
from keys.sealing import seal
from protocols.numerics.packing import pack
from protocols.private_sum import country_setup, shares
from protocols.private_sum.contribution import seed_key
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.masking import Masker
from protocols.private_sum.messages import versions_digest
from protocols.private_sum.ratchet import advance, confirmation, first_link, mask_key, sealing_key
from protocols.private_sum.setup import ordered, pair_secret, transcript
from protocols.proto.round_pb2 import ContributionHead, Reply
from protocols.wire.encoding import canonical_json, digest
from protocols.wire.signed_message import bind, serialise
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    ProtocolWorld,
    coordinator_of,
    state_of,
    terms_of,
    versions_of,
    view_of,
)

FILE = Path(__file__).with_name("private_sum.json")
ROUNDS = (
    (1, "train", ("AT", "BE", "CZ", "DK")),
    (2, "train", ("AT", "CZ", "DK")),
    (4, "count", ("AT", "BE", "CZ", "DK")),
)
"""Number, kind and contributing countries of each round."""


class Stream:
    """Bytes that are derived from a name: SHAKE-256 of it, read further and further."""

    def __init__(self, name: str) -> None:
        self._name, self._read = name.encode(), 0
        self.given: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        end = self._read + size
        drawn = hashlib.shake_256(self._name).digest(end)[self._read :]
        self._read = end
        self.given.append(drawn)
        return drawn


class Recorder:
    """A world whose random numbers are derived from names, with a record of messages and draws."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        """`before` is the content of an earlier file for each pair."""
        self.terms = terms_of(4, honest=2)
        self._before = before
        self.entropy = {country: Stream(f"entropy {country}") for country in self.terms.roster}
        self.hybrid = {
            country: HybridKey.from_bytes(Stream(country)(96)) for country in self.terms.roster
        }
        self.encapsulated: dict[tuple[str, str], tuple[bytes, ...]] = {}
        runs = {
            country: CountryRun.start(view_of(country, self.terms), entropy=self.entropy[country])
            for country in self.terms.roster
        }
        self.world = ProtocolWorld(self.terms, coordinator_of(self.terms), runs)

    @contextmanager
    def drawing_for(self, country: str) -> Iterator[None]:
        """Derive also the random numbers that the library draws from names, and record them."""
        owner = {key.public.mlkem: country for country, key in self.hybrid.items()}
        real = encapsulate

        def recorded_encapsulation(peer: HybridPublic) -> tuple[bytes, ...]:
            receiver = owner[peer.mlkem]
            recorded = self._before.get(f"{country}-{receiver}")
            names = ("ciphertext", "mlkem_secret")
            encapsulated = (
                tuple(bytes.fromhex(recorded[name]) for name in names) if recorded else real(peer)
            )
            self.encapsulated[country, receiver] = encapsulated
            return encapsulated

        nonces = Stream(f"nonces {country} {len(self.entropy[country].given)}")
        with (
            mock.patch.object(HybridKey, "generate", return_value=self.hybrid[country]),
            mock.patch.object(country_setup, "encapsulate", recorded_encapsulation),
            mock.patch.object(os, "urandom", nonces),
        ):
            yield

    def record_reply(
        self, country: str, step: str, request: bytes, *arguments: Any
    ) -> dict[str, str]:
        """Let a country answer a request; return both as serialised messages."""
        with self.drawing_for(country):
            reply = getattr(self.world.countries[country], step)(request, *arguments)
        return {"request": request.hex(), "reply": reply.hex()}


def set_up(recorder: Recorder) -> dict[str, Any]:
    """Run the set-up of a world; return every message."""
    world, exchanges = recorder.world, {}
    for step, reply_fields in (
        ("bundle", "bundle"),
        ("encapsulate", "encapsulation"),
        ("confirm", "confirmation"),
    ):
        requests = {
            country: getattr(world.coordinator, f"{step}_request")(country)
            for country in world.countries
        }
        exchanges[step] = {
            country: recorder.record_reply(country, step, requests[country]) for country in requests
        }
        for country, exchange in exchanges[step].items():
            getattr(world.coordinator, f"take_{reply_fields}")(
                country, bytes.fromhex(exchange["reply"])
            )
    return exchanges


def pairs_of(recorder: Recorder) -> dict[str, Any]:
    """Return what each pair of countries derives in set-up."""
    terms, coordinator = recorder.terms, recorder.world.coordinator
    bundles = coordinator._bundle_digests()
    bodies = {country: coordinator._encapsulations[country].body for country in terms.roster}
    whole = transcript(terms, bundles, list(bodies.values()))
    pair_values: dict[str, Any] = {}
    for (lower, higher), (ciphertext, secret) in sorted(recorder.encapsulated.items()):
        exchanged = recorder.hybrid[lower].exchange(recorder.hybrid[higher].public)
        named = bind(terms.context, 2, lower, higher, ciphertext)  # type: ignore[arg-type]
        derived = pair_secret(terms, (lower, higher), bundles, (exchanged, secret), named)
        pair_values[f"{lower}-{higher}"] = {
            "ciphertext": ciphertext.hex(),
            "ciphertext_digest": named.hex(),
            "x25519_secret": exchanged.hex(),
            "mlkem_secret": secret.hex(),
            "pair_secret": derived.hex(),
            "mac_of_lower": confirmation(derived, whole, lower, higher).hex(),
            "mac_of_higher": confirmation(derived, whole, higher, lower).hex(),
            "link_of_round_1": first_link(derived, whole, lower, higher).hex(),
        }
    return {
        "bundle_digests": {country: value.hex() for country, value in bundles.items()},
        "transcript": whole.hex(),
        "pairs": pair_values,
    }


def round_of(recorder: Recorder, pairs: dict[str, Any], number: int, kind: str, those: Any) -> Any:
    """Run one round of a world; return every message and the values derived for it."""
    world, model = recorder.world, f"model of round {number}".encode()
    round_ = world.coordinator.begin_round(number, kind, model)
    given = {country: values_of(round_, number, index) for index, country in enumerate(those)}
    drawn = {country: len(recorder.entropy[country].given) for country in those}
    requests = {country: round_.contribute_request(country) for country in those}
    exchanges = {
        country: recorder.record_reply(country, "contribute", requests[country], *given[country])
        for country in those
    }
    seeds = {country: recorder.entropy[country].given[drawn[country] :] for country in those}
    for one, exchange in exchanges.items():
        round_.take_contribution(one, bytes.fromhex(exchange["reply"]))
    steps_recorded = {"contribute": exchanges, **finished(recorder, round_)}
    countries = {
        country: owned(round_, country, seeds[country], given[country], exchanges[country])
        for country in those
    }
    return {**described(round_, model), **keys_of(recorder, pairs, round_), **steps_recorded} | {
        "countries": countries
    }


def values_of(round_: CoordinatorRound, number: int, index: int) -> tuple[Any, Any]:
    """Return a country's values and noise: small, large and negative integers."""
    size = round_.terms.mechanism.dimension
    values = (np.arange(size, dtype=np.int64) - 2) * 7 ** (index + 1) + number
    return values, np.arange(size, dtype=np.int64)[::-1] * (index - 1)


def finished(recorder: Recorder, round_: CoordinatorRound) -> dict[str, Any]:
    """Close a round, let countries agree on the set if needed, answer it, and open it."""
    chosen, agreed = round_.close(), {}
    if round_.smaller:
        agreed = {
            country: recorder.record_reply(country, "agree", round_.agree_request(country))
            for country in chosen
        }
        for country, exchange in agreed.items():
            round_.take_assent(country, bytes.fromhex(exchange["reply"]))
    requests = {country: round_.answer_request(country) for country in chosen}
    answered = {
        country: recorder.record_reply(country, "answer", requests[country]) for country in chosen
    }
    for country, exchange in answered.items():
        round_.take_answer(country, bytes.fromhex(exchange["reply"]))
    result = round_.open()
    if not isinstance(result, OpenedSum):
        raise SystemExit(f"the round did not open: {result}")
    outcome = {"opened": result.values.tolist(), "variance": result.variance, "set": list(chosen)}
    return {"agree": agreed, "answer": answered, **outcome}


def described(round_: CoordinatorRound, model: bytes) -> dict[str, Any]:
    """Return the description of a round."""
    terms = round_.terms
    return {
        "round": terms.round_number,
        "phase_kind": terms.phase_kind,
        "model": model.hex(),
        "model_digest": terms.model_digest,
        "lane_bits": terms.lane_bits,
        "words": terms.words,
        "context": terms.context.hex(),
    }


def keys_of(recorder: Recorder, pairs: dict[str, Any], round_: CoordinatorRound) -> dict[str, Any]:
    """Return the keys of a round between each pair."""
    context, whole = round_.terms.context, bytes.fromhex(pairs["transcript"])
    pair_values: dict[str, Any] = {}
    for name, pair in pairs["pairs"].items():
        lower, higher = ordered(*name.split("-"))
        first = bytes.fromhex(pair["link_of_round_1"])
        link = advance(first, whole, lower, higher, round_.terms.round_number - 1)
        pair_values[name] = {
            "link": link.hex(),
            "mask_key": mask_key(link, context, lower, higher).hex(),
            "seals_to_higher": sealing_key(link, context, lower, higher).hex(),
            "seals_to_lower": sealing_key(link, context, higher, lower).hex(),
        }
    return {"keys": pair_values}


def owned(
    round_: CoordinatorRound, country: str, drawn: list[bytes], given: Any, exchange: dict[str, str]
) -> dict[str, Any]:
    """Return what a country drew and derived for its contribution."""
    terms, (values, noise) = round_.terms, given
    seed, *coefficients = drawn
    split = shares.split(seed, terms.run.threshold, len(terms.run.roster), iter_of(coefficients))
    reply = Reply.FromString(bytes.fromhex(exchange["reply"]))
    contribution = reply.contribution
    head = ContributionHead.FromString(contribution.head.body)
    plain = pack(values + noise, terms.lane_bits, values.size + 4)
    return {
        "values": values.tolist(),
        "noise": noise.tolist(),
        "seed": seed.hex(),
        "coefficients": [coefficient.hex() for coefficient in coefficients],
        "shares": [share.hex() for share in split],
        "own_mask_key": seed_key(terms, country, seed).hex(),
        "plain_words": plain.astype("<u8").tobytes().hex(),
        "masked_words": reply.words.hex(),
        "words_blake3": blake3(reply.words).hexdigest(),
        "words_digest": head.words_digest.hex(),
        "commitments": contribution.commitments.hex(),
        "commitments_digest": head.commitments_digest.hex(),
        "seed_commitment": head.seed_commitment.hex(),
        "sealed_shares": contribution.shares.hex(),
        "head": contribution.head.body.hex(),
    }


def iter_of(drawn: list[bytes]) -> Callable[[int], bytes]:
    """Return an entropy source that repeats these values."""
    left = iter(drawn)
    return lambda size: next(left)


def primitives(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return known answers for the primitives."""
    key, binding = bytes(range(32)), b"place"
    with mock.patch.object(os, "urandom", Stream("nonce")):
        sealed = seal(key, b"share", binding)
    composite = CompositeSigningKey.from_bytes(bytes(range(64)))
    vector = np.array([0, 1, -1, 2**19, -(2**19), 12345, -54321], np.int64)
    return {
        "frame": {"fields": ["", "61", "6263"], "is": frame(b"", b"a", b"bc").hex()},
        "hash": {"label": "label", "fields": ["01"], "is": labelled_hash("label", b"\x01").hex()},
        "kdf": {
            "secret": key.hex(),
            "label": "label",
            "fields": ["01", ""],
            "is": derive_key(key, "label", b"\x01", b"").hex(),
        },
        "bind": {
            "context": key.hex(),
            "phase": 4,
            "from": "AT",
            "to": "roster",
            "body": "00ff",
            "is": bind(key, 4, "AT", "roster", b"\x00\xff").hex(),  # type: ignore[arg-type]
        },
        "digest": {"data": "", "is": digest(b"")},
        "blake3": [
            {"data": data.hex(), "is": blake3(data).hexdigest()}
            for data in (b"", bytes(range(251)) * 9)
        ],
        "json": {
            "value": {"b": 1.0, "a": [0.1, 1e21, True]},
            "is": canonical_json({"b": 1.0, "a": [0.1, 1e21, True]}).hex(),
        },
        "prg": {"key": key.hex(), "words": [int(word) for word in Masker(4).stream(key)]},
        "pack": [
            {
                "lane_bits": bits,
                "values": vector.tolist(),
                "size": 11,
                "words": [int(word) for word in pack(vector, bits, 11)],
            }
            for bits in (21, 32, 64)
        ],
        "seal": {"key": key.hex(), "place": binding.hex(), "share": b"share".hex()}
        | {"sealed": sealed.hex()},
        "ed25519": {
            "seed": COORDINATOR_KEY.to_bytes().hex(),
            "public": COORDINATOR_KEY.public.raw.hex(),
            "message": "00",
            "signature": COORDINATOR_KEY.sign(b"\x00").hex(),
        },
        "composite": {
            "seeds": bytes(range(64)).hex(),
            "public": composite.public.raw.hex(),
            "message": "00",
            "signature": before.get("composite", {}).get("signature")
            or composite.sign(b"\x00").hex(),
        },
    }


def file_content(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the file; `before` is its earlier content, or nothing."""
    recorder = Recorder(before.get("set_up", {}).get("pairs", {}))
    terms, set_up_record = recorder.terms, set_up(recorder)
    versions = versions_of(terms.roster).to_proto()
    pairs = pairs_of(recorder)
    rounds = [round_of(recorder, pairs, *entry) for entry in ROUNDS]
    if any(state_of(run).open_round for run in recorder.world.countries.values()):
        raise SystemExit("a round is still open")
    return {
        "primitives": primitives(before.get("primitives", {})),
        "run": {
            "agreement": terms.agreement,
            "study": terms.study,
            "run_id": terms.run_id.hex(),
            "roster": list(terms.roster),
            "colluding": terms.colluding,
            "honest": terms.honest,
            "smallest_countries": terms.smallest_countries,
            "task_kind": terms.task_kind,
            "mechanisms": [mechanism.model_dump(mode="json") for mechanism in terms.mechanisms],
            "lane_bits": [mechanism.lane_bits(len(terms.roster)) for mechanism in terms.mechanisms],
            "squared_sensitivities": [
                mechanism.squared_sensitivity for mechanism in terms.mechanisms
            ],
            "threshold": terms.threshold,
            "floor": terms.minimum_countries,
            "context": terms.context.hex(),
            "versions": serialise(versions).hex(),
            "versions_digest": versions_digest(versions).hex(),
            "coordinator": COORDINATOR_KEY.to_bytes().hex(),
            "identities": {
                country: IDENTITIES[country].to_bytes().hex() for country in terms.roster
            },
            "x25519_and_mlkem_seeds": {
                country: key.to_bytes().hex() for country, key in recorder.hybrid.items()
            },
        },
        "set_up": {**pairs, "said": set_up_record},
        "rounds": rounds,
    }


if __name__ == "__main__":
    held = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps(file_content(held), indent=1) + "\n")
