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
    pair_held,
    public,
    raw,
    sealed_by,
)

# ---- primitives --------------------------------------------------------------------------


def test_the_notation() -> None:
    given = FIRST["frame"]
    assert frame(*map(raw, given["fields"])).hex() == given["is"]
    given = FIRST["hash"]
    assert digest(given["label"], *map(raw, given["fields"])).hex() == given["is"]
    given = FIRST["kdf"]
    made = derive(raw(given["secret"]), given["label"], *map(raw, given["fields"]))
    assert made.hex() == given["is"]
    given = FIRST["bind"]
    place = raw(given["context"]), given["phase"], given["from"], given["to"], raw(given["body"])
    assert bind(*place).hex() == given["is"]
    assert model_digest(raw(FIRST["digest"]["data"])) == FIRST["digest"]["is"]
    assert rfc8785.dumps(FIRST["json"]["value"]).hex() == FIRST["json"]["is"]
    for given in FIRST["blake3"]:
        assert blake3(raw(given["data"])).hexdigest() == given["is"]


def test_masks_and_seals() -> None:
    given = FIRST["prg"]
    assert key_stream(raw(given["key"]), len(given["words"])).tolist() == given["words"]
    given = FIRST["seal"]
    sealed = raw(given["sealed"])
    opened = AESGCM(raw(given["key"])).decrypt(sealed[:12], sealed[12:], raw(given["place"]))
    assert opened.hex() == given["share"]


@pytest.mark.parametrize("given", FIRST["pack"], ids=lambda given: str(given["lane_bits"]))
def test_packing_and_its_reverse(given: dict[str, Any]) -> None:
    k, values = given["lane_bits"], given["values"]
    assert word_count(len(values), k) == len(given["words"])
    assert packed(values, k).tolist() == given["words"]
    zeros = [0] * (given["size"] - len(values))
    assert unpacked(np.array(given["words"], np.uint64), k, given["size"]) == values + zeros


def test_signatures_of_both_suites() -> None:
    given = FIRST["ed25519"]
    assert public(given["seed"]).hex() == given["public"]
    assert identity(given["seed"]).sign(raw(given["message"])).hex() == given["signature"]
    given = FIRST["composite"]
    seeds, message, signature = (raw(given[one]) for one in ("seeds", "message", "signature"))
    key, sign = composite_signer(seeds[:32], seeds[32:])
    assert key.hex() == given["public"]
    assert verified(key, signature, message)
    assert verified(key, sign(message), message)


@pytest.mark.parametrize("at", [0, 63, 64, -1])
def test_a_composite_signature_with_one_wrong_byte_in_either_half_counts_for_nothing(
    at: int,
) -> None:
    given = FIRST["composite"]
    signature = bytearray(raw(given["signature"]))
    signature[at] ^= 1
    assert not verified(raw(given["public"]), bytes(signature), raw(given["message"]))


# ---- the run -----------------------------------------------------------------------------


def test_the_run_and_its_numbers() -> None:
    assert (TERMS.floor, TERMS.threshold(4)) == (RUN["floor"], RUN["threshold"])
    assert [one.lane_bits(4) for one in TERMS.mechanisms] == RUN["lane_bits"]
    squares = [one.squared_sensitivity for one in TERMS.mechanisms]
    assert squares == RUN["squared_sensitivities"]
    run = known_run()
    assert run.context.hex() == RUN["context"]
    assert {one: made.hex() for one, made in run.digests.items()} == SET_UP["bundle_digests"]
    assert run.transcript.hex() == SET_UP["transcript"]
    assert versions_digest(TERMS.versions).hex() == RUN["versions_digest"]


