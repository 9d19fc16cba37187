"""With ML-DSA-65 beside Ed25519, an attacker with one half of a key can forge nothing.

Every signed message of a run, in both directions, is refused unless both halves verify. First in
memory, through the real state machines of both sides, with a country that drops out in the second
round, so that every phase occurs; then by real nodes over real documents.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from governance.documents.study import Study
from governance.errors import DocumentFault
from keys.composite import COMPOSITE_LABEL, CompositeSigningKey
from keys.derive import labelled_hash
from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.country_run import CountryRun
from protocols.private_sum.country_view import CountryView
from protocols.private_sum.messages import sign_request, write_request
from protocols.proto.round_pb2 import Reply, RequestBody, Signed
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.signed_message import bind, serialise
from tests.support.documents import BOTH, COUNTRIES, node_keys, two_algorithm_key
from tests.support.node_federation import NodeFederation, code_of, last_refusal
from tests.support.protocol_world import (
    MODEL,
    TRAIN,
    ProtocolWorld,
    refused,
    terms_of,
    versions_of,
)

KEYS = {
    name: two_algorithm_key(n) for n, name in enumerate(("coordinator", "AT", "BE", "CZ", "DK"), 1)
}
"""Return a key whose two seeds of 32 bytes are made from `number`."""
STRANGER = MLDSA65PrivateKey.from_seed_bytes(b"s" * 32)
ANOTHER = SigningKey.from_bytes(b"a" * 32)

Forge = Callable[[Signed], bytes]


def halves(key: CompositeSigningKey) -> tuple[SigningKey, MLDSA65PrivateKey]:
    return key.ed25519, MLDSA65PrivateKey.from_seed_bytes(key.to_bytes()[32:])


def signed_bytes(message: Signed) -> tuple[bytes, bytes]:
    """Return what is signed under each suite: the binding itself, and the hash with both keys."""
    binding = bind(message.context, message.phase, message.sender, message.receiver, message.body)
    raw = KEYS[message.sender].public.raw
    return binding, labelled_hash(COMPOSITE_LABEL, raw, binding)


def with_ed25519_alone(message: Signed) -> bytes:
    """Return a forgery of a quantum computer: the right Ed25519 half, a stranger's other half."""
    _, signed = signed_bytes(message)
    return halves(KEYS[message.sender])[0].sign(signed) + STRANGER.sign(signed)


def with_mldsa_alone(message: Signed) -> bytes:
    """Return what an attacker who breaks ML-DSA could make."""
    _, signed = signed_bytes(message)
    return ANOTHER.sign(signed) + halves(KEYS[message.sender])[1].sign(signed)


def of_the_other_suite(message: Signed) -> bytes:
    """Return a signature for agreements with Ed25519 only: by the right key, 64 bytes."""
    return halves(KEYS[message.sender])[0].sign(signed_bytes(message)[0])


def two_separate_signatures(message: Signed) -> bytes:
    """Return signatures of both right keys over the message alone, not bound to each other."""
    ed25519, mldsa = halves(KEYS[message.sender])
    binding = signed_bytes(message)[0]
    return ed25519.sign(binding) + mldsa.sign(binding)


FORGERIES: dict[str, Forge] = {
    "ed25519 alone": with_ed25519_alone,
    "mldsa alone": with_mldsa_alone,
    "the other suite": of_the_other_suite,
    "apart": two_separate_signatures,
    "no mldsa half": lambda message: message.signature[:64],
    "no ed25519 half": lambda message: message.signature[64:],
    "zeros for mldsa": lambda message: message.signature[:64] + bytes(3309),
    "nothing": lambda message: b"",
}


@pytest.fixture(params=FORGERIES)
def forge(request: pytest.FixtureRequest) -> Forge:
    return FORGERIES[request.param]


# ---- in memory


def world_of(size: int) -> ProtocolWorld:
    """Return a world whose identities have two halves."""
    terms = terms_of(size, honest=2)
    peers = {country: KEYS[country].public for country in terms.roster}
    views = [
        CountryView(
            country=country,
            terms=terms,
            identity=KEYS[country],
            peers=peers,
            coordinator=KEYS["coordinator"].public,
            versions=versions_of(terms.roster),
        )
        for country in terms.roster
    ]
    sign, versions = KEYS["coordinator"].sign, versions_of(terms.roster)
    coordinator = CoordinatorRun(terms, peers=peers, sign=sign, versions=versions)
    return ProtocolWorld(
        terms, coordinator, {view.country: CountryRun.start(view) for view in views}
    )


def quoted(body: RequestBody) -> list[Signed]:
    """Return the countries' messages that a request shows to its receiver."""
    return [
        *body.encapsulate.bundles,
        *body.confirm.encapsulations,
        *body.answer.heads,
        *body.answer.assents,
    ]


