"""A coordinator, a country or records that want a country's own sum without every permit.

A study with `by_country` shows each country's own noisy sum. The attacks begin runs without the
agreement's term, without a permit's, with other levels of the country, and with records that name
another country. With zero noise a sum shows exactly whose patients are in which part of it.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from protocols.errors import ReasonCode, Refusal
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks.layout import vector_to_bytes
from server.cli import app
from server.errors import CoordinatorFault
from server.runs.attempt import outcome_json
from server.runs.procedure import Outcome
from tests.support.coordinator_services import Coordinator
from tests.support.documents import (
    COUNTRIES,
    DAY,
    NOW,
    agreement,
    raw_key,
    study_fields,
    training_fields,
)
from tests.support.node_federation import DICTIONARY, PATIENTS, NodeFederation, Run
from tests.support.training_studies import run_study

ALLOWED = {"by_country": True}
COUNTRY = {"name": "country", "type": "categorical", "levels": list(COUNTRIES)}
BY_COUNTRY = {"kind": "stats/count", "strata": [{"feature": "country"}], "by_country": True}
LYING = """id,age,sex,disease,country
{rows}
"""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    nodes = NodeFederation(tmp_path / "federation", changes=ALLOWED)
    yield nodes
    nodes.close()


def fields(**changes: Any) -> dict[str, Any]:
    """Return the fields of a count of patients by country."""
    table = {"task": BY_COUNTRY | {"patients_bound": 10_000}}
    features = [*study_fields(agreement())["features"], COUNTRY]
    return {"features": features, **table} | changes


def conditions(*, by_country: bool) -> PermitConditions:
    return PermitConditions(expires=NOW + 60 * DAY, by_country=by_country)


def permit_all(federation: NodeFederation, asked: Study, *without: str) -> Study:
    """Have every country permit the study; those in `without` do not allow their own sum."""
    federation.propose(asked)
    for country in COUNTRIES:
        allowed = conditions(by_country=country not in without)
        federation.permit(country, asked, conditions=allowed)
    federation.sync()
    return asked


def refusal_of(federation: NodeFederation, run: Run, country: str) -> Refusal | None:
    """Return how a country refuses the first message of a run; None if it answers."""
    reply = federation.nodes[country].handle(run.request("bundle", country))
    try:
        run.take("bundle", country, reply)
    except Refusal as refusal:
        return refusal
    return None


def codes(federation: NodeFederation, asked: Study) -> set[ReasonCode | None]:
    run = federation.run(asked)
    refusals = [refusal_of(federation, run, country) for country in COUNTRIES]
    return {refusal.code if refusal else None for refusal in refusals}


def last_entry(federation: NodeFederation, country: str) -> bytes:
    *_, entry = federation.nodes[country].parts.log.entries()
    return entry


class TestWithoutConsent:
    def test_an_agreement_without_the_term_forbids_it(self, tmp_path: Path) -> None:
        federation = NodeFederation(tmp_path / "federation")
        asked = permit_all(federation, federation.study(**fields()))
        assert codes(federation, asked) == {ReasonCode.POLICY}
        assert b"agreement/by-country" in last_entry(federation, "DK")
        federation.close()

    def test_a_permit_without_it_forbids_it_for_its_country(
        self, federation: NodeFederation
    ) -> None:
        asked = permit_all(federation, federation.study(**fields()), *COUNTRIES)
        assert codes(federation, asked) == {ReasonCode.NO_PERMIT}
        assert b"permit/by-country" in last_entry(federation, "DK")

    def test_one_permit_without_it_stops_every_country(self, federation: NodeFederation) -> None:
        asked = permit_all(federation, federation.study(**fields()), "PT")
        assert codes(federation, asked) == {ReasonCode.NO_PERMIT}
        for country in COUNTRIES:
            assert b"permit/by-country" in last_entry(federation, country)

    def test_a_country_that_has_not_decided_stops_every_country(
        self, federation: NodeFederation
    ) -> None:
        asked = federation.study(**fields())
        federation.propose(asked)
        for country in COUNTRIES[1:]:
            federation.permit(country, asked, conditions=conditions(by_country=True))
        federation.sync()
        assert codes(federation, asked) == {ReasonCode.NO_PERMIT}

    def test_a_run_over_the_others_does_not_leave_out_the_one_that_said_no(
        self, federation: NodeFederation
    ) -> None:
        """PT has permitted the study, and not that own sums are visible: every permit counts."""
        asked = permit_all(federation, federation.study(**fields()), "PT")
        run = federation.run(asked, terms=federation.terms(asked, roster=COUNTRIES[:3]))
        refusals = [refusal_of(federation, run, country) for country in COUNTRIES[:3]]
        assert [refusal and refusal.code for refusal in refusals] == [ReasonCode.NO_PERMIT] * 3

    def test_a_no_counts_when_its_documents_are_withheld(self, federation: NodeFederation) -> None:
        """The coordinator publishes no renewal of PT's documents, and they expire."""
        asked = permit_all(federation, federation.study(**fields()), "PT")
        for _ in range(2):
            federation.documents.now += 4 * DAY
            for country in COUNTRIES[:3]:
                federation.hand_over(country)
            federation.documents.refresh()
            for country in COUNTRIES[:3]:
                federation.nodes[country].sync()
        run = federation.run(asked, terms=federation.terms(asked, roster=COUNTRIES[:3]))
        refusals = [refusal_of(federation, run, country) for country in COUNTRIES[:3]]
        assert [refusal and refusal.code for refusal in refusals] == [ReasonCode.NO_PERMIT] * 3

    def test_a_permit_signed_again_without_it_counts_from_the_next_message(
        self, federation: NodeFederation
    ) -> None:
        asked = permit_all(federation, federation.study(**fields()))
        run = federation.run(asked)
        for country in COUNTRIES:
            assert refusal_of(federation, run, country) is None
        federation.permit("PT", asked, conditions=conditions(by_country=False))
        federation.sync()
        for country in COUNTRIES:
            reply = federation.nodes[country].handle(run.request("encapsulation", country))
            with pytest.raises(Refusal) as refusal:
                run.take("encapsulation", country, reply)
            assert refusal.value.code is ReasonCode.NO_PERMIT

    def test_a_country_that_withdraws_is_left_out_as_in_any_study(
        self, federation: NodeFederation
    ) -> None:
        asked = permit_all(federation, federation.study(**fields()))
        federation.withdraw("PT", asked)
        federation.sync()
        run = federation.run(asked)
        *others, portugal = (refusal_of(federation, run, country) for country in COUNTRIES)
        assert others == [None] * 3
        assert portugal is not None
        assert portugal.code is ReasonCode.NO_PERMIT

    def test_the_coordinator_sees_which_permit_lacks_it(
        self, federation: NodeFederation, tmp_path: Path
    ) -> None:
        asked = permit_all(federation, federation.study(**fields()), "EE")
        coordinator = Coordinator(federation, tmp_path / "coordinator")
        with pytest.raises(CoordinatorFault, match="EE: The permit of EE does not allow"):
            coordinator.ask("study_launch", name=asked.id)


