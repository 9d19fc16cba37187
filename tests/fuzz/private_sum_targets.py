"""Targets: the frames of a run, for a country and for the coordinator, at each of its steps.

A frame that is accepted is the one that was signed. In a second form each frame is signed before it
is read, since a lying coordinator or country can sign anything: so fuzzing reaches what follows.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from client.status.health import phase_of, refusal_of
from client.tasks.requests import read_model
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.messages import (
    LARGEST_REPLY,
    SEALING_KEY_BYTES,
    SHARE_BYTES,
    read_contribution,
    read_reply,
    read_request,
    refusal_reply,
)
from protocols.private_sum.setup import read_bundle
from protocols.proto.round_pb2 import Answer, Reply, Signed
from protocols.proto.round_pb2 import Request as Envelope
from protocols.tasks.layout import vector_to_bytes
from protocols.wire.signed_message import serialise
from tests.fuzz.target import Parse, Seeds, Target
from tests.support.protocol_world import (
    COORDINATOR_KEY,
    IDENTITIES,
    MODEL,
    NAMES,
    ZEROS,
    ProtocolWorld,
    view_of,
    with_body,
)

COUNTRY, SIZE, COUNTRIES = "AT", 64, 4
SIGNED = "protocols/wire/signed_message.py"
MESSAGES, SETUP = "protocols/private_sum/messages.py", "protocols/private_sum/setup.py"
OF_COUNTRY = {
    "bundle": "country_setup",
    "encapsulate": "country_setup",
    "confirm": "country_setup",
    "contribute": "country_round",
    "agree": "set_agreement",
    "answer": "country_round",
}
"""The steps of a country, and the module that reads each."""
OF_COORDINATOR = {
    "bundle": "coordinator_run",
    "encapsulation": "coordinator_run",
    "confirmation": "coordinator_run",
    "contribution": "coordinator_round",
    "assent": "coordinator_round",
    "answer": "coordinator_round",
}
"""The steps of the coordinator."""


@dataclass(frozen=True)
class Step:
    """One message: who reads it, in which state, and the honest frame."""

    reader: Any
    frame: bytes


@cache
def steps() -> dict[tuple[str, str], Step]:
    """Return the steps of a run with a round that one country leaves, by reader and name."""
    world = ProtocolWorld.of(COUNTRIES, honest=COUNTRIES - 2)
    known: dict[tuple[str, str], Step] = {}
    run, coordinator = world.countries[COUNTRY], world.coordinator
    replies = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}
    for asked, replied in replies.items():
        request = getattr(coordinator, f"{asked}_request")(COUNTRY)
        known["country", asked] = Step(run.to_bytes(), request)
        reply = getattr(run, asked)(request)
        known["coordinator", replied] = Step(_copied(coordinator), reply)
        getattr(coordinator, f"take_{replied}")(COUNTRY, reply)
        for other in world.terms.roster[1:]:
            world.exchange(asked, other)
    _add_round(known, world)
    return known


def _add_round(known: dict[tuple[str, str], Step], world: ProtocolWorld) -> None:
    """Add the steps of a round in which this country is the last to reply."""
    run, turn = world.countries[COUNTRY], world.coordinator.begin_round(1, "train", MODEL)
    others = world.terms.roster[1:-1]
    replies = {"contribute": "contribution", "agree": "assent", "answer": "answer"}
    for asked, replied in replies.items():
        if asked == "agree":
            turn.close()
        for other in others:
            getattr(world, asked)(turn, other)
        request = getattr(turn, f"{asked}_request")(COUNTRY)
        known["country", asked] = Step(run.to_bytes(), request)
        arrays = (ZEROS, ZEROS) if asked == "contribute" else ()
        reply = getattr(run, asked)(request, *arrays)
        known["coordinator", replied] = Step(_copied(turn), reply)
        getattr(turn, f"take_{replied}")(COUNTRY, reply)


def _copied(party: CoordinatorRun | CoordinatorRound) -> Any:
    """Return a copy of the coordinator's state; what never changes, such as its key, is shared."""
    view = party._view
    return copy.deepcopy(party, {id(view): view})


def _to_country(name: str, change: Callable[[Step, bytes], bytes]) -> Parse:
    def read(data: bytes) -> None:
        step = steps()["country", name]
        frame = change(step, data)
        world_view = view_of(COUNTRY, _terms())
        run = CountryRun.from_bytes(step.reader, world_view)
        arrays = (ZEROS, ZEROS) if name == "contribute" else ()
        try:
            reply = getattr(run, name)(frame, *arrays)
        except Refusal:
            assert run.to_bytes() == step.reader, "a refused request has changed the state"
            raise
        assert len(reply) <= LARGEST_REPLY
        if frame is data:
            assert _signed_in(Envelope, frame) == _signed_in(Envelope, step.frame)

    return read


@cache
def _terms() -> Any:
    return ProtocolWorld.of(COUNTRIES, honest=COUNTRIES - 2).terms


def _to_coordinator(name: str, change: Callable[[Step, bytes], bytes]) -> Parse:
    def read(data: bytes) -> None:
        step = steps()["coordinator", name]
        frame, reader = change(step, data), _copied(step.reader)
        getattr(reader, f"take_{name}")(COUNTRY, frame)
        if frame is data:
            assert _signed_in(Reply, frame) == _signed_in(Reply, step.frame)
        if name == "answer":
            reader.open()
            assert COUNTRY in reader.answered
            _ = reader.share_faults.convicted

    return read


