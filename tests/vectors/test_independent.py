"""The known answers, recomputed by code that was written from docs/private-sum.md alone."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import rfc8785
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.proto import round_pb2 as pb
from tests.vectors.derivations import (
    CONFIRM,
    CONTRIBUTE,
    ENCAPSULATE,
    Pair,
    bind,
    commitments_digest,
    composite_signer,
    confirmation,
    derive,
    digest,
    frame,
    interpolated,
    key_stream,
    masked,
    model_digest,
    own_mask_key,
    packed,
    round_context,
    round_keys,
    share_of,
    unpacked,
    verified,
    versions_digest,
    word_count,
    words_digest,
)
from tests.vectors.independent import Country
from tests.vectors.known import (
    FIRST,
    ROSTER,
    ROUNDS,
    RUN,
    SET_UP,
    TERMS,
    contributions,
    each_country,
    each_pair,
    each_round,
    identity,
    known_run,
    mechanism_of,
    public,
    raw,
    recorded_pair,
    sealed_by,
)

# ---- primitives --------------------------------------------------------------------------


def test_notation_has_known_values() -> None:
    given = FIRST["frame"]
    assert frame(*map(raw, given["fields"])).hex() == given["is"]
    given = FIRST["hash"]
    assert digest(given["label"], *map(raw, given["fields"])).hex() == given["is"]
    given = FIRST["kdf"]
    derived = derive(raw(given["secret"]), given["label"], *map(raw, given["fields"]))
    assert derived.hex() == given["is"]
    given = FIRST["bind"]
    binding = raw(given["context"]), given["phase"], given["from"], given["to"], raw(given["body"])
    assert bind(*binding).hex() == given["is"]
    assert model_digest(raw(FIRST["digest"]["data"])) == FIRST["digest"]["is"]
    assert rfc8785.dumps(FIRST["json"]["value"]).hex() == FIRST["json"]["is"]
    for given in FIRST["blake3"]:
        assert blake3(raw(given["data"])).hexdigest() == given["is"]


def test_masks_and_seals_have_known_values() -> None:
    given = FIRST["prg"]
    assert key_stream(raw(given["key"]), len(given["words"])).tolist() == given["words"]
    given = FIRST["seal"]
    sealed = raw(given["sealed"])
    opened = AESGCM(raw(given["key"])).decrypt(sealed[:12], sealed[12:], raw(given["place"]))
    assert opened.hex() == given["share"]


@pytest.mark.parametrize("given", FIRST["pack"], ids=lambda given: str(given["lane_bits"]))
def test_packing_and_unpacking_have_known_values(given: dict[str, Any]) -> None:
    k, values = given["lane_bits"], given["values"]
    assert word_count(len(values), k) == len(given["words"])
    assert packed(values, k).tolist() == given["words"]
    zeros = [0] * (given["size"] - len(values))
    assert unpacked(np.array(given["words"], np.uint64), k, given["size"]) == values + zeros


def test_signatures_of_both_suites_have_known_values() -> None:
    given = FIRST["ed25519"]
    assert public(given["seed"]).hex() == given["public"]
    assert identity(given["seed"]).sign(raw(given["message"])).hex() == given["signature"]
    given = FIRST["composite"]
    seeds, message, signature = (raw(given[name]) for name in ("seeds", "message", "signature"))
    key, sign = composite_signer(seeds[:32], seeds[32:])
    assert key.hex() == given["public"]
    assert verified(key, signature, message)
    assert verified(key, sign(message), message)


@pytest.mark.parametrize("at", [0, 63, 64, -1])
def test_a_composite_signature_with_one_wrong_byte_in_either_half_is_invalid(
    at: int,
) -> None:
    given = FIRST["composite"]
    signature = bytearray(raw(given["signature"]))
    signature[at] ^= 1
    assert not verified(raw(given["public"]), bytes(signature), raw(given["message"]))


# ---- the run -----------------------------------------------------------------------------


def test_the_run_context_and_its_numbers_have_known_values() -> None:
    assert (TERMS.floor, TERMS.threshold(4)) == (RUN["floor"], RUN["threshold"])
    assert [mechanism.lane_bits(4) for mechanism in TERMS.mechanisms] == RUN["lane_bits"]
    squares = [mechanism.squared_sensitivity for mechanism in TERMS.mechanisms]
    assert squares == RUN["squared_sensitivities"]
    run = known_run()
    assert run.context.hex() == RUN["context"]
    assert {country: digest.hex() for country, digest in run.digests.items()} == SET_UP[
        "bundle_digests"
    ]
    assert run.transcript.hex() == SET_UP["transcript"]
    assert versions_digest(TERMS.versions).hex() == RUN["versions_digest"]


@each_pair
def test_secrets_macs_and_the_first_link_of_a_pair_have_known_values(pair: Pair) -> None:
    run, recorded = known_run(), recorded_pair(pair, SET_UP["pairs"])
    seeds = {
        country: raw(RUN["x25519_and_mlkem_seeds"][country])
        for country in (pair.lower, pair.higher)
    }
    x25519 = {
        country: X25519PrivateKey.from_private_bytes(seed[:32]) for country, seed in seeds.items()
    }
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seeds[pair.higher][32:])
    ciphertext = raw(recorded["ciphertext"])
    mark = bind(run.context, ENCAPSULATE, pair.lower, pair.higher, ciphertext)
    assert mark.hex() == recorded["ciphertext_digest"]
    run.ciphertexts = {(pair.lower, pair.higher): mark}
    both = (
        x25519[pair.lower].exchange(x25519[pair.higher].public_key()),
        mlkem.decapsulate(ciphertext),
    )
    assert [secret.hex() for secret in both] == [
        recorded["x25519_secret"],
        recorded["mlkem_secret"],
    ]
    secret = pair.secret(run, *both)
    assert secret.hex() == recorded["pair_secret"]
    macs = [("mac_of_lower", pair.lower, pair.higher), ("mac_of_higher", pair.higher, pair.lower)]
    for name, sender, receiver in macs:
        assert confirmation(secret, run.transcript, sender, receiver).hex() == recorded[name]
    assert pair.link(secret, run.transcript, CONFIRM).hex() == recorded["link_of_round_1"]


# ---- rounds ------------------------------------------------------------------------------


@each_round
def test_context_and_word_count_of_a_round_have_known_values(recorded: dict[str, Any]) -> None:
    mechanism, model = mechanism_of(recorded), raw(recorded["model"])
    assert model_digest(model) == recorded["model_digest"]
    assert mechanism.sizes(4)[1] == recorded["lane_bits"]
    assert mechanism.sizes(4)[-1] == recorded["words"]
    context = round_context(TERMS, known_run(), recorded["round"], mechanism, model)
    assert context.hex() == recorded["context"]


@each_round
@each_pair
def test_link_mask_and_sealing_keys_of_a_pair_have_known_values(
    recorded: dict[str, Any], pair: Pair
) -> None:
    link, transcript = raw(recorded_pair(pair, SET_UP["pairs"])["link_of_round_1"]), known_run()
    for _ in range(recorded["round"] - 1):
        link = pair.link(link, transcript.transcript, CONTRIBUTE)
    expected = recorded_pair(pair, recorded["keys"])
    assert link.hex() == expected["link"]
    context = raw(recorded["context"])
    lower = round_keys(pair.lower, recorded["round"], context, {pair.higher: link})
    higher = round_keys(pair.higher, recorded["round"], context, {pair.lower: link})
    assert lower.masks[pair.higher].hex() == expected["mask_key"]
    assert higher.masks == {pair.lower: lower.masks[pair.higher]}
    assert lower.sealers[pair.higher].hex() == expected["seals_to_higher"]
    assert higher.sealers[pair.lower].hex() == expected["seals_to_lower"]
    assert lower.openers == {pair.higher: higher.sealers[pair.lower]}


def masks_of(recorded: dict[str, Any], name: str) -> dict[str, bytes]:
    others = [country for country in ROSTER if country != name]
    return {
        country: raw(recorded_pair(Pair.of(name, country), recorded["keys"])["mask_key"])
        for country in others
    }


@each_round
def test_words_shares_commitments_and_heads_have_known_values(recorded: dict[str, Any]) -> None:
    context, reply_message = raw(recorded["context"]), contributions(recorded)
    for name, known in recorded["countries"].items():
        drawn = [int(digits, 16) for digits in (known["seed"], *known["coefficients"])]
        shares = [share_of(drawn, at) for at in range(1, 5)]
        assert [share.hex() for share in shares] == known["shares"]
        key = own_mask_key(raw(known["seed"]), context, name)
        assert key.hex() == known["own_mask_key"]
        values = [a + b for a, b in zip(known["values"], known["noise"], strict=True)]
        plain = packed(values, recorded["lane_bits"])
        assert plain.astype("<u8").tobytes().hex() == known["plain_words"]
        words = masked(plain, name, key, masks_of(recorded, name)).astype("<u8").tobytes()
        assert words.hex() == known["masked_words"]
        assert reply_message[name].words == words
        assert blake3(words).hexdigest() == known["words_blake3"]
        assert words_digest(context, name, words).hex() == known["words_digest"]
        marks = [
            bind(context, CONTRIBUTE, name, country, share)
            for country, share in zip(ROSTER, shares, strict=True)
        ]
        assert b"".join(marks).hex() == known["commitments"]
        digest = commitments_digest(context, name, b"".join(marks))
        assert digest.hex() == known["commitments_digest"]
        seed = bind(context, CONTRIBUTE, name, "roster", raw(known["seed"]))
        assert seed.hex() == known["seed_commitment"]
        assert reply_message[name].contribution.head.body.hex() == known["head"]


@each_round
def test_a_head_holds_its_digests_and_the_words_end_the_message(recorded: dict[str, Any]) -> None:
    for name, reply_message in contributions(recorded).items():
        known = recorded["countries"][name]
        digests = {
            "versions_digest": raw(RUN["versions_digest"]),
            **{name: raw(known[name]) for name in ("words_digest", "seed_commitment")},
            "commitments_digest": raw(known["commitments_digest"]),
        }
        head = pb.ContributionHead(round=recorded["round"], **digests)
        assert head.SerializeToString(deterministic=True).hex() == known["head"]
        assert reply_message.contribution.commitments.hex() == known["commitments"]
        assert reply_message.contribution.shares.hex() == known["sealed_shares"]
        assert reply_message.contribution.versions == TERMS.versions
        assert recorded["contribute"][name]["reply"].endswith(known["masked_words"])


@each_round
def test_every_sealed_share_opens_for_its_holder_and_with_no_other_seed(
    recorded: dict[str, Any],
) -> None:
    context = raw(recorded["context"])
    for owner, reply_message in contributions(recorded).items():
        head = pb.ContributionHead.FromString(reply_message.contribution.head.body)
        for holder, sealed in sealed_by(owner, recorded).items():
            direction = "seals_to_higher" if owner < holder else "seals_to_lower"
            pair = Pair.of(owner, holder)
            cipher = AESGCM(raw(recorded_pair(pair, recorded["keys"])[direction]))
            binding = bind(context, CONTRIBUTE, owner, holder, head.seed_commitment)
            share = cipher.decrypt(sealed[:12], sealed[12:], binding)
            expected = recorded["countries"][owner]["shares"][ROSTER.index(holder)]
            assert share.hex() == expected


@each_round
def test_any_t_shares_give_the_seed(recorded: dict[str, Any]) -> None:
    for known in recorded["countries"].values():
        shares = dict(enumerate(map(raw, known["shares"]), start=1))
        for chosen in combinations(shares, RUN["threshold"]):
            assert interpolated({at: shares[at] for at in chosen}).hex() == known["seed"]


# ---- a complete country ------------------------------------------------------------------


def drawn_by(name: str) -> Callable[[int], bytes]:
    """Return what the country of the vectors drew, in the order of the draws."""
    seeds = raw(RUN["x25519_and_mlkem_seeds"][name])
    draws = [seeds[:32], seeds[32:]]
    for recorded in (entry for entry in ROUNDS if name in entry["set"]):
        known = recorded["countries"][name]
        draws += [raw(known["seed"]), *map(raw, known["coefficients"])]
        draws += [sealed[:12] for sealed in sealed_by(name, recorded).values()]
    left = iter(draws)

    def draw(size: int) -> bytes:
        derived = next(left)
        assert len(derived) == size
        return derived

    return draw


def country_of(name: str) -> Country:
    def encapsulate(other: str, _key: bytes) -> tuple[bytes, bytes]:
        recorded = recorded_pair(Pair(name, other), SET_UP["pairs"])
        return raw(recorded["mlkem_secret"]), raw(recorded["ciphertext"])

    def record(at: int, _kind: str, _model: bytes) -> list[int]:
        known = next(entry for entry in ROUNDS if entry["round"] == at)["countries"][name]
        return [a + b for a, b in zip(known["values"], known["noise"], strict=True)]

    sign = identity(RUN["identities"][name]).sign
    return Country(name, TERMS, sign, record, drawn_by(name), encapsulate)


@each_country
def test_a_country_sends_the_recorded_messages_byte_for_byte(name: str) -> None:
    country = country_of(name)
    steps = [*SET_UP["said"].values()]
    steps += [recorded[step] for recorded in ROUNDS for step in ("contribute", "agree", "answer")]
    exchanges = [exchange[name] for exchange in steps if name in exchange]
    for exchange in exchanges:
        assert country.take(raw(exchange["request"])).hex() == exchange["reply"]
    for exchange in exchanges:
        assert country.take(raw(exchange["request"])).hex() == exchange["reply"]