@each_pair
def test_secrets_macs_and_the_first_link_of_a_pair(pair: Pair) -> None:
    run, held = known_run(), pair_held(pair, SET_UP["pairs"])
    seeds = {one: raw(RUN["x25519_and_mlkem_seeds"][one]) for one in (pair.lower, pair.higher)}
    x25519 = {one: X25519PrivateKey.from_private_bytes(made[:32]) for one, made in seeds.items()}
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seeds[pair.higher][32:])
    ciphertext = raw(held["ciphertext"])
    mark = bind(run.context, ENCAPSULATE, pair.lower, pair.higher, ciphertext)
    assert mark.hex() == held["ciphertext_digest"]
    run.ciphertexts = {(pair.lower, pair.higher): mark}
    both = (
        x25519[pair.lower].exchange(x25519[pair.higher].public_key()),
        mlkem.decapsulate(ciphertext),
    )
    assert [one.hex() for one in both] == [held["x25519_secret"], held["mlkem_secret"]]
    secret = pair.secret(run, *both)
    assert secret.hex() == held["pair_secret"]
    macs = [("mac_of_lower", pair.lower, pair.higher), ("mac_of_higher", pair.higher, pair.lower)]
    for name, sender, receiver in macs:
        assert confirmation(secret, run.transcript, sender, receiver).hex() == held[name]
    assert pair.link(secret, run.transcript, CONFIRM).hex() == held["link_of_round_1"]


# ---- rounds ------------------------------------------------------------------------------


@each_round
def test_context_and_words_of_a_round(held: dict[str, Any]) -> None:
    mechanism, model = mechanism_of(held), raw(held["model"])
    assert model_digest(model) == held["model_digest"]
    assert mechanism.sizes(4)[1] == held["lane_bits"]
    assert mechanism.sizes(4)[-1] == held["words"]
    made = round_context(TERMS, known_run(), held["round"], mechanism, model)
    assert made.hex() == held["context"]


@each_round
@each_pair
def test_link_mask_and_sealing_keys_of_a_pair(held: dict[str, Any], pair: Pair) -> None:
    link, transcript = raw(pair_held(pair, SET_UP["pairs"])["link_of_round_1"]), known_run()
    for _ in range(held["round"] - 1):
        link = pair.link(link, transcript.transcript, CONTRIBUTE)
    expected = pair_held(pair, held["keys"])
    assert link.hex() == expected["link"]
    context = raw(held["context"])
    lower = round_keys(pair.lower, held["round"], context, {pair.higher: link})
    higher = round_keys(pair.higher, held["round"], context, {pair.lower: link})
    assert lower.masks[pair.higher].hex() == expected["mask_key"]
    assert higher.masks == {pair.lower: lower.masks[pair.higher]}
    assert lower.sealers[pair.higher].hex() == expected["seals_to_higher"]
    assert higher.sealers[pair.lower].hex() == expected["seals_to_lower"]
    assert lower.openers == {pair.higher: higher.sealers[pair.lower]}


def masks_of(held: dict[str, Any], name: str) -> dict[str, bytes]:
    others = [one for one in ROSTER if one != name]
    return {one: raw(pair_held(Pair.of(name, one), held["keys"])["mask_key"]) for one in others}


@each_round
def test_words_shares_commitments_and_heads(held: dict[str, Any]) -> None:
    context, said = raw(held["context"]), contributions(held)
    for name, known in held["countries"].items():
        drawn = [int(one, 16) for one in (known["seed"], *known["coefficients"])]
        shares = [share_of(drawn, at) for at in range(1, 5)]
        assert [one.hex() for one in shares] == known["shares"]
        key = own_mask_key(raw(known["seed"]), context, name)
        assert key.hex() == known["own_mask_key"]
        values = [a + b for a, b in zip(known["values"], known["noise"], strict=True)]
        plain = packed(values, held["lane_bits"])
        assert plain.astype("<u8").tobytes().hex() == known["plain_words"]
        words = masked(plain, name, key, masks_of(held, name)).astype("<u8").tobytes()
        assert words.hex() == known["masked_words"]
        assert said[name].words == words
        assert blake3(words).hexdigest() == known["words_blake3"]
        assert words_digest(context, name, words).hex() == known["words_digest"]
        marks = [
            bind(context, CONTRIBUTE, name, one, share)
            for one, share in zip(ROSTER, shares, strict=True)
        ]
        assert b"".join(marks).hex() == known["commitments"]
        made = commitments_digest(context, name, b"".join(marks))
        assert made.hex() == known["commitments_digest"]
        seed = bind(context, CONTRIBUTE, name, "roster", raw(known["seed"]))
        assert seed.hex() == known["seed_commitment"]
        assert said[name].contribution.head.body.hex() == known["head"]


