import math
from typing import Any

import pytest

from protocols.numerics.mechanism import Mechanism
from protocols.tasks import Family, TrainGlm
from protocols.tasks.layout import row_width
from protocols.tasks.step_size import (
    RULE,
    StepRule,
    choose_rate,
    choose_rounds,
    noise_of_mean,
    rounds_sentence,
)
from tests.support.patients import FEATURES, glm, mlp, release

COUNTRIES = 4


def noisy(task: TrainGlm, noise: float) -> Mechanism:
    """Return the training release with about this noise in a mean gradient."""
    mechanism = release(task, task.gradient_phase)
    std = noise * mechanism.scale * mechanism.sampling_rate * task.patients / math.sqrt(COUNTRIES)
    return mechanism.model_copy(update={"noise_std": round(std)})


def rate(noise: float, **changes: Any) -> float:
    task = glm(**{"rounds": 16, "patients": 10_000, **changes})
    return choose_rate(task, FEATURES, noisy(task, noise), COUNTRIES).rate


def test_the_noise_of_all_rounds_moves_an_output_by_what_the_rule_says() -> None:
    task = glm(rounds=16, patients=10_000)
    width = row_width(task.input_features(FEATURES))
    moved = rate(0.1) * 0.1 * math.sqrt(16) * math.sqrt(width)
    assert moved == pytest.approx(RULE.output_noise, rel=0.01)


def test_a_rate_is_written_with_three_digits() -> None:
    assert rate(0.1234) == float(f"{rate(0.1234):.3g}")


def test_the_noise_is_that_of_the_opened_sum_divided_by_public_constants() -> None:
    task = glm(sampling_rate=0.25, patients=80)
    mechanism = release(task, "train").model_copy(update={"noise_std": 600})
    assert noise_of_mean(task, mechanism, 9) == 600 * 3 / (mechanism.scale * 0.25 * 80)


def test_little_noise_gives_the_largest_rate() -> None:
    size = choose_rate(glm(patients=10**6), FEATURES, noisy(glm(patients=10**6), 1e-4), COUNTRIES)
    assert size.rate == RULE.largest_rate
    assert size.sentence() == (
        "learning rate 2, the largest for this task, since the noise is small enough: each value "
        "of a round's mean gradient has noise of standard deviation 0.0001"
    )


@pytest.mark.parametrize(
    ("rounds", "how"),
    [
        (RULE.fewest_rounds, "the fewest that are chosen, since the noise is large"),
        (20, "chosen from the noise"),
        (RULE.most_rounds, "the most that are chosen, since the noise is small enough"),
    ],
)
def test_the_noise_is_named_as_the_reason_only_if_it_decided(rounds: int, how: str) -> None:
    assert rounds_sentence(rounds) == f"{rounds} rounds, {how}"


def test_more_noise_or_more_rounds_give_smaller_steps() -> None:
    assert rate(0.2) == pytest.approx(rate(0.1) / 2, rel=0.01)
    assert rate(0.1, rounds=64) == pytest.approx(rate(0.1) / 2, rel=0.01)


def test_momentum_counts_since_it_lengthens_every_step() -> None:
    assert rate(0.1, momentum=0.75) == pytest.approx(rate(0.1) / 4, rel=0.01)
    assert rate(1e-3, momentum=0.75) == RULE.largest_rate / 4


def test_a_number_as_target_gets_half_the_rate() -> None:
    linear = {"family": Family.LINEAR, "target": "pressure"}
    assert rate(0.1, **linear) == pytest.approx(rate(0.1) / 2, rel=0.01)
    assert rate(1e-3, **linear) == RULE.largest_rate / 2


def test_levels_of_a_target_do_not_reduce_the_rate() -> None:
    levels = {"family": Family.MULTINOMIAL, "target": "stage"}
    assert rate(0.1, **levels) == pytest.approx(rate(0.1), rel=0.01)


@pytest.mark.parametrize("l2", [0.1, 0.5, 1.0, 10.0])
def test_the_penalty_alone_never_makes_training_diverge(l2: float) -> None:
    assert rate(1e-3, l2=l2) == min(RULE.largest_rate, 1 / l2)


def test_a_decaying_rate_starts_higher() -> None:
    flat, cosine = (mlp(rounds=40, decay=decay, patients=10_000) for decay in ("none", "cosine"))
    mechanism = noisy(glm(rounds=40, patients=10_000), 0.1)
    rates = [choose_rate(task, FEATURES, mechanism, COUNTRIES).rate for task in (flat, cosine)]
    assert rates[1] == pytest.approx(rates[0] / math.sqrt(3 / 8), rel=0.05)


def test_the_steps_of_local_mode_count_and_not_its_rounds() -> None:
    assert rate(0.1, rounds=4, local={"steps": 4}) == rate(0.1)


@pytest.mark.parametrize(("noise", "rounds"), [(1e-4, 48), (0.5, 6)])
def test_rounds_stay_within_their_limits(noise: float, rounds: int) -> None:
    task = glm(rounds=48, patients=10_000)
    assert choose_rounds(task, FEATURES, noisy(task, noise), COUNTRIES) == rounds


@pytest.mark.parametrize("preliminary", [3, 48, 1_000])
def test_rounds_are_as_few_as_the_largest_rate_allows(preliminary: int) -> None:
    """At one ε the noise of a round grows with the root of their number."""
    task, once = glm(rounds=preliminary, patients=10_000), 0.01
    mechanism = noisy(task, once * math.sqrt(preliminary))
    rounds = choose_rounds(task, FEATURES, mechanism, COUNTRIES)
    assert rounds == RULE.rounds(once, row_width(task.input_features(FEATURES)), RULE.largest_rate)
    assert RULE.fewest_rounds < rounds < RULE.most_rounds
    assert rate(once * math.sqrt(rounds), rounds=rounds) > 0.9 * RULE.largest_rate
    assert rate(once * math.sqrt(rounds - 1), rounds=rounds - 1) == RULE.largest_rate


def test_noise_that_is_almost_nothing_or_enormous_gives_numbers_that_a_study_may_hold() -> None:
    rule = StepRule()
    assert rule.rounds(1e-300, 1, 2.0) == rule.most_rounds
    assert rule.rounds(1e12, 10**6, 2.0) == rule.fewest_rounds
    task = glm(patients=1)
    huge = release(task, "train").model_copy(update={"noise_std": 2**40})
    assert choose_rate(task, FEATURES, huge, 200).rate > 0