def test_a_check_completes_the_draft_and_names_the_clause(tmp_path: Path) -> None:
    for changes, allowed in (({}, False), (ALLOWED, True)):
        federation = NodeFederation(tmp_path / f"federation-{allowed}", changes=changes)
        coordinator = Coordinator(federation, tmp_path / f"coordinator-{allowed}")
        draft = fields(features=study_fields(agreement())["features"])
        draft["task"].pop("strata")
        text = json.dumps(study_fields(federation.documents.agreed) | draft)
        answer = coordinator.ask("study_check", text=text, source="draft.yaml")
        assert answer["by_country"]
        assert answer["study"]["features"][-1]["levels"] == list(COUNTRIES)
        clauses = {
            finding["clause"] for each in answer["countries"] for finding in each["findings"]
        }
        assert clauses == (set() if allowed else {"agreement/by-country"})
        federation.close()


OTHER_LEVELS: Mapping[str, list[str]] = {
    "reordered": ["EE", "DK", "NO", "PT"],
    "renamed": ["Denmark", "EE", "NO", "PT"],
    "one missing": ["DK", "EE", "NO"],
    "one too many": ["DK", "EE", "NO", "PT", "SE"],
    "another": ["DK", "EE", "NO", "SE"],
}


class TestOtherLevels:
    @pytest.mark.parametrize("levels", OTHER_LEVELS.values(), ids=OTHER_LEVELS)
    def test_a_study_with_other_levels_cannot_be_read(self, levels: list[str]) -> None:
        features = [COUNTRY | {"levels": levels}]
        with pytest.raises(ValidationError, match="as it is reserved"):
            Study.model_validate(_unconditional(features=features))

    def test_a_country_twice_cannot_be_read(self) -> None:
        features = [COUNTRY | {"levels": ["DK", "DK", "EE", "NO", "PT"]}]
        with pytest.raises(ValidationError, match="distinct levels"):
            Study.model_validate(_unconditional(features=features))
        with pytest.raises(ValidationError, match="the same name"):
            Study.model_validate(_unconditional(features=[COUNTRY, COUNTRY]))

    @pytest.mark.parametrize("change", [{"missing": "indicator"}, {"unit": "code"}])
    def test_another_declaration_cannot_be_read(self, change: dict[str, str]) -> None:
        with pytest.raises(ValidationError, match="as it is reserved"):
            Study.model_validate(_unconditional(features=[COUNTRY | change]))

    def test_a_condition_on_the_country_cannot_be_read(self) -> None:
        where = [{"feature": "country", "one_of": ["DK"]}]
        population = {"register": "patients", "where": where}
        with pytest.raises(ValidationError, match="has a condition on `country`"):
            Study.model_validate(_unconditional(population=population))

    def test_nodes_refuse_one_that_the_coordinator_signs_all_the_same(
        self, federation: NodeFederation
    ) -> None:
        honest = federation.study(**fields())
        *others, country = honest.features
        swapped = country.model_copy(update={"levels": ("EE", "DK", "NO", "PT")})
        forged = honest.model_copy(update={"features": (*others, swapped)})
        permit_all(federation, forged)
        assert codes(federation, forged) == {ReasonCode.UNKNOWN_STUDY}