@each_round
def test_a_head_holds_its_digests_and_the_words_end_the_message(held: dict[str, Any]) -> None:
    for name, said in contributions(held).items():
        known = held["countries"][name]
        digests = {
            "versions_digest": raw(RUN["versions_digest"]),
            **{one: raw(known[one]) for one in ("words_digest", "seed_commitment")},
            "commitments_digest": raw(known["commitments_digest"]),
        }
        head = pb.ContributionHead(round=held["round"], **digests)
        assert head.SerializeToString(deterministic=True).hex() == known["head"]
        assert said.contribution.commitments.hex() == known["commitments"]
        assert said.contribution.shares.hex() == known["sealed_shares"]
        assert said.contribution.versions == TERMS.versions
        assert held["contribute"][name]["reply"].endswith(known["masked_words"])


@each_round
def test_every_sealed_share_opens_for_its_holder_and_with_no_other_seed(
    held: dict[str, Any],
) -> None:
    context = raw(held["context"])
    for owner, said in contributions(held).items():
        head = pb.ContributionHead.FromString(said.contribution.head.body)
        for holder, sealed in sealed_by(owner, held).items():
            direction = "seals_to_higher" if owner < holder else "seals_to_lower"
            pair = Pair.of(owner, holder)
            cipher = AESGCM(raw(pair_held(pair, held["keys"])[direction]))
            place = bind(context, CONTRIBUTE, owner, holder, head.seed_commitment)
            share = cipher.decrypt(sealed[:12], sealed[12:], place)
            expected = held["countries"][owner]["shares"][ROSTER.index(holder)]
            assert share.hex() == expected


@each_round
def test_any_shares_enough_in_number_give_the_seed(held: dict[str, Any]) -> None:
    for known in held["countries"].values():
        shares = dict(enumerate(map(raw, known["shares"]), start=1))
        for chosen in combinations(shares, RUN["threshold"]):
            assert interpolated({at: shares[at] for at in chosen}).hex() == known["seed"]


# ---- a whole country ---------------------------------------------------------------------


def drawn_by(name: str) -> Callable[[int], bytes]:
    """What the country of the vectors drew, in its order."""
    seeds = raw(RUN["x25519_and_mlkem_seeds"][name])
    draws = [seeds[:32], seeds[32:]]
    for held in (one for one in ROUNDS if name in one["set"]):
        known = held["countries"][name]
        draws += [raw(known["seed"]), *map(raw, known["coefficients"])]
        draws += [sealed[:12] for sealed in sealed_by(name, held).values()]
    left = iter(draws)

    def draw(size: int) -> bytes:
        made = next(left)
        assert len(made) == size
        return made

    return draw


def country_of(name: str) -> Country:
    def encapsulate(other: str, _key: bytes) -> tuple[bytes, bytes]:
        held = pair_held(Pair(name, other), SET_UP["pairs"])
        return raw(held["mlkem_secret"]), raw(held["ciphertext"])

    def record(at: int, _kind: str, _model: bytes) -> list[int]:
        known = next(one for one in ROUNDS if one["round"] == at)["countries"][name]
        return [a + b for a, b in zip(known["values"], known["noise"], strict=True)]

    sign = identity(RUN["identities"][name]).sign
    return Country(name, TERMS, sign, record, drawn_by(name), encapsulate)


@each_country
def test_a_country_says_what_the_vectors_hold_byte_for_byte(name: str) -> None:
    country = country_of(name)
    steps = [*SET_UP["said"].values()]
    steps += [held[step] for held in ROUNDS for step in ("contribute", "agree", "answer")]
    said = [one[name] for one in steps if name in one]
    for one in said:
        assert country.take(raw(one["request"])).hex() == one["reply"]
    for one in said:
        assert country.take(raw(one["request"])).hex() == one["reply"]
