"""What `private_sum.json` holds, in the words of the code written from the page."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.proto import round_pb2 as pb
from tests.vectors.derivations import (
    BUNDLE,
    Mechanism,
    Pair,
    Run,
    Terms,
    bind,
    taken_apart,
    transcript_of,
)
from tests.vectors.opening import Opening

HELD = json.loads((Path(__file__).parent / "private_sum.json").read_text())
RUN, SET_UP, ROUNDS, FIRST = HELD["run"], HELD["set_up"], HELD["rounds"], HELD["primitives"]
ROSTER = tuple(RUN["roster"])
PAIRS = [Pair(*one) for one in combinations(ROSTER, 2)]
each_round = pytest.mark.parametrize("held", ROUNDS, ids=lambda held: f"round {held['round']}")
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.lower + pair.higher)
each_country = pytest.mark.parametrize("name", ROSTER)


def raw(value: str) -> bytes:
    return bytes.fromhex(value)


def identity(seed: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(raw(seed))


def public(seed: str) -> bytes:
    return identity(seed).public_key().public_bytes_raw()


TERMS = Terms(
    agreement=RUN["agreement"],
    study=RUN["study"],
    countries=ROSTER,
    colluding=RUN["colluding"],
    honest=RUN["honest"],
    smallest=RUN["smallest_countries"],
    task_kind=RUN["task_kind"],
    mechanisms=tuple(Mechanism(one) for one in RUN["mechanisms"]),
    keys={one: public(seed) for one, seed in RUN["identities"].items()}
    | {"coordinator": public(RUN["coordinator"])},
    versions=pb.DocumentVersions.FromString(raw(RUN["versions"])),
)


def request(said: dict[str, str]) -> pb.Request:
    return pb.Request.FromString(raw(said["request"]))


def reply(said: dict[str, str]) -> pb.Reply:
    return pb.Reply.FromString(raw(said["reply"]))


def known_run() -> Run:
    """What every country knows of the run once all have confirmed."""
    said = SET_UP["said"]
    bundles = {one: reply(said["bundle"][one]).bundle for one in ROSTER}
    lists = {one: reply(said["encapsulate"][one]).encapsulation.signed for one in ROSTER}
    context = TERMS.run_context(raw(RUN["run_id"]), ROSTER)
    digests = {one: bind(context, BUNDLE, one, "", bundles[one].body) for one in ROSTER}
    run = Run(context, ROSTER, None, None, digests=digests)
    run.transcript = transcript_of(context, digests, [lists[one].body for one in ROSTER])
    return run


def pair_held(pair: Pair, held: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = held[f"{pair.lower}-{pair.higher}"]
    return found


def mechanism_of(held: dict[str, Any]) -> Mechanism:
    return TERMS.mechanism(held["phase_kind"])


def contributions(held: dict[str, Any]) -> dict[str, pb.Reply]:
    return {one: reply(held["contribute"][one]) for one in held["set"]}


def sealed_by(name: str, held: dict[str, Any]) -> dict[str, bytes]:
    """What a country sealed, by holder."""
    others = [one for one in ROSTER if one != name]
    return taken_apart(contributions(held)[name].contribution.shares, others, 60)


def opening_of(held: dict[str, Any], answering: Sequence[str]) -> Opening:
    answers = {
        one: pb.Answer.FromString(reply(held["answer"][one]).answer.body) for one in answering
    }
    given = raw(held["context"]), ROSTER, RUN["threshold"], mechanism_of(held)
    return Opening(*given, contributions(held), answers)
