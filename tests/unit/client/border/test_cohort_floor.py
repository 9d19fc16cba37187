"""The cohort floor: charged, counted once for each permit, and only `declined` outside."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import insert

from client.border.cohort_floor import CohortFloor
from client.node import Node
from client.state.count_id import CountId
from client.state.tables import cohort_counts
from governance.documents.study import Study
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.messages import refusal_reply
from tests.support.documents import with_schedule
from tests.support.node_federation import (
    NodeFederation,
    code_of,
    last_refusal,
    log_lines,
    records,
)


class Shifted:
    """A noise source that always draws the same number, and counts its draws."""

    def __init__(self, value: int) -> None:
        self.value, self.draws = value, 0

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        self.draws += 1
        return np.full(size, self.value, np.int64)


def with_patients(
    federation: NodeFederation, patients: int, noise: int = 0
) -> tuple[Node, Shifted]:
    source = Shifted(noise)
    federation.put_records("DK", records(patients))
    return federation.restart("DK", noise=source), source


def ask(federation: NodeFederation, node: Node, study: Study) -> ReasonCode | None:
    return code_of(node.handle(federation.run(study).request("bundle", "DK")))


def charged(node: Node) -> list[str]:
    return [entry.phase for entry in node.parts.ledger.entries()]


@pytest.mark.parametrize(
    ("patients", "answered"), [(63, True), (62, False), (50, False), (49, False), (0, False)]
)
def test_the_floor_is_the_smallest_cohort_of_the_agreement_with_room_for_the_noise(
    federation: NodeFederation, study: Study, patients: int, answered: bool
) -> None:
    """The noise has a standard deviation of 4.05 patients; 3.09 of these are 12.5 patients."""
    node, _ = with_patients(federation, patients)
    assert (ask(federation, node, study) is None) is answered


def test_only_eligible_patients_are_counted(federation: NodeFederation, study: Study) -> None:
    """The study is about patients of forty and older; eighty children are no cohort."""
    federation.put_records("DK", records(80, age=0))
    node = federation.restart("DK", noise=Shifted(0))
    assert ask(federation, node, study) is ReasonCode.DECLINED


@pytest.mark.parametrize(("noise", "answered"), [(-128 * 18, False), (-128 * 17, True)])
def test_the_noisy_count_decides_and_not_the_true_one(
    federation: NodeFederation, study: Study, noise: int, answered: bool
) -> None:
    node, _ = with_patients(federation, 80, noise)
    assert (ask(federation, node, study) is None) is answered


def test_the_coordinator_gets_declined_and_nothing_else(
    federation: NodeFederation, study: Study
) -> None:
    node, _ = with_patients(federation, 10)
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert reply == refusal_reply(ReasonCode.DECLINED)
    refusal = last_refusal(node)
    assert "too small" in refusal["what"]
    assert refusal["clause"] == "agreement/smallest-cohort"
    assert "50" in refusal["why"]


def test_the_count_is_charged_before_it_is_made(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, source = with_patients(federation, 80)
    charged_phases: list[list[str]] = []
    inner = source.draw

    def draw(std: int, size: int) -> NDArray[np.int64]:
        charged_phases.append(charged(node))
        return inner(std, size)

    monkeypatch.setattr(source, "draw", draw)
    assert ask(federation, node, study) is None
    assert charged_phases == [["cohort-floor"]]


@pytest.mark.parametrize("patients", [80, 10])
def test_the_count_is_made_once_for_each_permit(
    federation: NodeFederation, study: Study, patients: int
) -> None:
    node, source = with_patients(federation, patients)
    first = ask(federation, node, study)
    for _ in range(3):
        assert ask(federation, node, study) is first
    node = federation.restart("DK", noise=source)
    assert ask(federation, node, study) is first
    assert source.draws == 1
    assert charged(node) == ["cohort-floor"]


@pytest.mark.parametrize(("before", "after"), [(10, 80), (80, 10), (80, 81)])
def test_other_records_are_not_counted_under_the_same_permit(
    federation: NodeFederation, study: Study, before: int, after: int
) -> None:
    """Each count costs ε, and the study's ε covers one count."""
    node, _ = with_patients(federation, before)
    ask(federation, node, study)
    node, source = with_patients(federation, after)
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert reply == refusal_reply(ReasonCode.DECLINED)
    refusal = last_refusal(node)
    assert refusal["clause"] == "node/records-changed"
    assert "have changed since the cohort was counted under this permit" in refusal["what"]
    assert f"`pratique-officer approve {study.id} --reconsider`" in refusal["fix"]
    assert source.draws == 0
    assert charged(node) == ["cohort-floor"]


