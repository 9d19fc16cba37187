"""A coordinator that runs a study over fewer countries than its officers read.

The agreement lets two countries be enough; the study asks four, so that the officers read "a sum is
opened over at least 3 of them". The coordinator begins runs over two, drops countries from sums,
and shows different countries different sets.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from governance.policy.minimum_countries import proposed_minimum
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.context import PERMITTED_MINIMUM
from protocols.private_sum.coordinator_round import VoidRound
from server.errors import CoordinatorFault
from tests.support.coordinator_services import Coordinator
from tests.support.documents import COUNTRIES, DAY, NOW
from tests.support.lying_coordinator import LyingCoordinator
from tests.support.node_federation import NodeFederation, Run
from tests.support.protocol_world import NAMES, ProtocolWorld

TWO = COUNTRIES[:2]
LOOSE = {"colluding": 0, "smallest_countries": 2}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    nodes = NodeFederation(tmp_path / "federation", changes=LOOSE)
    yield nodes
    nodes.close()


def permit_all(federation: NodeFederation, *, at_least: dict[str, int | None]) -> Study:
    """Have each country permit the study with the number that it demands; return the study."""
    asked = federation.study()
    federation.propose(asked)
    for country in COUNTRIES:
        conditions = PermitConditions(expires=NOW + 60 * DAY, minimum_countries=at_least[country])
        federation.permit(country, asked, conditions=conditions)
    federation.sync()
    return asked


def begun(federation: NodeFederation, asked: Study, roster: tuple[str, ...]) -> Run:
    """Return a run that the coordinator begins over any countries it likes."""
    return federation.run(asked, terms=replace(federation.terms(asked), roster=roster))


def refused_by(federation: NodeFederation, run: Run, country: str) -> ReasonCode | None:
    """Return the code with which a country refuses the first message of a run."""
    reply = federation.nodes[country].handle(run.request("bundle", country))
    try:
        run.take("bundle", country, reply)
    except Refusal as refusal:
        return refusal.code
    return None


def test_a_run_over_fewer_countries_than_the_officers_read_is_refused(
    federation: NodeFederation,
) -> None:
    stated = proposed_minimum(federation.study(), federation.documents.agreed)
    asked = permit_all(federation, at_least=dict.fromkeys(COUNTRIES, stated))
    run = begun(federation, asked, TWO)
    assert {refused_by(federation, run, country) for country in TWO} == {ReasonCode.ROSTER}
    *_, refusal = federation.nodes["DK"].parts.log.entries()
    assert PERMITTED_MINIMUM.encode() in refusal
    enough = begun(federation, asked, COUNTRIES[:3])
    assert refused_by(federation, enough, "DK") is None


def test_a_permit_from_before_the_field_keeps_its_meaning(federation: NodeFederation) -> None:
    asked = permit_all(federation, at_least=dict.fromkeys(COUNTRIES))
    run = begun(federation, asked, TWO)
    assert [refused_by(federation, run, country) for country in TWO] == [None, None]


def test_each_country_enforces_its_own_number(federation: NodeFederation) -> None:
    asked = permit_all(federation, at_least={"DK": 4, "EE": 3, "NO": None, "PT": 3})
    run = begun(federation, asked, ("DK", "EE", "NO"))
    codes = [refused_by(federation, run, country) for country in run.terms.roster]
    assert codes == [ReasonCode.ROSTER, None, None]
    all_four = begun(federation, asked, COUNTRIES)
    assert [refused_by(federation, all_four, country) for country in COUNTRIES] == [None] * 4


def test_a_higher_number_signed_while_a_run_is_on_counts_from_the_next_message(
    federation: NodeFederation,
) -> None:
    asked = permit_all(federation, at_least=dict.fromkeys(COUNTRIES, 3))
    run = begun(federation, asked, COUNTRIES[:3])
    assert refused_by(federation, run, "DK") is None
    for country in ("EE", "NO"):
        refused_by(federation, run, country)
    conditions = PermitConditions(expires=NOW + 60 * DAY, minimum_countries=4)
    federation.permit("DK", asked, conditions=conditions)
    federation.sync()
    reply = federation.nodes["DK"].handle(run.request("encapsulation", "DK"))
    with pytest.raises(Refusal) as refusal:
        run.take("encapsulation", "DK", reply)
    assert refusal.value.code is ReasonCode.ROSTER


@pytest.mark.parametrize("demanded", [4, 5])
@pytest.mark.parametrize("colluders", [(), ("EE",)], ids=["alone", "with EE"])
def test_no_set_below_the_number_opens_whatever_the_coordinator_asks(
    demanded: int, colluders: tuple[str, ...]
) -> None:
    """All choices of signatures and answers, with one country missing and with none."""
    for missing in ((), ("DK",)):
        world = ProtocolWorld.ready(5, colluding=1, honest=2, permitted_minimum=demanded)
        liar = LyingCoordinator(world, colluders)
        opened = liar.press(liar.contributed(without=missing))
        assert all(len({*chosen, *colluders}) >= demanded for chosen in opened)


def test_an_honest_coordinator_does_not_ask_for_less() -> None:
    world = ProtocolWorld.ready(5, colluding=1, honest=2, permitted_minimum=5)
    current = world.coordinator.begin_round(1, "train", b"weights")
    for country in NAMES[:4]:
        world.contribute(current, country)
    current.close()
    assert not current.openable
    assert current.open() == VoidRound("too few countries contributed: 4 of the 5 needed", ("EE",))


def test_the_coordinator_sees_who_demands_more(federation: NodeFederation, tmp_path: Path) -> None:
    asked = permit_all(federation, at_least={"DK": 9, "EE": 3, "NO": None, "PT": 4})
    coordinator = Coordinator(federation, tmp_path / "coordinator")
    with pytest.raises(CoordinatorFault, match="DK at least 9"):
        coordinator.ask("study_launch", name=asked.id)
