"""Run the independent country in place of a real one, with lies and changes to its messages.

A lie is signed with the coordinator's own key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from keys.identity import SigningKey
from protocols.numerics.mechanism import Mechanism as OurMechanism
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.proto import round_pb2 as pb
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    MODEL,
    ProtocolWorld,
    altered_request,
    versions_of,
)
from tests.vectors.derivations import Mechanism, Terms
from tests.vectors.independent import Country

Lattice = NDArray[np.int64]
KEYS = {country: key.public.raw for country, key in IDENTITIES.items()}
KEYS["coordinator"] = COORDINATOR_KEY.public.raw


@dataclass
class Seat:
    """Accepts requests as a `CountryRun` does; a refusal is returned as a reply."""

    country: Country
    given: Sequence[int] = ()

    def bundle(self, request: bytes) -> bytes:
        return self.country.take(request)

    encapsulate = confirm = agree = answer = bundle

    def contribute(self, request: bytes, values: Lattice, noise: Lattice) -> bytes:
        self.given = (values + noise).tolist()
        return self.country.take(request)

    def record(self, _at: int, _kind: str, _model: bytes) -> Sequence[int]:
        return self.given


def page_mechanism(mechanism: OurMechanism) -> Mechanism:
    return Mechanism(mechanism.model_dump(mode="json"))


def terms_for(terms: RunTerms, keys: Mapping[str, bytes]) -> Terms:
    return Terms(
        agreement=terms.agreement,
        study=terms.study,
        countries=terms.roster,
        colluding=terms.colluding,
        honest=terms.honest,
        smallest=terms.smallest_countries,
        task_kind=terms.task_kind,
        mechanisms=tuple(map(page_mechanism, terms.mechanisms)),
        keys=keys,
        versions=versions_of(terms.roster).to_proto(),
    )


def seat_of(name: str, terms: RunTerms, **changes: object) -> Seat:
    """Return a country that signs with Ed25519; `changes` may be its keys or signing function."""
    signer = Ed25519PrivateKey.from_private_bytes(name.encode() * 16)
    seat = Seat(None)  # type: ignore[arg-type]
    page_terms = terms_for(terms, changes.pop("keys", KEYS))  # type: ignore[arg-type]
    arguments = {"sign": signer.sign, "record": seat.record, **changes}
    seat.country = Country(name, page_terms, **arguments)  # type: ignore[arg-type]
    return seat


def world_with(name: str, size: int = 4, **changes: object) -> tuple[ProtocolWorld, Country]:
    """Return a world after set-up that includes one independent country, and that country."""
    world = ProtocolWorld.of(size, **{"honest": 2, **changes})
    seat = seat_of(name, world.terms)
    world.countries[name] = seat  # type: ignore[assignment]
    for step in ("bundle", "encapsulate", "confirm"):
        world.set_up(step)
    return world, seat.country


def refusal(reply: bytes) -> str:
    """Return the code of a refusal, or an empty string for any other reply."""
    return pb.Reply.FromString(reply).refused.code


# ---- lies --------------------------------------------------------------------------------

CIPHERTEXT, MAC, SEALED = 1088, 32, 60
WRONG_PARTS = [
    *("one missing", "the last missing", "all missing"),
    *("one too many", "a byte short", "a byte more"),
]
ME, OTHER = "BE", "CZ"
Change = Callable[[pb.RequestBody], object]
STRANGER = SigningKey.from_bytes(b"zz" * 16)


def nothing(_body: pb.RequestBody) -> None:
    pass


def require_refusal(
    country: Country, honest: bytes, code: str, change: Change = nothing, **claims: object
) -> None:
    """Require that the country refuses the lie with this code."""
    assert refusal(country.take(altered_request(honest, change, **claims))) == code  # type: ignore[arg-type]


def other_parts(parts: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Return wrong lists of parts, by what is wrong with them."""
    given = list(parts)
    return {
        "one missing": given[1:],
        "the last missing": given[:-1],
        "all missing": [],
        "one too many": [*given, given[0]],
        "a byte short": [*given[:-1], given[-1][:-1]],
        "a byte more": [*given, b"\0"],
    }


def in_set_up(steps: int, name: str = ME) -> tuple[ProtocolWorld, Country]:
    """Return a world after so many steps of set-up."""
    world = ProtocolWorld.of(4, honest=2)
    world.countries[name] = seat = seat_of(name, world.terms)  # type: ignore[assignment]
    for step in ("bundle", "encapsulate", "confirm")[:steps]:
        world.set_up(step)
    return world, seat.country


def contributed_round(*silent: str) -> tuple[ProtocolWorld, Country, CoordinatorRound]:
    """Return a round to which all but the silent countries contributed zeros."""
    world, country = world_with(ME)
    round_ = world.coordinator.begin_round(1, "train", MODEL)
    for name in world.terms.roster:
        if name not in silent:
            world.contribute(round_, name)
    round_.close()
    return world, country, round_


def agreed_round() -> tuple[ProtocolWorld, Country, CoordinatorRound]:
    """Return a round without DK on which the other three have agreed."""
    world, country, round_ = contributed_round("DK")
    for name in ("AT", ME, OTHER):
        world.agree(round_, name)
    return world, country, round_


def zeros(world: ProtocolWorld, number: int = 1) -> bytes:
    round_ = world.coordinator.begin_round(number, "train", MODEL)
    world.countries[ME].given = [0] * 5  # type: ignore[attr-defined]
    return round_.contribute_request(ME)


# ---- replies that differ from what the country signed ------------------------------------

Alter = Callable[[pb.Reply], object]


def first_byte(given: bytes) -> bytes:
    return bytes([given[0] ^ 1]) + given[1:]


def another_word(reply_message: pb.Reply) -> None:
    reply_message.words = first_byte(reply_message.words)


def one_word_less(reply_message: pb.Reply) -> None:
    reply_message.words = reply_message.words[:-8]


def another_commitment(reply_message: pb.Reply) -> None:
    reply_message.contribution.commitments = first_byte(reply_message.contribution.commitments)


def other_versions(reply_message: pb.Reply) -> None:
    reply_message.contribution.versions.root += 1


def one_share_less(reply_message: pb.Reply) -> None:
    reply_message.contribution.shares = reply_message.contribution.shares[:-60]


def one_share_more(reply_message: pb.Reply) -> None:
    reply_message.contribution.shares += bytes(60)


each_change = pytest.mark.parametrize(
    "alter",
    [
        another_word,
        one_word_less,
        another_commitment,
        other_versions,
        one_share_less,
        one_share_more,
    ],
)