def _signed_in(kind: type[Any], frame: bytes) -> bytes:
    """Return the signed part of a frame, without fields that this version does not know."""
    message = _signed_part(kind.FromString(frame))
    message.DiscardUnknownFields()
    return serialise(message)


def _signed_part(message: Any) -> Any:
    """Return the signed message in a frame; another part if its content has none."""
    if isinstance(message, Envelope):
        return message.signed
    content = getattr(message, message.WhichOneof("content") or "bundle")
    inner = {"Contribution": "head", "EncapsulationReply": "signed"}.get(type(content).__name__)
    return getattr(content, inner) if inner else content


def _as_it_is(_: Step, data: bytes) -> bytes:
    return data


def _signed_by(kind: type[Any], key: Any, step: Step, data: bytes) -> bytes:
    """Return the frame with a signature that is valid in the place of the honest frame."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        return data
    signed, honest = _signed_part(message), _signed_part(kind.FromString(step.frame))
    if not isinstance(signed, Signed):
        return data
    signed.CopyFrom(with_body(honest, signed.body, key))
    return serialise(message)


def _frame_of(reader: str, name: str) -> Callable[[], Seeds]:
    return lambda: (steps()[reader, name].frame,)


def _all_frames(reader: str) -> Callable[[], Seeds]:
    return lambda: tuple(step.frame for key, step in steps().items() if key[0] == reader)


def _request(data: bytes) -> None:
    """Read a request: what it says about itself can be asked for, and its phase is named."""
    phase_of(data)
    request = read_request(data)
    assert len(request.digest) == 32
    assert request.round_number >= 0
    assert phase_of(data) != "unreadable"


def _reply(data: bytes) -> None:
    refusal_of(data)
    reply = read_reply(data, COUNTRY, "bundle")
    assert not reply.words


def _contribution(data: bytes) -> None:
    _, words = read_contribution(data, COUNTRY, SIZE)
    assert bytes(words) == data[-SIZE:]


def _bundle(data: bytes) -> None:
    read_bundle(data)


def _model(data: bytes) -> None:
    """Read a model: it has finite values, and is the same when it is written again."""
    vector = read_model(data, 3)
    assert np.isfinite(vector).all()
    assert vector_to_bytes(vector) == data


def _targets() -> Iterator[tuple[str, Target]]:
    by_coordinator = partial(_signed_by, Envelope, COORDINATOR_KEY)
    by_country = partial(_signed_by, Reply, IDENTITIES[COUNTRY])
    for name, module in OF_COUNTRY.items():
        seeds = _frame_of("country", name)
        modules = (f"protocols/private_sum/{module}.py", MESSAGES, SIGNED)
        yield f"request to {name}", Target(_to_country(name, _as_it_is), seeds, modules)
        yield f"signed request to {name}", Target(_to_country(name, by_coordinator), seeds, modules)
    for name, module in OF_COORDINATOR.items():
        seeds = _frame_of("coordinator", name)
        modules = (f"protocols/private_sum/{module}.py", MESSAGES, SIGNED)
        yield f"{name} of a country", Target(_to_coordinator(name, _as_it_is), seeds, modules)
        yield (
            f"signed {name} of a country",
            Target(_to_coordinator(name, by_country), seeds, modules),
        )


def _blaming() -> Seeds:
    """Return an answer that reports the share of another country as one that does not open."""
    frame = steps()["coordinator", "answer"].frame
    reply = Reply.FromString(frame)
    answer = Answer.FromString(reply.answer.body)
    answer.shares = answer.shares[:SHARE_BYTES] + bytes(SHARE_BYTES) + answer.shares[64:]
    answer.unopenable.append(NAMES[1])
    answer.keys = bytes(SEALING_KEY_BYTES)
    reply.answer.body = serialise(answer)
    return frame, serialise(reply)


def _bundles() -> Seeds:
    reply = Reply.FromString(steps()["coordinator", "bundle"].frame)
    return (reply.bundle.body,)


def _replies() -> Seeds:
    return (*_all_frames("coordinator")(), refusal_reply(ReasonCode.DECLINED))


def _contributions() -> Seeds:
    reply = Reply.FromString(steps()["coordinator", "contribution"].frame)
    reply.words = bytes(SIZE)
    return (serialise(reply), refusal_reply(ReasonCode.DECLINED))


HEALTH = "client/status/health.py"
PRIVATE_SUM_TARGETS: dict[str, Target] = {
    "request of the coordinator": Target(_request, _all_frames("country"), (MESSAGES, HEALTH)),
    "reply of a country": Target(_reply, _replies, (MESSAGES, HEALTH)),
    "contribution, as it is read": Target(_contribution, _contributions, (MESSAGES,)),
    "key bundle of a country": Target(_bundle, _bundles, (SETUP,)),
    "model in a request": Target(
        _model, (bytes(24),), ("client/tasks/requests.py", "protocols/tasks/layout.py")
    ),
    **dict(_targets()),
    "signed answer with a report of a country": Target(
        _to_coordinator("answer", partial(_signed_by, Reply, IDENTITIES[COUNTRY])),
        _blaming,
        ("protocols/private_sum/dealt_shares.py", "protocols/private_sum/share_faults.py"),
    ),
}