def signed_in(reply: Reply) -> Signed:
    """Return the signed part of a reply."""
    name = reply.WhichOneof("content")
    if name == "encapsulation":
        return reply.encapsulation.signed
    content: Signed = reply.contribution.head if name == "contribution" else getattr(reply, name)
    return content


def forged_requests(request: bytes, forge: Forge) -> Iterator[bytes]:
    """Yield the request under a forged signature, then with each message that it shows forged."""
    envelope = Envelope.FromString(request)
    envelope.signed.signature = forge(envelope.signed)
    yield envelope.SerializeToString()
    for number in range(len(quoted(RequestBody.FromString(envelope.signed.body)))):
        body = RequestBody.FromString(envelope.signed.body)
        message = quoted(body)[number]
        message.signature = forge(message)
        binding: dict[str, Any] = {
            "context": envelope.signed.context,
            "phase": envelope.signed.phase,
        }
        signed = sign_request(KEYS["coordinator"].sign, body=body, **binding)
        yield write_request(signed, model=envelope.model, parts=envelope.parts)


class Forging:
    """Runs a world; at each message it tries the forgery before the true message."""

    def __init__(self, world: ProtocolWorld, forge: Forge) -> None:
        self.world, self.forge = world, forge
        self.tried = 0

    def request_from(self, country: str, step: str, request: bytes, *given: object) -> bytes:
        """Give a country each forged request, and then the true one; return its reply."""
        run = self.world.countries[country]
        for forged in forged_requests(request, self.forge):
            self.tried += 1
            with refused(run, ReasonCode.NOT_AUTHENTIC):
                getattr(run, step)(forged, *given)
        reply: bytes = getattr(run, step)(request, *given)
        return reply

    def take(self, take: Callable[[str, bytes], object], country: str, reply: bytes) -> None:
        """Give the coordinator the forged reply, and then the true one."""
        forged = Reply.FromString(reply)
        signed_in(forged).signature = self.forge(signed_in(forged))
        self.tried += 1
        with pytest.raises(Refusal) as refusal:
            take(country, serialise(forged))
        assert refusal.value.code is ReasonCode.NOT_AUTHENTIC
        take(country, reply)

    def set_up(self) -> None:
        coordinator = self.world.coordinator
        steps = {
            "bundle": (coordinator.bundle_request, coordinator.take_bundle),
            "encapsulate": (coordinator.encapsulate_request, coordinator.take_encapsulation),
            "confirm": (coordinator.confirm_request, coordinator.take_confirmation),
        }
        for step, (ask, take) in steps.items():
            for country in self.world.terms.roster:
                self.take(take, country, self.request_from(country, step, ask(country)))

    def round(self, number: int, countries: tuple[str, ...]) -> CoordinatorRound:
        round_ = self.world.coordinator.begin_round(number, "train", MODEL)
        zeros = np.zeros(TRAIN.dimension, np.int64)
        for country in countries:
            request = round_.contribute_request(country)
            reply = self.request_from(country, "contribute", request, zeros, zeros)
            self.take(round_.take_contribution, country, reply)
        chosen = round_.close()
        if round_.smaller:
            for country in chosen:
                reply = self.request_from(country, "agree", round_.agree_request(country))
                self.take(round_.take_assent, country, reply)
        for country in chosen:
            reply = self.request_from(country, "answer", round_.answer_request(country))
            if round_.smaller:
                self.take(round_.take_answer, country, reply)
            else:  # an answer holds shares only, which are checked against commitments
                round_.take_answer(country, reply)
        return round_


def test_no_message_of_a_run_is_accepted_with_one_valid_half(forge: Forge) -> None:
    world = world_of(4)
    forging = Forging(world, forge)
    forging.set_up()
    for number, countries in ((1, world.terms.roster), (2, world.terms.roster[:3])):
        opened = forging.round(number, countries).open()
        assert isinstance(opened, OpenedSum)
        assert opened.countries == countries
    # 4 countries, 3 steps; 4 and 3 of them in 2 and 3 phases; what requests show; replies, but
    # for the answers of all
    requests, replies = 3 * 4 + 2 * 4 + 3 * 3, 3 * 4 + 4 + 3 * 3
    expected = 2 * 4 * 4 + 4 * 4 + 3 * (3 + 3)
    assert forging.tried == requests + replies + expected


def test_a_message_with_two_halves_is_refused_if_the_agreement_asks_for_one() -> None:
    """The message is signed under the other suite: a message does not choose how it is read."""
    other = world_of(4)
    terms = other.terms
    peers = {country: KEYS[country].public.ed25519 for country in terms.roster}
    coordinator = CoordinatorRun(
        terms,
        peers=peers,
        sign=KEYS["coordinator"].ed25519.sign,
        versions=versions_of(terms.roster),
    )
    reply = other.countries["AT"].bundle(other.coordinator.bundle_request("AT"))
    with pytest.raises(Refusal) as refusal:
        coordinator.take_bundle("AT", reply)
    assert refusal.value.code is ReasonCode.NOT_AUTHENTIC