def _unconditional(**changes: Any) -> dict[str, Any]:
    """Return the fields of the count without a condition on age."""
    base = {"population": {"register": "patients"}} | fields()
    return study_fields(agreement()) | base | changes


def opened(federation: NodeFederation, asked: Study) -> list[int]:
    """Return how many patients a run opens for each country, without noise."""
    total = federation.ready(asked).sum(1, "count")
    assert isinstance(total, OpenedSum)
    scale = next(m.scale for m in asked.mechanisms if m.phase == "count")
    return [round(value / scale) for value in total.values]


def test_each_part_of_the_sum_holds_the_patients_of_its_country(
    federation: NodeFederation,
) -> None:
    for number, country in enumerate(COUNTRIES):
        rows = [f"p{n},50,M,1" for n in range(PATIENTS + number)]
        federation.put_records(country, "\n".join(["id,age,sex,disease", *rows]) + "\n")
        federation.nodes[country].parts.record_store.refresh()
    asked = permit_all(federation, federation.study(**fields()))
    assert opened(federation, asked) == [PATIENTS + number for number in range(4)]


def test_records_that_name_another_country_change_nothing(federation: NodeFederation) -> None:
    """The dictionary and the records of DK say that its patients are Estonian."""
    node = federation.nodes["DK"]
    told = '  - {name: country, type: categorical, codes: {EE: EE, "NO": "NO"}}\n'
    (federation.home("DK").path / "dictionary.yaml").write_text(DICTIONARY.rstrip() + "\n" + told)
    rows = "\n".join(f"p{n},50,M,1,{'EN'[n % 2]}{'EO'[n % 2]}" for n in range(PATIENTS))
    federation.put_records("DK", LYING.format(rows=rows))
    node.parts.record_store.refresh()
    assert node.parts.record_store.fault is None
    asked = permit_all(federation, federation.study(**fields()))
    assert opened(federation, asked) == [PATIENTS] * 4


