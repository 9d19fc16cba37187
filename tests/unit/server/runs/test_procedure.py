"""The procedure of a run over rounds that are whole, smaller, or void."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from governance.documents.study import Study
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from server.runs.participation import participation_of
from server.runs.procedure import (
    MAX_VOID_IN_A_ROW,
    RunHistory,
    RunVoid,
    run_procedure,
)
from server.runs.rounds import RoundRecord, RoundReport, recorded
from tests.support.documents import (
    COUNTRIES,
    agreement,
    study_fields,
    training_fields,
    with_schedule,
)

ROUNDS, EACH = 4, 10_000
WITHOUT_PT = tuple(country for country in COUNTRIES if country != "PT")
EVALUATION = {"held_out": 0.25, "bins": 4, "share": 0.25}


def study(**changes: Any) -> Study:
    return with_schedule(Study.model_validate(study_fields(agreement(), **changes)), 10**6)


def training(rounds: int = ROUNDS, evaluation: Any = EVALUATION) -> Study:
    return study(**training_fields(rounds, evaluation=evaluation))


@dataclass
class ScriptedDriver:
    """A round driver whose rounds open over the countries that a test names by round, or over all.

    No country at all makes a round void. Each country adds EACH to every coordinate.
    """

    study_to_run: Study
    countries_by_round: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def sum(self, number: int, phase: str, _: bytes) -> RoundReport:
        countries = self.countries_by_round.get(number, COUNTRIES)
        causes = {one: "no reply in time" for one in COUNTRIES if one not in countries}
        mechanism = next(m for m in self.study_to_run.mechanisms if m.phase == phase)
        values = np.full(mechanism.dimension, len(countries) * EACH * mechanism.scale)
        if not countries:
            return RoundReport(number, phase, 0.1, VoidRound("too few", COUNTRIES), causes)
        return RoundReport(number, phase, 0.1, OpenedSum(values, countries, 1, ()), causes)


def run_to_end(
    study_to_run: Study,
    countries_by_round: Mapping[int, tuple[str, ...]],
    past: RunHistory | None = None,
) -> Any:
    reports: list[RoundReport] = []
    driver: Any = ScriptedDriver(study_to_run, countries_by_round)
    outcome = run_procedure(
        study_to_run, driver, lambda report, *_: reports.append(report), past or RunHistory()
    )
    return outcome, reports


def test_a_table_over_fewer_countries_names_them_and_assumes_their_noise_only() -> None:
    of_all_countries, _ = run_to_end(study(), {})
    outcome, _ = run_to_end(study(), {1: WITHOUT_PT})
    assert outcome.part.countries == outcome.part.figures_over == WITHOUT_PT
    assert of_all_countries.part.figures_over == COUNTRIES

    ratio = outcome.findings["noise_std"] / of_all_countries.findings["noise_std"]
    assert ratio == pytest.approx((3 / 4) ** 0.5, abs=1e-3)
    spans = [outcome_of_run.findings["cells"][0] for outcome_of_run in (outcome, of_all_countries)]
    above, all_above = (cell["high"] - cell["count"] for cell in spans)
    assert above / all_above == pytest.approx(ratio, abs=1e-3)


def test_training_continues_over_fewer_countries() -> None:
    trained_study = training()
    outcome, reports = run_to_end(trained_study, {2: WITHOUT_PT})
    assert len(reports) == ROUNDS + 1
    assert outcome.part == participation_of([recorded(report) for report in reports], COUNTRIES)
    assert outcome.part.rounds_opened == {4: ROUNDS - 1, 3: 1}
    assert outcome.part.left_out == {"PT": 1}
    assert outcome.part.figures_over == outcome.part.countries == COUNTRIES


def test_the_divisor_stays_the_public_constant_of_the_study() -> None:
    trained_study = training(rounds=1, evaluation=None)
    start = trained_study.task.initial(trained_study.features)  # type: ignore[union-attr]
    of_all_countries, smaller = (
        run_to_end(trained_study, countries_by_round)[0].model - start
        for countries_by_round in ({}, {1: WITHOUT_PT})
    )
    assert smaller == pytest.approx(of_all_countries * len(WITHOUT_PT) / len(COUNTRIES))
    assert of_all_countries.all()


def test_an_evaluation_over_fewer_countries_names_exactly_these() -> None:
    outcome, _ = run_to_end(training(), {ROUNDS + 1: WITHOUT_PT})
    assert outcome.part.figures_over == WITHOUT_PT
    assert outcome.part.countries == COUNTRIES
    assert outcome.part.left_out == {}


def test_void_rounds_are_counted_and_leave_no_country_out() -> None:
    outcome, _ = run_to_end(training(evaluation=None), {2: ()})
    assert (outcome.part.rounds_void, outcome.part.rounds_opened) == (1, {4: ROUNDS - 1})
    assert outcome.part.figures_over == ()


def test_too_many_void_rounds_in_a_row_end_the_run_and_opened_ones_between_do_not() -> None:
    void = dict.fromkeys(range(1, ROUNDS + 1), ())
    with pytest.raises(RunVoid, match="Round 3") as caught:
        run_to_end(training(), void)
    assert "PT: no reply in time" in caught.value.why
    outcome, _ = run_to_end(training(), void | {3: WITHOUT_PT})
    assert outcome.part.rounds_void == ROUNDS - 1


def test_a_resumed_run_counts_its_earlier_rounds() -> None:
    trained_study = training()
    _, reports = run_to_end(trained_study, {})
    states: list[bytes] = []
    driver: Any = ScriptedDriver(trained_study)
    run_procedure(trained_study, driver, lambda _, state, *__: states.append(state))
    before = [RoundRecord(1, "train", WITHOUT_PT, "", {"PT": "no reply in time"})]
    outcome, reports = run_to_end(trained_study, {}, RunHistory(before, states[0]))
    assert [report.number for report in reports] == [2, 3, 4, 5]
    assert outcome.part.left_out == {"PT": 1}


def test_a_run_with_too_many_void_rounds_in_a_row_is_not_resumed() -> None:
    rounds = [RoundRecord(n, "train", (), "too few", {}) for n in range(1, MAX_VOID_IN_A_ROW + 1)]
    with pytest.raises(RunVoid, match=f"Round {MAX_VOID_IN_A_ROW}"):
        run_to_end(training(), {}, RunHistory(rounds))
