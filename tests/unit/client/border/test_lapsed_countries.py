"""A country whose documents lapse stops the runs that it is in, and no other run."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from client.node import Node
from governance.documents.study import Study
from governance.trust import signing
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.messages import read_reply
from protocols.proto.round_pb2 import Bundle
from protocols.wire.document_versions import DocumentVersions
from tests.support.node_federation import NodeFederation, code_of, last_refusal

PHASE = "histogram"
INSIDE = ("DK", "EE", "NO")
SHORT = timedelta(minutes=1)


@pytest.fixture
def without(federation: NodeFederation) -> Study:
    """A study in which PT takes no part."""
    return federation.approved("PT", id="another-study", countries=list(INSIDE))


@pytest.fixture
def shorten(federation: NodeFederation, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that publishes documents of PT that expire after a minute."""

    def publish() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(signing, "COUNTRY_LIFE", SHORT)
            federation.hand_over("PT")

    return publish


def lapse(federation: NodeFederation) -> None:
    """Let the published documents of PT expire, and no others."""
    federation.documents.now += 2 * SHORT


def held_of(node: Node, federation: NodeFederation) -> DocumentVersions:
    return node.parts.documents.current(federation.clock()).versions


@pytest.mark.parametrize("fetched", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_lapsed_country_outside_the_study_does_not_stop_a_run(
    federation: NodeFederation,
    without: Study,
    shorten: Callable[[], None],
    *,
    fetched: bool,
    begun: bool,
) -> None:
    """Whether or not the nodes fetched its documents in time, before set-up or after it."""
    shorten()
    if fetched:
        federation.sync()
    run = federation.run(without)
    if begun:
        run.set_up()
    lapse(federation)
    if not begun:
        run.set_up()
    assert "PT" not in held_of(federation.nodes["DK"], federation).countries
    assert isinstance(run.sum(1, PHASE), OpenedSum)


def test_a_country_that_lapses_repeatedly_does_not_stop_runs_of_others(
    federation: NodeFederation, without: Study, shorten: Callable[[], None]
) -> None:
    run = federation.run(without)
    for step in ("bundle", "encapsulation", "confirmation"):
        shorten()
        federation.nodes["DK"].sync()
        lapse(federation)
        federation.sync()  # the others find them lapsed
        for country in INSIDE:
            run.take(step, country, federation.nodes[country].handle(run.request(step, country)))
    assert isinstance(run.sum(1, PHASE), OpenedSum)


def test_a_run_waits_for_one_of_its_countries_whose_documents_lapsed(
    federation: NodeFederation, study: Study, shorten: Callable[[], None]
) -> None:
    """Its keys have no valid signature; once its officer signs again, the run continues."""
    run = federation.ready(study)
    shorten()
    federation.sync()
    lapse(federation)
    coordinator_round = run.coordinator.begin_round(1, PHASE, b"")
    requests = {
        country: coordinator_round.contribute_request(country) for country in study.countries
    }
    for country in INSIDE:
        assert code_of(federation.nodes[country].handle(requests[country])) is ReasonCode.ROSTER
    refusal = last_refusal(federation.nodes["DK"])
    assert "PT" in refusal["what"]
    assert "expired" in refusal["why"]
    assert "renew" in refusal["fix"]
    federation.hand_over("PT")
    federation.sync()
    for country, frame in requests.items():
        coordinator_round.take_contribution(country, federation.nodes[country].handle(frame))
    assert coordinator_round.contributed == study.countries


def test_no_node_begins_a_run_with_a_lapsed_country(
    federation: NodeFederation, study: Study, shorten: Callable[[], None]
) -> None:
    shorten()
    run = federation.run(study)
    lapse(federation)
    for country in INSIDE:
        reply = federation.nodes[country].handle(run.request("bundle", country))
        assert code_of(reply) is ReasonCode.ROSTER


def test_a_claim_to_documents_that_were_never_verified_is_refused(
    federation: NodeFederation, without: Study, shorten: Callable[[], None]
) -> None:
    """The lapsed documents are version 3: nobody knows the contents of version 4."""
    shorten()
    federation.sync()
    lapse(federation)
    verified = federation.nodes["DK"].parts.documents.current(federation.clock()).verified
    newer = {**verified.countries, "PT": verified.countries["PT"] + 1}
    claimed = DocumentVersions(verified.root, verified.targets, newer)
    run = federation.run(without, versions=claimed)
    reply = federation.nodes["DK"].handle(run.request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.DOCUMENTS_BEHIND


def test_a_reply_names_verified_versions_although_they_lapsed(
    federation: NodeFederation, without: Study, shorten: Callable[[], None]
) -> None:
    """Otherwise a party that gets older documents, not lapsed yet, would continue with these."""
    shorten()
    federation.sync()
    known = held_of(federation.nodes["DK"], federation)
    lapse(federation)
    run = federation.run(without)
    reply = federation.nodes["DK"].handle(run.request("bundle", "DK"))
    body = read_reply(reply, "DK", "bundle").bundle.body
    assert DocumentVersions.from_proto(Bundle.FromString(body).versions) == known