# ---- by real nodes


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    federation = NodeFederation(tmp_path / "federation", changes=BOTH)
    federation.sync()
    yield federation
    federation.close()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.approved()


def only_ed25519(federation: NodeFederation, country: str) -> None:
    """Have a country's officer sign keys of the old form."""
    federation.documents.folders[country].set_node(node_keys(country))
    federation.hand_over(country)
    federation.sync()


def test_nodes_take_a_run_to_its_sum(federation: NodeFederation, study: Study) -> None:
    run = federation.ready(study)
    opened = run.sum(1, "histogram")
    assert isinstance(opened, OpenedSum)
    assert opened.countries == COUNTRIES


def test_nodes_refuse_requests_with_one_valid_half(
    federation: NodeFederation, study: Study
) -> None:
    """They refuse new requests and those that they have answered."""
    run, node = federation.run(study), federation.nodes["DK"]
    request = run.request("bundle", "DK")
    for known in (False, True):
        for forge in FORGERIES.values():
            envelope = Envelope.FromString(request)
            envelope.signed.signature = forge(envelope.signed)
            reply = node.handle(envelope.SerializeToString())
            assert code_of(reply) is ReasonCode.NOT_AUTHENTIC
        assert known or code_of(node.handle(request)) is None


def test_a_request_that_is_signed_again_gets_the_same_reply(
    federation: NodeFederation, study: Study
) -> None:
    """ML-DSA signatures are random: a restarted coordinator signs the same words differently."""
    run = federation.run(study, run_id=b"r" * 16)
    again = federation.run(study, run_id=b"r" * 16)
    first, second = run.request("bundle", "DK"), again.request("bundle", "DK")
    assert first != second
    node = federation.nodes["DK"]
    assert node.handle(first) == node.handle(second) == node.handle(first)


def test_a_country_that_signs_with_ed25519_only_gives_a_clear_error(
    federation: NodeFederation, study: Study
) -> None:
    """Other nodes and its own node refuse: a run needs every country of its roster."""
    only_ed25519(federation, "NO")
    run = federation.run(study)
    for country in ("DK", "NO"):
        reply = federation.nodes[country].handle(run.request("bundle", country))
        assert code_of(reply) is ReasonCode.ROSTER
        refusal = last_refusal(federation.nodes[country])
        assert refusal["what"] == "The node of NO signs with Ed25519 only"
        assert "ML-DSA-65" in refusal["why"]
        assert "pratique-node rotate-keys" in refusal["fix"]


def test_a_node_with_an_old_key_signs_nothing(federation: NodeFederation, study: Study) -> None:
    """The documents name a key of two halves; the store has its Ed25519 half alone."""
    assert federation.nodes["DK"]
    store = federation.store("DK")
    store.put("identity", two_algorithm_key(1_000).ed25519.to_bytes())
    federation.restart("DK")
    reply = federation.nodes["DK"].handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.ROSTER
    assert "Ed25519 only" in last_refusal(federation.nodes["DK"])["what"]


def test_the_view_names_who_cannot_sign(federation: NodeFederation) -> None:
    assert federation.documents.view().ed25519_only(COUNTRIES) == []
    only_ed25519(federation, "NO")
    view = federation.documents.view()
    assert view.ed25519_only(COUNTRIES) == ["NO"]
    view.require_signature_algorithms(["DK", "EE"])
    with pytest.raises(DocumentFault, match="node of NO signs with Ed25519 only"):
        view.require_signature_algorithms(COUNTRIES)


def test_keys_of_two_halves_can_be_used_under_an_agreement_that_asks_for_one(
    tmp_path: Path,
) -> None:
    """New keys have two halves; if the agreement does not ask for both, the Ed25519 half signs."""
    federation = NodeFederation(tmp_path / "federation")
    federation.sync()
    study = federation.approved()
    for country in COUNTRIES:
        federation.documents.folders[country].set_node(node_keys(country, both=True))
        federation.hand_over(country)
        store = federation.store(country)
        store.put("identity", two_algorithm_key(1_000 + 10 * COUNTRIES.index(country)).to_bytes())
        federation.restart(country)
    federation.sync()
    run = federation.ready(study)
    reply = federation.nodes["DK"].handle(run.request("bundle", "DK"))
    assert len(signed_in(Reply.FromString(reply)).signature) == 64
    assert isinstance(run.sum(1, "histogram"), OpenedSum)
    federation.close()
