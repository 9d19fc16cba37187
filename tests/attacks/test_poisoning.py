"""A country that sends wrong numbers or wrong shares: what the sum shows, and whom it names.

The hostile country has its real keys, permits and masks; it adds anything to its contribution, or
answers with anything. Masks hide what it sent, so the figure is named and never a country. A wrong
share is signed, so its sender is named, and no innocent country.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from governance.documents.study import Study
from governance.results.result import INTEGRITY
from protocols.private_sum import shares
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from protocols.private_sum.share_faults import DISPUTED_BY_MANY, FALSE_REPORT, HANDED_IN
from protocols.proto.round_pb2 import Answer, Reply
from protocols.wire.signed_message import serialise
from server.learning.plausibility import BEYOND, WHOSE
from server.runs.procedure import Outcome, RunVoid, run_procedure
from server.runs.rounds import RoundDriver, RoundReport
from tests.support.coordinator_services import NodesCarrier
from tests.support.direct_carrier import DrivenRun
from tests.support.documents import COUNTRIES, training_fields, with_schedule
from tests.support.node_federation import NodeFederation
from tests.support.protocol_world import IDENTITIES, ProtocolWorld, with_body

HOSTILE = "PT"
SCALE = 128
"""Lattice units of one patient in tables."""
LEAST_NOISE = 3_000
WITH_EVALUATION: dict[str, Any] = {"evaluation": {"held_out": 0.25, "bins": 4}}

Vector = NDArray[np.int64]
Lie = Callable[[int], Vector]
"""Returns what a hostile country adds to a contribution of this many coordinates."""


@dataclass
class HostileNoise:
    """Adds a lie in place of noise, except to the count of the cohort."""

    lie: Lie

    def draw(self, std: int, size: int) -> Vector:
        del std
        return np.zeros(1, np.int64) if size == 1 else self.lie(size)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    nodes = NodeFederation(tmp_path / "federation")
    yield nodes
    nodes.close()


def run(federation: NodeFederation, asked: Study, lie: Lie) -> tuple[Outcome, list[RoundReport]]:
    """Run a study in which one country lies in every round."""
    federation.approve(asked)
    federation.nodes[HOSTILE] = federation.start(HOSTILE, noise=HostileNoise(lie))
    run_of_study, reports = federation.run(asked), list[RoundReport]()
    driver = RoundDriver(
        run_of_study.coordinator,
        run_of_study.terms.roster,
        NodesCarrier(federation),
        seconds=9.0,
        keep_closed=lambda *_: None,
    )
    driver.set_up()
    outcome = run_procedure(asked, driver, lambda report, *_: reports.append(report))
    return outcome, reports


def training(federation: NodeFederation, **task: Any) -> Study:
    fields = federation.study(**training_fields(3, **task)).model_dump(mode="json")
    return with_schedule(Study.model_validate(fields | {"mechanisms": []}), LEAST_NOISE)


def require_void(void: RunVoid, figure: str) -> None:
    """Require that a void run names the figure, what it may mean, and no country."""
    text = str(void)
    assert f"{BEYOND}: {figure}" in void.why
    assert WHOSE in text
    assert not any(country in text for country in COUNTRIES)


def patients(cell: int, count: int) -> Lie:
    def lie(size: int) -> Vector:
        added = np.zeros(size, np.int64)
        added[cell] = count * SCALE
        return added

    return lie


@pytest.mark.parametrize(
    ("lie", "figure"),
    [
        (patients(0, 1_000_000), "a cell of the table is 1,000,"),
        (patients(3, -20_000), "a cell of the table is -19,9"),
    ],
    ids=["a million", "fewer than none"],
)
def test_counts_beyond_the_bound_are_not_released(
    federation: NodeFederation, lie: Lie, figure: str
) -> None:
    with pytest.raises(RunVoid) as void:
        run(federation, federation.study(), lie)
    require_void(void.value, figure)


def test_a_model_that_one_country_writes_is_not_released(federation: NodeFederation) -> None:
    """Three void rounds in a row end the run."""
    asked = training(federation)
    reach = 100 * asked.mechanisms[1].patients_bound * int(asked.mechanisms[1].sensitivity)
    with pytest.raises(RunVoid) as void:
        run(federation, asked, lambda size: np.full(size, reach))
    require_void(void.value, "a coordinate of the training sum")


def test_one_poisoned_round_changes_no_weight(federation: NodeFederation) -> None:
    asked = training(federation)
    reach = 100 * asked.mechanisms[1].patients_bound * int(asked.mechanisms[1].sensitivity)
    lies = iter([reach, 0, 0])
    outcome, reports = run(federation, asked, lambda size: np.full(size, next(lies)))
    assert [isinstance(report.outcome, OpenedSum) for report in reports] == [False, True, True]
    assert reports[0].causes == {}
    assert outcome.model is not None
    assert np.abs(outcome.model).max() < 10
    assert outcome.part.rounds_void == 1


def right_predictions(count: int) -> Lie:
    """Claim this many patients, ill and well, all predicted right; trains honestly."""

    def lie(size: int) -> Vector:
        added = np.zeros(size, np.int64)
        if size == 8:  # four bins of scores, two labels
            added[[0, 7]] = count * SCALE // 2
        return added

    return lie


def test_an_evaluation_of_a_million_patients_is_not_released(federation: NodeFederation) -> None:
    with pytest.raises(RunVoid) as void:
        run(federation, training(federation, **WITH_EVALUATION), right_predictions(1_000_000))
    require_void(void.value, "a cell of the evaluation is 500,")


def test_an_evaluation_within_the_bounds_can_be_forged_and_the_result_says_so(
    federation: NodeFederation,
) -> None:
    """No check of sums can find it: there may be this many patients."""
    asked = training(federation, **WITH_EVALUATION)
    outcome, _ = run(federation, asked, right_predictions(2_400))
    assert outcome.findings["everybody"]["accuracy"]["value"] > 0.95
    assert "A dishonest country can spoil this result" in INTEGRITY
    assert "figures of its evaluation" in INTEGRITY


# ---- shares ------------------------------------------------------------------------------


def garbage_shares(run_of: DrivenRun, country: str) -> Callable[[bytes], bytes]:
    """Answer with random shares, signed, as a country that wants no sum to open."""

    def answer(frame: bytes) -> bytes:
        signed = Reply.FromString(run_of.carrier.honest(country, frame)).answer
        body = Answer.FromString(signed.body)
        count = len(body.shares) // 32
        body.shares = b"".join(shares.draw_element(os.urandom) for _ in range(count))
        return serialise(Reply(answer=with_body(signed, serialise(body), IDENTITIES[country])))

    return answer


def false_reports(run_of: DrivenRun, country: str, owners: list[str]) -> Callable[[bytes], bytes]:
    """Answer that the shares of these owners cannot be used; the keys shown are the true ones."""

    def answer(frame: bytes) -> bytes:
        run_here = run_of.carrier._world.countries[country]
        opened = run_here._state.open_round
        assert opened is not None
        signed = Reply.FromString(run_of.carrier.honest(country, frame)).answer
        body = Answer.FromString(signed.body)
        body.unopenable.extend(owners)
        body.keys = b"".join(opened.seals[owner] for owner in owners)
        return serialise(Reply(answer=with_body(signed, serialise(body), IDENTITIES[country])))

    return answer


def garbage_seals(run_of: DrivenRun, country: str) -> Callable[[bytes], bytes]:
    """Contribute with sealed shares that nobody can open."""

    def contribute(frame: bytes) -> bytes:
        reply = Reply.FromString(run_of.carrier.honest(country, frame))
        reply.contribution.shares = os.urandom(len(reply.contribution.shares))
        return serialise(reply)

    return contribute


def driven(size: int, colluding: int) -> DrivenRun:
    run_of = DrivenRun(ProtocolWorld.of(size, colluding=colluding, honest=2))
    run_of.driver.set_up()
    return run_of


def require_named(report: RoundReport, culprit: str, why: str, others: tuple[str, ...]) -> None:
    """Require a void round that names the culprit, and no other country that took part."""
    assert isinstance(report.outcome, VoidRound)
    assert "seed cannot be recovered" in report.outcome.reason
    assert report.outcome.missing == (culprit,)
    assert report.causes[culprit] == why
    innocent = set(others) - {culprit}
    assert not innocent & report.causes.keys()
    assert not any(country in report.outcome.reason for country in innocent)


@pytest.mark.parametrize("culprit", ["AT", "BE", "CZ"])
def test_garbage_shares_of_three_countries_name_their_sender(culprit: str) -> None:
    run_of = driven(3, 1)
    run_of.carrier.misbehave(culprit, "answer", garbage_shares(run_of, culprit))
    require_named(run_of.round(1), culprit, HANDED_IN, run_of.roster)
    run_of.require(run_of.round(2), run_of.roster)


@pytest.mark.parametrize("culprit", ["AT", "BE", "CZ"])
def test_garbage_shares_at_a_drop_out_name_their_sender(culprit: str) -> None:
    run_of = driven(4, 1)
    run_of.drop_replies(("DK",), "contribute")
    run_of.carrier.misbehave(culprit, "answer", garbage_shares(run_of, culprit))
    require_named(run_of.round(1), culprit, HANDED_IN, run_of.roster[:3])


def test_a_false_report_about_a_share_names_the_one_who_reports() -> None:
    run_of = driven(3, 1)
    run_of.carrier.misbehave("BE", "answer", false_reports(run_of, "BE", ["CZ"]))
    require_named(run_of.round(1), "BE", FALSE_REPORT, run_of.roster)


def test_sealed_garbage_names_the_one_who_sealed_it() -> None:
    run_of = driven(3, 1)
    run_of.carrier.misbehave("CZ", "contribute", garbage_seals(run_of, "CZ"))
    require_named(run_of.round(1), "CZ", DISPUTED_BY_MANY, run_of.roster)


def test_garbage_words_and_mask_keys_void_the_round_and_name_nobody() -> None:
    run_of = driven(4, 1)
    run_of.drop_replies(("DK",), "contribute")

    def other_masks(frame: bytes) -> bytes:
        signed = Reply.FromString(run_of.carrier.honest("AT", frame)).answer
        body = Answer.FromString(signed.body)
        body.masks = os.urandom(len(body.masks))
        return serialise(Reply(answer=with_body(signed, serialise(body), IDENTITIES["AT"])))

    run_of.carrier.misbehave("AT", "answer", other_masks)
    report = run_of.round(1)
    assert report.outcome == VoidRound("the check coordinates of the sum are not zero", ())
    assert set(report.causes) == {"DK"}


@pytest.mark.parametrize("culprit", ["AT", "EE"])
def test_a_sum_that_opens_all_the_same_names_the_sender_of_garbage(culprit: str) -> None:
    run_of = driven(5, 1)
    run_of.carrier.misbehave(culprit, "answer", garbage_shares(run_of, culprit))
    report = run_of.round(1)
    run_of.require(report, run_of.roster)
    # t = 4 answers open the sum: the fifth is not looked at
    assert report.causes == ({} if culprit == "EE" else {culprit: HANDED_IN})
