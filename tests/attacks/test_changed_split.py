"""Who trains and who is held out changes within a run: a patient could then pay for both.

Each test changes one thing that decides it, on a whole node, between two rounds of one run.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.border.door import SPLIT_CHANGED
from client.state.runs import RunStore
from client.tasks.prepared import PreparedTasks
from governance.documents.study import Study
from governance.policy.assessment import ledger_terms
from protocols.errors import ReasonCode
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from tests.support import node_federation
from tests.support.documents import training_fields
from tests.support.node_federation import (
    DICTIONARY,
    NodeFederation,
    Run,
    code_of,
    keyring_of,
    last_refusal,
    records,
)

ROUNDS = 2
RECORDS = "The records have changed since this run began"
SIDES = "What decides who trains and who is held out has changed since this run began"
NUMBERED = DICTIONARY.replace("patient: id", "patient: row number")
TASK = training_fields(ROUNDS, evaluation={"held_out": 0.5}, sampling_rate=1.0)


@pytest.fixture
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeFederation]:
    made = NodeFederation(tmp_path_factory.mktemp("split") / "federation")
    yield made
    made.close()


def write(federation: NodeFederation, **texts: str) -> None:
    """Replace DK's files, and have its running node read them."""
    node, folder = federation.nodes["DK"], federation.home("DK").path
    names = {"rows": "records.csv", "dictionary": "dictionary.yaml"}
    for name, text in texts.items():
        (folder / names[name]).write_text(text)
    node.parts.record_store.refresh()


def begun(federation: NodeFederation, study: Study) -> Run:
    """Return a run in which the first round is over."""
    run = federation.ready(study)
    run.sum(1, TRAIN, model(study))
    return run


def model(study: Study) -> bytes:
    task: Any = study.task
    return vector_to_bytes(np.zeros(task.dimension(study.features)))


def request(run: Run, study: Study, phase: str = TRAIN) -> bytes:
    """Return what DK is asked in the next round."""
    number = {TRAIN: 2, EVALUATE: 3}[phase]
    return run.coordinator.begin_round(number, phase, model(study)).contribute_request("DK")


def answers(federation: NodeFederation, frame: bytes) -> ReasonCode | None:
    """Return the reason code of DK's answer; None if it contributes."""
    return code_of(federation.nodes["DK"].handle(frame))


def with_another_secret(federation: NodeFederation, patch: pytest.MonkeyPatch) -> None:
    """Restart DK's node with another key of the split, as if that in its store were replaced."""

    def other(country: str, *, both: bool = False) -> Any:
        usual = keyring_of(country, both=both)
        return replace(usual, split_key=b"\x55" * 32) if country == "DK" else usual

    patch.setattr(node_federation, "keyring_of", other)
    federation.restart("DK")


def require_refused(federation: NodeFederation, code: Any, what: str) -> None:
    """The coordinator gets `declined` and no more; the operator and the officer get the reason."""
    assert code is ReasonCode.DECLINED
    assert what in str(last_refusal(federation.nodes["DK"]))


@pytest.mark.parametrize("phase", [TRAIN, EVALUATE])
def test_another_secret_ends_the_run(
    federation: NodeFederation, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = federation.approved(accounting=2, **TASK)
    run = begun(federation, study)
    with_another_secret(federation, monkeypatch)
    if phase == EVALUATE:
        run.sum(2, TRAIN, model(study), without=["DK"])
    frame = request(run, study, phase)
    require_refused(federation, answers(federation, frame), SIDES)
    monkeypatch.undo()
    federation.restart("DK")
    assert answers(federation, frame) is None


def test_the_same_secret_after_a_restart_goes_on(federation: NodeFederation) -> None:
    study = federation.approved(accounting=2, **TASK)
    run = begun(federation, study)
    federation.restart("DK")
    assert answers(federation, request(run, study)) is None


@pytest.mark.parametrize("accounting", [1, 2])
def test_a_run_is_charged_as_its_study_says(federation: NodeFederation, accounting: int) -> None:
    study = federation.approved(accounting=accounting, **TASK)
    begun(federation, study)
    ledger = federation.nodes["DK"].parts.ledger
    cost = {entry.phase: entry.rdp_micro for entry in ledger.entries()}
    parts = cost[TRAIN], cost[EVALUATE]
    terms = ledger_terms(federation.documents.agreed, "patients", federation.clock())
    wanted = cost[COHORT_FLOOR] + (sum(parts) if accounting == 1 else max(parts))
    assert ledger.view(terms).spent_micro == wanted


def test_a_study_whose_costs_are_added_goes_on(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patients pay for training and for evaluation anyway."""
    study = federation.approved(**TASK)
    run = begun(federation, study)
    with_another_secret(federation, monkeypatch)
    assert answers(federation, request(run, study)) is None


def test_records_without_ids_that_change_end_the_run(federation: NodeFederation) -> None:
    write(federation, dictionary=NUMBERED)
    study = federation.approved(accounting=2, **TASK)
    run = begun(federation, study)
    text = records()
    write(federation, rows=text.replace("p0,40,M,1\n", ""))
    frame = request(run, study)
    require_refused(federation, answers(federation, frame), RECORDS)
    write(federation, rows=text)
    assert answers(federation, frame) is None


@pytest.mark.parametrize("guarded", ["version", "split"])
@pytest.mark.parametrize(
    "dictionary",
    [NUMBERED, DICTIONARY + "id_case: ignore\n", DICTIONARY + "encoding: windows-1252\n"],
    ids=["row number", "letter case", "encoding"],
)
def test_patients_who_are_identified_otherwise_end_the_run(
    federation: NodeFederation, dictionary: str, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checks refuse it; each of them is enough."""
    study = federation.approved(accounting=2, **TASK)
    run = begun(federation, study)
    write(federation, dictionary=dictionary)
    if guarded == "split":  # as if the version of the records did not notice
        version = federation.nodes["DK"].parts.runs.live(run.id).data_version
        inner = PreparedTasks.prepared
        monkeypatch.setattr(
            PreparedTasks,
            "prepared",
            lambda tasks, *given: replace(inner(tasks, *given), version=version),
        )
    what = RECORDS if guarded == "version" else SIDES
    require_refused(federation, answers(federation, request(run, study)), what)


def test_a_run_that_was_entered_without_a_digest_does_not_go_on(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = federation.approved(accounting=2, **TASK)
    inner = RunStore.enter
    monkeypatch.setattr(
        RunStore,
        "enter",
        lambda store, record, *given: inner(store, replace(record, split=""), *given),
    )
    run = federation.ready(study)
    begun_round = run.coordinator.begin_round(1, TRAIN, model(study))
    code = code_of(federation.nodes["DK"].handle(begun_round.contribute_request("DK")))
    require_refused(federation, code, SIDES)
    assert last_refusal(federation.nodes["DK"])["clause"] == SPLIT_CHANGED


def test_row_numbers_are_split_anew_for_each_run_and_version(federation: NodeFederation) -> None:
    study = federation.study(accounting=2, **TASK)
    tasks = federation.nodes["DK"].parts.tasks

    def split(asked: Study, run: str) -> tuple[bool, ...]:
        return tuple(tasks.prepared(asked, run).assignment.held_out.tolist())

    assert split(study, "1") == split(study, "2")  # ids of their own: one split for the study
    write(federation, dictionary=NUMBERED)
    one, two = split(study, "1"), split(study, "2")
    assert one == split(study, "1") != two
    write(federation, rows=records().replace("p0,40,M,1", "p0,41,M,1"))
    assert len({one, two, split(study, "1"), split(study, "2")}) == 4