def test_records_read_again_while_they_are_counted_are_declined(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count is stored with the version of the records that were counted."""
    node, source = with_patients(federation, 80)
    counted = node.parts.record_store.records().version
    inner = source.draw

    def draw(std: int, size: int) -> Any:
        federation.put_records("DK", records(10))
        node.parts.record_store.refresh()
        return inner(std, size)

    with monkeypatch.context() as patch:
        patch.setattr(source, "draw", draw)
        assert ask(federation, node, study) is ReasonCode.DECLINED
    with transaction(node.parts.engine) as connection:
        (row,) = connection.execute(cohort_counts.select()).all()
    assert (row.data_version, row.decision) == (counted, "enough")
    assert ask(federation, node, study) is ReasonCode.DECLINED
    assert last_refusal(node)["clause"] == "node/records-changed"


def test_restored_records_pass_with_the_stored_count(
    federation: NodeFederation, study: Study
) -> None:
    node, _ = with_patients(federation, 80)
    assert ask(federation, node, study) is None
    node, _ = with_patients(federation, 70)
    assert ask(federation, node, study) is ReasonCode.DECLINED
    node, source = with_patients(federation, 80)
    assert ask(federation, node, study) is None
    assert source.draws == 0


def test_a_renewed_permit_counts_the_changed_records(
    federation: NodeFederation, study: Study
) -> None:
    node, _ = with_patients(federation, 10)
    assert ask(federation, node, study) is ReasonCode.DECLINED
    node, source = with_patients(federation, 80)
    federation.permit("DK", study, sentence="Approved again: the records have changed.")
    assert ask(federation, node, study) is None
    assert source.draws == 1
    assert charged(node) == ["cohort-floor", "cohort-floor"]


def test_the_latest_count_in_an_older_database_is_used(
    federation: NodeFederation, study: Study
) -> None:
    """An earlier release stored a count for each version of the records."""
    node, source = with_patients(federation, 80)
    own = node.parts.documents.own(federation.clock()).permit(study.digest)
    assert own is not None
    now, version = federation.clock(), node.parts.record_store.records().version
    rows = [(timedelta(0), version, "enough"), (timedelta(days=-1), "sha256:old", "too-few")]
    with transaction(node.parts.engine) as connection:
        for age, counted, decision in rows:
            row = {"permit": own.digest, "data_version": counted, "decision": decision}
            connection.execute(insert(cohort_counts).values(created=now + age, **row))
    assert ask(federation, node, study) is None
    assert (source.draws, charged(node)) == (0, [])


@pytest.mark.parametrize(("patients", "answer"), [(80, None), (10, ReasonCode.DECLINED)])
def test_another_permit_uses_the_count_of_the_same_cohort_and_records(
    federation: NodeFederation, study: Study, patients: int, answer: ReasonCode | None
) -> None:
    node, source = with_patients(federation, patients)
    assert ask(federation, node, study) is answer
    federation.permit("DK", study, sentence="Approved again, with other words.")
    other = federation.approved(id="another-study", privacy={"epsilon": 0.4, "delta": 1e-5})
    assert ask(federation, node, study) is answer
    assert ask(federation, node, other) is answer
    assert source.draws == 1
    assert charged(node) == ["cohort-floor"]


def test_a_count_that_another_study_has_charged_and_lost_is_made_again(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, source = with_patients(federation, 80)
    other = federation.approved(id="another-study", privacy={"epsilon": 0.4, "delta": 1e-5})

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CohortFloor, "_keep", die)
        with pytest.raises(KeyboardInterrupt):
            ask(federation, node, study)
    assert ask(federation, node, other) is None
    assert charged(node) == ["cohort-floor"]
    assert source.draws == 2


def test_another_cohort_is_counted_and_charged_as_well(
    federation: NodeFederation, study: Study
) -> None:
    node, source = with_patients(federation, 80)
    everybody = federation.approved(id="everybody", population={"register": "patients"})
    for asked in (study, everybody, study, everybody):
        assert ask(federation, node, asked) is None
    assert source.draws == 2
    assert charged(node) == ["cohort-floor", "cohort-floor"]


def test_another_permit_gets_another_count_if_the_agreement_does_not_state_its_cost(
    tmp_path: Path,
) -> None:
    older = NodeFederation(tmp_path / "older", changes={"cohort_count": None})
    study = older.approve(with_schedule(older.study(), cohort_noise=3_000))
    node, source = with_patients(older, 150)
    for sentence in ("Approved.", "Approved again."):
        older.permit("DK", study, sentence=sentence)
        assert ask(older, node, study) is None
    assert source.draws == 2
    assert charged(node) == ["cohort-floor", "cohort-floor"]
    older.close()


def test_a_crash_after_the_charge_counts_again_and_charges_once(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of the first draw was neither stored nor sent."""
    node, source = with_patients(federation, 80)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CohortFloor, "_keep", die)
        with pytest.raises(KeyboardInterrupt):
            ask(federation, node, study)
    assert charged(node) == ["cohort-floor"]
    node = federation.restart("DK", noise=source)
    assert ask(federation, node, study) is None
    assert charged(node) == ["cohort-floor"]
    assert source.draws == 2


def test_the_count_is_charged_under_its_cohort_and_logged_under_the_run(
    federation: NodeFederation, study: Study
) -> None:
    node, _ = with_patients(federation, 80)
    run = federation.run(study)
    assert code_of(node.handle(run.request("bundle", "DK"))) is None
    own = node.parts.documents.own(federation.clock()).permit(study.digest)
    assert own is not None
    count = CountId.of(study, federation.documents.agreed, own)
    version = node.parts.record_store.records().version
    assert [entry.run for entry in node.parts.ledger.entries()] == [count.charged_as(version)]
    events = [json.loads(entry)["entry"] for entry in log_lines(node)]
    assert [e["run"] for e in events if e["kind"] == "budget-charged"] == [run.id]


def test_a_count_beyond_the_budget_is_refused_before_it_is_made(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, source = with_patients(federation, 80)

    def full(*_: Any, **__: Any) -> None:
        raise Refusal(ReasonCode.BUDGET, "The budget does not cover this study")

    monkeypatch.setattr(node.parts.ledger, "reserve", full)
    assert ask(federation, node, study) is ReasonCode.DECLINED
    assert "The budget does not cover this study" in last_refusal(node)["what"]
    assert source.draws == 0
