"""A node that was off for weeks comes back.

It delays others no more than needed, releases nothing before it has the current documents, and
verifies every root that it missed.
"""

from datetime import timedelta

import pytest

from client.node import Node
from client.status.summary import LinkStatus
from governance.audit.events import EventKind
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.files import write_atomic
from governance.trust.layout import TOP_LIFE
from protocols.errors import ReasonCode
from tests.support.documents import COUNTRIES, DAY
from tests.support.narrowing import opened_sum
from tests.support.node_federation import NodeFederation, code_of, log_lines

WEEK, MONTH = 7 * DAY, 31 * DAY
PRESENT = ("DK", "NO", "PT")


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.approved(expires="2027-12-31")


def amend(federation: NodeFederation) -> None:
    """Sign root and targets again, which adds one root to verify."""
    federation.documents.store.draft_renewal(federation.documents.now)
    federation.documents.sign(*PRESENT)
    federation.documents.publish()


def leave_alone(federation: NodeFederation, away: str, span: timedelta) -> bytes:
    """Let time pass for all but one node; return what its officer would give it."""
    documents, until = federation.documents, federation.documents.now + span
    bundle = b""
    while documents.now < until:
        documents.now += min(3 * DAY, until - documents.now)
        documents.refresh()
        bundle = documents.sign_and_submit(away)
        for country in PRESENT:
            federation.hand_over(country)
            federation.nodes[country].sync()
    return bundle


def kinds(node: Node) -> list[str]:
    lines = log_lines(node)
    return [line.split('"kind":"')[1].split('"')[0] for line in lines]


@pytest.mark.parametrize("span", [WEEK + DAY, pytest.param(MONTH, marks=pytest.mark.slow)])
def test_a_node_comes_back_and_takes_part(
    federation: NodeFederation, study: Study, span: timedelta
) -> None:
    federation.nodes["EE"].parts.engine.dispose()
    for _ in range(3):
        amend(federation)
    bundle = leave_alone(federation, "EE", span)
    node = federation.restart("EE")
    write_atomic(federation.home("EE").officer / "country-EE.json", bundle)
    node.do_upkeep()
    state = node.parts.documents.current(federation.clock())
    assert (state.versions.root, state.versions.targets) == (4, 4)
    assert set(state.view.countries) == set(COUNTRIES)
    run = federation.ready(study)
    opened = opened_sum(run.sum(1, "histogram"))
    assert opened.countries == COUNTRIES


def test_it_releases_nothing_before_it_has_the_current_documents(
    federation: NodeFederation, study: Study
) -> None:
    """This holds while its link is down, and while a coordinator still shows it old files."""
    old = federation.documents.snapshot_of_store()
    bundle = leave_alone(federation, "EE", WEEK + DAY)
    for fetch in (lambda _: None, old.get):
        node = federation.restart("EE", fetch=fetch)
        node.deliver(bundle)
        node.do_upkeep()
        run = federation.run(study)
        assert code_of(node.handle(run.request("bundle", "EE"))) is ReasonCode.DOCUMENTS_EXPIRED
        assert EventKind.BUDGET_CHARGED not in kinds(node)
        assert "documents" in node.status(LinkStatus(connected=True)).waiting_for


def test_it_waits_for_its_officer_s_bundle(federation: NodeFederation, study: Study) -> None:
    leave_alone(federation, "EE", WEEK + DAY)
    node = federation.restart("EE")
    node.sync()
    run = federation.run(study)
    assert code_of(node.handle(run.request("bundle", "EE"))) is ReasonCode.DOCUMENTS_EXPIRED
    with pytest.raises(DocumentFault, match="expired"):
        node.parts.documents.own(federation.clock())


def test_the_other_countries_continue_meanwhile(federation: NodeFederation, study: Study) -> None:
    leave_alone(federation, "EE", WEEK + DAY)
    for country in PRESENT:
        view = federation.nodes[country].parts.documents.current(federation.clock()).view
        assert set(view.countries) == set(COUNTRIES)


def test_it_keeps_ledger_log_and_runs(federation: NodeFederation, study: Study) -> None:
    run = federation.ready(study)
    run.sum(1, "histogram")
    before, entries = kinds(federation.nodes["EE"]), federation.nodes["EE"].parts.ledger.entries()
    bundle = leave_alone(federation, "EE", WEEK + DAY)
    node = federation.restart("EE")
    node.deliver(bundle)
    node.do_upkeep()
    assert kinds(node)[: len(before)] == before
    assert node.parts.ledger.entries() == entries


def test_an_expired_old_root_is_replaced_by_its_successors(
    federation: NodeFederation, study: Study
) -> None:
    """The countries signed again in time; the root that the node knew expired in its absence."""
    documents = federation.documents
    documents.now += TOP_LIFE - 10 * DAY
    documents.refresh()
    amend(federation)
    documents.now += 30 * DAY
    documents.refresh()
    for country in COUNTRIES:
        federation.hand_over(country)
    node = federation.restart("EE")
    node.sync()
    assert node.parts.documents.current(documents.now).versions.root == 2


def test_everything_stops_if_nobody_signed_again(federation: NodeFederation, study: Study) -> None:
    documents = federation.documents
    signed_until = documents.view().signed_until
    documents.now = signed_until - timedelta(hours=1)
    documents.refresh()
    federation.sync()
    documents.now = signed_until + timedelta(hours=1)
    with pytest.raises(DocumentFault, match="expired"):
        federation.nodes["EE"].sync()


def test_an_older_state_than_it_knew_is_refused(federation: NodeFederation, study: Study) -> None:
    amend(federation)
    before = federation.documents.snapshot_of_store()
    federation.sync()
    amend(federation)
    federation.sync()
    node = federation.restart("EE", fetch=before.get)
    with pytest.raises(DocumentFault):
        node.sync()
