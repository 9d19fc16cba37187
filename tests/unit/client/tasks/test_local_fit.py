"""The patients, the predictions and the formula of a calibration on a node's cohort."""

from typing import Any

import numpy as np
import pytest

from client.errors import RecordFault
from client.records.own_country import with_own_country
from client.records.source import Records
from client.tasks.assignment import Assignment
from client.tasks.local_fit import EVERYBODY, HELD_OUT, NUMBERED, OPTIMISTIC, LocalFit, fit_locally
from client.tasks.recalibration import recalibrate_numbers, recalibrate_probabilities
from protocols.tasks import CountPatients, Family, Task, TrainGlm, Training, TrainMlp
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import country_feature
from protocols.tasks.features import FloatArray
from tests.support.patients import FEATURES, INPUTS, glm, mlp, records

PATIENTS = 900
HOLDING_OUT: dict[str, Any] = {"evaluation": {"held_out": 0.4}}
COUNTRY = country_feature(("DK", "EE", "NO"))


def assigned(task: Task, people: Records | None = None, **changes: Any) -> Assignment:
    arguments = {"split_secret": bytes(32), "split": "a study"} | changes
    features = arguments.pop("features", FEATURES)
    return Assignment.prepare(task, features, people or records(PATIENTS), **arguments)


def model_of(task: Training, features: Any = FEATURES) -> FloatArray:
    return np.random.default_rng(3).normal(0, 0.5, task.dimension(features))


def fit_of(assignment: Assignment, model: FloatArray, **changes: Any) -> LocalFit:
    arguments = {"baselines": None, "country": "DK"} | changes
    return fit_locally(assignment, model, **arguments)


class TestPatients:
    def test_those_held_out_of_training(self) -> None:
        assignment = assigned(glm(**HOLDING_OUT))
        fit = fit_of(assignment, model_of(glm()))
        assert fit.fit.patients == int(assignment.held_out.sum()) < PATIENTS / 2
        assert fit.fields()["fitted_on"] == HELD_OUT
        assert fit.fields()["notes"] == fit.fit.notes

    def test_all_if_the_study_held_none_out_with_a_note(self) -> None:
        fit = fit_of(assigned(glm(evaluation=None)), model_of(glm()))
        assert fit.fit.patients == PATIENTS
        assert fit.fields()["fitted_on"] == EVERYBODY
        assert OPTIMISTIC in fit.fields()["notes"]

    def test_row_numbers_are_noted_since_other_patients_may_have_trained(self) -> None:
        fit = fit_of(assigned(glm(**HOLDING_OUT)), model_of(glm()))
        assert NUMBERED not in fit.on_records("v", numbered=False).fields()["notes"]
        numbered = fit.on_records("v", numbered=True).fields()
        assert NUMBERED in numbered["notes"]
        assert numbered["records"] == "v"

    def test_too_few_are_refused(self) -> None:
        with pytest.raises(RecordFault, match="too few"):
            fit_of(assigned(glm(**HOLDING_OUT), records(8)), model_of(glm()))

    def test_a_cohort_of_nobody_is_refused(self) -> None:
        ages = np.full(PATIENTS, np.nan)
        with pytest.raises(RecordFault, match="too few"):
            fit_of(assigned(glm(**HOLDING_OUT), records(PATIENTS, age=ages)), model_of(glm()))


class TestPredictions:
    @pytest.mark.parametrize("task", [glm(**HOLDING_OUT), mlp(**HOLDING_OUT)])
    def test_are_those_of_the_study_in_its_encoding(self, task: TrainGlm | TrainMlp) -> None:
        assignment, model = assigned(task), model_of(task)
        people = assignment.cohort.where(assignment.held_out)
        rows = task.rows(FEATURES, people.columns)
        predicted = task.predict(FEATURES, model, rows)
        expected = recalibrate_probabilities(predicted, people.columns["ill"].astype(np.int64))
        assert fit_of(assignment, model).fit == expected

    def test_are_the_same_in_small_batches(self) -> None:
        assignment, model = assigned(glm(**HOLDING_OUT)), model_of(glm())
        whole = fit_of(assignment, model)
        assignment.trainer.patients_at_once = 7
        again = fit_of(assignment, model)
        assert again.fit.intercepts == pytest.approx(whole.fit.intercepts)
        assert again.fit.patients == whole.fit.patients

    @pytest.mark.filterwarnings("error")
    def test_that_are_no_numbers_are_refused(self) -> None:
        model = np.full(glm().dimension(FEATURES), np.nan)
        with pytest.raises(RecordFault, match="cannot be calibrated"):
            fit_of(assigned(glm(**HOLDING_OUT)), model)

    def test_a_table_has_none(self) -> None:
        with pytest.raises(TypeError):
            fit_of(assigned(CountPatients(patients_bound=1_000)), np.zeros(1))


