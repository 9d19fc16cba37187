"""Recalibration: intercept and slope by maximum likelihood, or fewer if the patients are few."""

import numpy as np
import pytest
from scipy.optimize import minimize

from client.errors import RecordFault
from client.tasks.recalibration import (
    ENOUGH,
    FEW,
    FEWEST,
    FLAT_NOTE,
    REVERSED,
    SEPARATED,
    Recalibration,
    recalibrate_numbers,
    recalibrate_probabilities,
)
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import IntArray
from protocols.tasks.training import sigmoid, softmax

PATIENTS = 4_000


def scores(seed: int, patients: int = PATIENTS, spread: float = 1.0) -> FloatArray:
    return np.random.default_rng(seed).normal(-1.0, spread, patients)


def outcomes(seed: int, chances: FloatArray) -> IntArray:
    """Draw the index of an outcome for each row of chances (patients, classes)."""
    draws = np.random.default_rng(seed + 1_000).random((len(chances), 1))
    return np.asarray((chances.cumsum(axis=1) < draws).sum(axis=1), dtype=np.int64)


def drawn(seed: int, logits: FloatArray) -> IntArray:
    """Draw yes or no with these log odds."""
    yes = sigmoid(logits)[:, None]
    return outcomes(seed, np.hstack([1 - yes, yes]))


def fitted(predicted_logits: FloatArray, ill: IntArray) -> Recalibration:
    return recalibrate_probabilities(sigmoid(predicted_logits)[:, None], ill)


class TestAYesNoTarget:
    @pytest.mark.parametrize("spread", [0.02, 1.0, 4.0])
    def test_the_fit_is_the_maximum_of_the_likelihood(self, spread: float) -> None:
        """It equals that of a general optimiser, also if predictions differ little or much."""
        z = scores(3, spread=spread)
        ill = drawn(3, 0.7 + 1.3 * z)
        fit = fitted(z, ill)

        def loss(at: FloatArray) -> float:
            linear = at[0] + at[1] * z
            return float(np.sum(np.logaddexp(0, linear) - ill * linear))

        best = minimize(loss, [0.0, 1.0], method="BFGS")
        assert loss(np.array([fit.intercepts[0], fit.slope])) <= best.fun + 1e-6
        assert (fit.intercepts[0], fit.slope) == pytest.approx(tuple(best.x), rel=2e-2, abs=1e-3)
        assert fit.notes == ()
        assert fit.patients == PATIENTS

    def test_the_errors_say_how_far_a_fit_may_be_off(self) -> None:
        """Over 200 countries, the standardised errors have a standard deviation of about one."""
        off = []
        for seed in range(200):
            z = scores(seed, 500)
            fit = fitted(z, drawn(seed, 0.5 + 1.2 * z))
            off.append(
                (
                    (fit.intercepts[0] - 0.5) / fit.intercept_errors[0],
                    (fit.slope - 1.2) / fit.slope_error,
                )
            )
        assert np.mean(off, axis=0) == pytest.approx([0, 0], abs=0.25)
        assert np.std(off, axis=0) == pytest.approx([1, 1], abs=0.15)

    def test_a_shifted_baseline_is_calibrated_in_the_large(self) -> None:
        """A country with higher odds: its mean prediction is off before, and right after, the fit.

        It is tried on other patients than those of the fit.
        """
        z, other = scores(5), scores(6)
        fit = fitted(z, drawn(5, 0.9 + z))
        ill = drawn(6, 0.9 + other)
        after = sigmoid(fit.intercepts[0] + fit.slope * other)
        assert ill.mean() - sigmoid(other).mean() > 0.1
        assert abs(ill.mean() - after.mean()) < 3 * np.sqrt(0.25 / PATIENTS)

    def test_few_patients_with_an_outcome_give_an_intercept_only(self) -> None:
        z, ill = scores(7), np.zeros(PATIENTS, dtype=np.int64)
        ill[: ENOUGH - 1] = 1
        fit = fitted(z, ill)
        assert (fit.slope, fit.slope_error, fit.notes) == (1.0, 0.0, (FEW,))
        assert sigmoid(fit.intercepts[0] + z).sum() == pytest.approx(ENOUGH - 1)
        ill[:ENOUGH] = 1
        assert FEW not in fitted(z, ill).notes

    @pytest.mark.parametrize("patients", [0, 1, 100])
    @pytest.mark.parametrize("kind", [0, 1])
    def test_fewer_than_five_are_refused_without_a_number(self, patients: int, kind: int) -> None:
        ill = np.full(patients, kind, dtype=np.int64)
        ill[: FEWEST - 1] = 1 - kind
        with pytest.raises(RecordFault, match="too few patients") as caught:
            fitted(scores(8, patients), ill)
        assert f"{patients}" not in caught.value.why or patients < 10

    def test_predictions_that_separate_the_outcomes_have_no_slope(self) -> None:
        z = scores(9)
        for predicted in (z, np.where(z > 0.5, 2.0, -2.0)):
            fit = fitted(predicted, np.asarray(z > 0.5, dtype=np.int64))
            assert (fit.slope, fit.notes) == (1.0, (SEPARATED,))
            assert np.isfinite(fit.intercepts).all()

    @pytest.mark.parametrize("chance", [0.0, 1e-300, 0.3, 1.0])
    def test_equal_predictions_have_no_slope(self, chance: float) -> None:
        ill = drawn(10, scores(10))
        fit = recalibrate_probabilities(np.full((PATIENTS, 1), chance), ill)
        assert (fit.slope, fit.notes) == (1.0, (FLAT_NOTE,))
        kept = np.clip(chance, 1e-9, 1 - 1e-9)
        after = sigmoid(np.array([fit.intercepts[0] + np.log(kept / (1 - kept))]))[0]
        assert after == pytest.approx(ill.mean())

    def test_a_model_that_ranks_the_wrong_way_is_named(self) -> None:
        z = scores(11)
        fit = fitted(z, drawn(11, -1.2 * z))
        assert fit.slope < 0
        assert fit.notes == (REVERSED,)

    def test_certain_predictions_that_are_wrong_give_a_finite_fit(self) -> None:
        predicted = np.repeat([[0.0], [1.0]], 200, axis=0)
        fit = recalibrate_probabilities(predicted, np.tile([0, 0, 0, 1], 100))
        assert np.isfinite([*fit.intercepts, *fit.intercept_errors, fit.slope_error]).all()
        assert fit.slope == pytest.approx(0, abs=1e-6)