def test_no_model_or_message_gets_a_node_to_fill_another_country_s_part(
    federation: NodeFederation,
) -> None:
    """A coordinator chooses the model, and nothing else: every part but the node's own is zero."""
    asked = permit_all(federation, trained(federation, rounds=1))
    tasks = federation.nodes["EE"].parts.tasks
    assignment = tasks.prepared(asked).assignment
    mechanism = next(m for m in asked.mechanisms if m.phase == "train")
    generator = np.random.default_rng(5)
    for model in (np.zeros(7), np.full(7, 1e9), generator.normal(size=7)):
        values = assignment.lattice_sum(mechanism, model.tobytes(), entropy=generator.bytes)
        assert not np.delete(values[-4:], 1).any()


def trained(federation: NodeFederation, rounds: int, **task: Any) -> Study:
    features = fields()["features"]
    chosen = {"inputs": ["sex", "country"], "sampling_rate": 1.0, "by_country": True} | task
    return federation.study(**training_fields(rounds, **chosen), features=features)


def test_a_run_gives_a_model_with_a_baseline_of_each_country_that_took_part(
    federation: NodeFederation, tmp_path: Path
) -> None:
    """Only in DK is everybody ill: its baseline rises, those of the others fall; PT is left out."""
    rows = [f"p{n},50,{'MF'[n % 2]},1" for n in range(PATIENTS)]
    federation.put_records("DK", "\n".join(["id,age,sex,disease", *rows]) + "\n")
    federation.nodes["DK"].parts.record_store.refresh()
    asked = permit_all(federation, trained(federation, rounds=3))
    outcome = run_study(federation, asked, without="PT")
    assert outcome.model is not None
    denmark, *others, portugal = outcome.model[-4:]
    assert denmark > 0 > max(others)
    assert portugal == 0
    shown = released(Coordinator(federation, tmp_path / "coordinator"), asked, outcome)
    sentence = "not in this study the model uses the mean of the intercepts of DK, EE, NO. PT took"
    assert sentence in shown
    assert "Each country's own sum was visible to the coordinator, with noise only" in shown


def test_noise_is_no_count_of_a_country_that_is_not_in_the_sum(
    federation: NodeFederation, tmp_path: Path
) -> None:
    asked = permit_all(federation, federation.study(**fields()))
    outcome = run_study(federation, asked, without="PT")
    *_, portugal = outcome.findings["cells"]
    portugal |= {"count": 25, "low": 0, "high": 70, "suppressed": False}  # noise may be so high
    shown = released(Coordinator(federation, tmp_path / "coordinator"), asked, outcome)
    assert f"- NO {PATIENTS}" in shown
    assert "- PT suppressed" in shown


def released(coordinator: Coordinator, asked: Study, outcome: Outcome) -> str:
    """Return what `result show` prints of the result that the coordinator signs."""
    run = coordinator.ask("study_launch", name=asked.id)["run"]
    flat = b"" if outcome.model is None else vector_to_bytes(outcome.model)
    model = base64.b64encode(flat).decode()
    parts = {"outcome": outcome_json(outcome), "model": model}
    coordinator.ask("release", study=asked.id, run=run, **parts)
    folder, key = coordinator.home.results / asked.id, raw_key(2).public.to_text()
    shown = CliRunner().invoke(app, ["result", "show", str(folder), "--key", key])
    assert shown.exit_code == 0, shown.output
    return " ".join(shown.stdout.split())


def test_local_mode_and_a_network_fill_in_the_country_as_well(federation: NodeFederation) -> None:
    agreed = federation.documents.agreed
    for task in ({"local": {"steps": 2}}, {"kind": "train/mlp", "hidden": [3]}):
        asked = trained(federation, rounds=1, **task)
        tasks = federation.nodes["NO"].parts.tasks
        assert tasks.prepared(asked).assignment.cohort.columns["country"].tolist() == [2.0] * 80
    assert agreed.by_country