class TestFormulas:
    """A calibration file is applied by its formula; each is tried as it is written."""

    def test_a_number_is_calibrated_in_its_unit(self) -> None:
        task = glm(Family.LINEAR, **HOLDING_OUT)
        assignment, model = assigned(task), model_of(task)
        people = assignment.cohort.where(assignment.held_out)
        target = task.target_feature(FEATURES)
        rows = task.rows(FEATURES, people.columns)
        predicted = target.unscaled(task.predict(FEATURES, model, rows))[:, 0]
        fields = fit_of(assignment, model).fields()
        expected = recalibrate_numbers(predicted, people.columns["pressure"])
        assert fields["intercept"] == pytest.approx(expected.intercepts[0])
        assert fields["slope"] == pytest.approx(expected.slope)
        assert "kept between 80 and 200" in fields["formula"]
        assert 80 < np.mean(fields["intercept"] + fields["slope"] * predicted) < 200

    def test_levels_are_named(self) -> None:
        task = glm(Family.MULTINOMIAL, **HOLDING_OUT)
        fields = fit_of(assigned(task), model_of(task)).fields()
        assert list(fields["intercept"]) == ["none", "mild", "severe"]
        assert fields["intercept"]["none"] == 0
        assert "exp(intercept of the level + slope * ln(p))" in fields["formula"]

    def test_a_probability_is_calibrated_in_the_large(self) -> None:
        assignment, model = assigned(glm(**HOLDING_OUT)), model_of(glm())
        people = assignment.cohort.where(assignment.held_out)
        fields = fit_of(assignment, model).fields()
        assert fields["formula"].startswith(
            "calibrated probability = 1 / (1 + exp(-(intercept + slope * ln(p / (1 - p)))))"
        )
        p = glm().predict(FEATURES, model, glm().rows(FEATURES, people.columns))
        after = 1 / (1 + np.exp(-(fields["intercept"] + fields["slope"] * np.log(p / (1 - p)))))
        assert after.mean() == pytest.approx(people.columns["ill"].mean(), abs=1e-6)


class TestACountrysOwnBaseline:
    task = glm(by_country=True, inputs=(*INPUTS, "country"), **HOLDING_OUT)
    features = (*FEATURES, COUNTRY)

    def assignment(self, country: str) -> Assignment:
        people = with_own_country(records(PATIENTS), country)
        return assigned(self.task, people, features=self.features)

    def test_a_country_that_trained_gets_its_own(self) -> None:
        model = model_of(self.task, self.features)
        baselines = CountryBaselines(countries=("DK", "EE", "NO"))
        fits = [
            fit_of(self.assignment(country), model, baselines=baselines, country=country)
            for country in ("DK", "EE")
        ]
        assert fits[0].fit.intercepts != fits[1].fit.intercepts

    def test_a_country_that_did_not_gets_the_rule_that_the_result_states(self) -> None:
        """So the file fits the predictions that `result predict` prints for its patients."""
        model, baselines = (
            model_of(self.task, self.features),
            CountryBaselines(countries=("EE", "NO")),
        )
        assignment = self.assignment("DK")
        fit = fit_of(assignment, model, baselines=baselines, country="DK")
        people = assignment.cohort.where(assignment.held_out)
        outputs = [
            self.task.outputs(
                self.features,
                model,
                self.task.rows(
                    self.features, {**people.columns, "country": np.full(people.patients, index)}
                ),
            )
            for index in (1.0, 2.0)
        ]
        predicted = self.task.predicted(self.features, np.mean(outputs, axis=0))
        expected = recalibrate_probabilities(predicted, people.columns["ill"].astype(np.int64))
        assert fit.fit.intercepts == pytest.approx(expected.intercepts)
        assert fit.fit.slope == pytest.approx(expected.slope)
