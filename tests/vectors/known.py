"""The content of `private_sum.json`, as values of the independent implementation."""

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
    split_by_country,
    transcript_of,
)
from tests.vectors.opening import Opening

RECORDED = json.loads((Path(__file__).parent / "private_sum.json").read_text())
RUN, SET_UP, ROUNDS, FIRST = (
    RECORDED["run"],
    RECORDED["set_up"],
    RECORDED["rounds"],
    RECORDED["primitives"],
)
ROSTER = tuple(RUN["roster"])
PAIRS = [Pair(*countries) for countries in combinations(ROSTER, 2)]
each_round = pytest.mark.parametrize(
    "recorded", ROUNDS, ids=lambda recorded: f"round {recorded['round']}"
)
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
    mechanisms=tuple(Mechanism(mechanism) for mechanism in RUN["mechanisms"]),
    keys={country: public(seed) for country, seed in RUN["identities"].items()}
    | {"coordinator": public(RUN["coordinator"])},
    versions=pb.DocumentVersions.FromString(raw(RUN["versions"])),
)


def request(exchange: dict[str, str]) -> pb.Request:
    return pb.Request.FromString(raw(exchange["request"]))


def reply(exchange: dict[str, str]) -> pb.Reply:
    return pb.Reply.FromString(raw(exchange["reply"]))


def known_run() -> Run:
    """Return what every country knows of the run once all have confirmed."""
    exchanges = SET_UP["said"]
    bundles = {country: reply(exchanges["bundle"][country]).bundle for country in ROSTER}
    lists = {
        country: reply(exchanges["encapsulate"][country]).encapsulation.signed for country in ROSTER
    }
    context = TERMS.run_context(raw(RUN["run_id"]), ROSTER)
    digests = {
        country: bind(context, BUNDLE, country, "", bundles[country].body) for country in ROSTER
    }
    run = Run(context, ROSTER, None, None, digests=digests)
    run.transcript = transcript_of(context, digests, [lists[country].body for country in ROSTER])
    return run


def recorded_pair(pair: Pair, recorded: dict[str, Any]) -> dict[str, str]:
    values: dict[str, str] = recorded[f"{pair.lower}-{pair.higher}"]
    return values


def mechanism_of(recorded: dict[str, Any]) -> Mechanism:
    return TERMS.mechanism(recorded["phase_kind"])


def contributions(recorded: dict[str, Any]) -> dict[str, pb.Reply]:
    return {country: reply(recorded["contribute"][country]) for country in recorded["set"]}


def sealed_by(name: str, recorded: dict[str, Any]) -> dict[str, bytes]:
    """Return the shares that a country sealed, by holder."""
    others = [country for country in ROSTER if country != name]
    return split_by_country(contributions(recorded)[name].contribution.shares, others, 60)


def opening_of(recorded: dict[str, Any], answering: Sequence[str]) -> Opening:
    answers = {
        country: pb.Answer.FromString(reply(recorded["answer"][country]).answer.body)
        for country in answering
    }
    given = raw(recorded["context"]), ROSTER, RUN["threshold"], mechanism_of(recorded)
    return Opening(*given, contributions(recorded), answers)
