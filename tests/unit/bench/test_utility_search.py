"""The search for the step size rule: its problems, its training, and what it chooses."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.utility_search import (
    CANDIDATES,
    FAMILIES,
    RULE,
    Candidate,
    Result,
    chosen,
    figures,
    problem,
    score,
    solve,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_without_noise_reaches_much_of_what_the_best_model_does(family: str) -> None:
    quiet = [problem(family, seed) for seed in range(40, 46)]
    reached = [score(replace(task, noise=1e-9), Candidate(RULE), seed=1) for task in quiet]
    assert np.median(reached) > (0.15 if family == "perceptron" else 0.4)


def test_a_useless_model_has_no_figures() -> None:
    labels = np.array([[1.0], [0.0], [0.0], [0.0]])
    assert figures("logistic", np.full((4, 1), math.log(1 / 3)), labels) == pytest.approx((0, 0))
    assert figures("linear", np.full((4, 1), 0.25), labels) == (0.0,)


def test_a_problem_is_the_same_each_time() -> None:
    assert np.array_equal(problem("linear", 3).rows, problem("linear", 3).rows)
    assert solve("linear", 3).rounds["12 rounds"] == 12


def test_the_fewest_rounds_within_the_margin_are_chosen() -> None:
    names = list(CANDIDATES)
    scores = dict.fromkeys(names, 0.5) | {"always 48 rounds": 0.905, "the rule": 0.9}
    rounds = dict.fromkeys(names, 10) | {"always 48 rounds": 48, "the rule": 16}
    assert chosen({"logistic": [Result("some noise", rounds, scores)]}) == "the rule"
    assert chosen({"l": [Result("some noise", rounds, scores | {"the rule": 0.8})]}) == (
        "always 48 rounds"
    )