class TestLevels:
    def test_each_level_gets_an_intercept_and_all_one_slope(self) -> None:
        z = np.random.default_rng(12).normal(size=(PATIENTS, 3))
        truth = np.array([0.0, 0.8, -0.6])
        levels = outcomes(12, softmax(truth + 0.6 * z))
        fit = recalibrate_probabilities(softmax(z), levels)
        assert fit.intercepts[0] == fit.intercept_errors[0] == 0.0
        for value, error, right in zip(fit.intercepts, fit.intercept_errors, truth, strict=True):
            assert abs(value - right) <= 4 * error
        assert abs(fit.slope - 0.6) < 4 * fit.slope_error

    def test_the_mean_prediction_of_each_level_is_its_share(self) -> None:
        z = np.random.default_rng(13).normal(size=(PATIENTS, 4))
        levels = outcomes(13, softmax(z + np.array([0.5, 0, 1, -1])))
        predicted = softmax(z)
        fit = recalibrate_probabilities(predicted, levels)
        after = softmax(np.array(fit.intercepts) + fit.slope * np.log(predicted))
        shares = np.bincount(levels, minlength=4) / PATIENTS
        assert after.mean(axis=0) == pytest.approx(shares, abs=1e-6)

    def test_two_levels_are_the_same_as_yes_and_no(self) -> None:
        z = scores(14)
        ill = drawn(14, 0.4 + 1.1 * z)
        yes = sigmoid(z)[:, None]
        both = recalibrate_probabilities(np.hstack([1 - yes, yes]), ill)
        one = recalibrate_probabilities(yes, ill)
        assert both.intercepts[1] == pytest.approx(one.intercepts[0], abs=1e-6)
        assert both.slope == pytest.approx(one.slope, abs=1e-6)

    def test_a_level_that_nobody_has_is_refused(self) -> None:
        predicted = softmax(np.random.default_rng(15).normal(size=(100, 3)))
        with pytest.raises(RecordFault, match="too few"):
            recalibrate_probabilities(predicted, np.tile([0, 1], 50))


class TestNumbers:
    def test_the_line_is_that_of_least_squares(self) -> None:
        generator = np.random.default_rng(16)
        predicted = generator.normal(60, 5, 400)
        actual = 3 + 1.1 * predicted + generator.normal(0, 2, 400)
        fit = recalibrate_numbers(predicted, actual)
        design = np.column_stack([np.ones(400), predicted])
        best, squares, *_ = np.linalg.lstsq(design, actual, rcond=None)
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * squares[0] / 398)
        assert (fit.intercepts[0], fit.slope) == pytest.approx(tuple(best))
        assert (fit.intercept_errors[0], fit.slope_error) == pytest.approx(tuple(errors))

    def test_few_patients_or_equal_predictions_give_an_intercept_only(self) -> None:
        few = recalibrate_numbers(np.arange(19.0), np.arange(19.0) + 2)
        assert (few.intercepts, few.slope) == ((2.0,), 1.0)
        assert "fewer than 20 patients" in few.notes[0]
        flat = recalibrate_numbers(np.full(50, 7.0), np.arange(50.0))
        assert (flat.intercepts[0], flat.slope, flat.notes) == (17.5, 1.0, (FLAT_NOTE,))

    @pytest.mark.parametrize("patients", range(FEWEST))
    def test_fewer_than_five_are_refused(self, patients: int) -> None:
        with pytest.raises(RecordFault, match="too few patients"):
            recalibrate_numbers(np.arange(float(patients)), np.arange(float(patients)))
