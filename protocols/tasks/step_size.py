"""Choose a step size, and a number of rounds, from the noise of training and public constants.

Noise that is added to gradients walks at random: after T rounds at rate η it has moved a coordinate
of the model by about η·s·√T, where s is its standard deviation in the mean gradient of one round.
The output for a patient with w encoded inputs of about unit spread has then moved by η·s·√(T·w).
The rule takes the largest η for which this is at most `output_noise`, up to `largest_rate`. Nothing
here reads a record: s follows from the schedule, the countries and the public divisor.

Constants chosen with `bench.utility_search`, on invented patients and on no data that a bench
measures. Momentum m makes a step last 1/(1 - m) rounds (Polyak 1964), so η is that much smaller. A
linear model has four times the curvature of a logistic one and no bounded loss: half of η was best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.numerics.mechanism import Mechanism
from protocols.tasks.features import Feature
from protocols.tasks.layout import row_width
from protocols.tasks.training import Family, Training

AUTO = "auto"
"""What a draft says instead of a number, so that the number is chosen."""
LINEAR_PART = 0.5
DIGITS = 3
"""Significant digits of a chosen rate."""


@dataclass(frozen=True)
class StepRule:
    """The rule and its constants.

    `output_noise` is how far the noise of all rounds may move an output, as a standard deviation;
    `largest_rate` holds however small the noise is.
    """

    output_noise: float = 0.7
    largest_rate: float = 2.0
    fewest_rounds: int = 6
    most_rounds: int = 48

    def bound(self, noise: float, width: int, rounds: float) -> float:
        """Return the rate at which `rounds` rounds of noise `noise` move an output that far."""
        return self.output_noise / (noise * math.sqrt(width * rounds))

    def rounds(self, noise: float, width: int, largest: float) -> int:
        """Return the fewest rounds in which the noise, and not `largest`, limits the rate.

        `noise` is that of a single round with the whole budget. More rounds would only take smaller
        steps: at one ε the noise of the whole training depends on rate times rounds alone.
        """
        wanted = min(self.bound(noise, width, 1) / largest, self.most_rounds)
        return max(math.ceil(wanted), self.fewest_rounds)


RULE = StepRule()


@dataclass(frozen=True)
class StepSize:
    """A chosen learning rate, and the noise that it was chosen from.

    `noise` is the standard deviation of the noise in one coordinate of a mean gradient; `limit` the
    largest rate of such a task, however small the noise.
    """

    rate: float
    noise: float
    limit: float

    def sentence(self) -> str:
        """Return how the rate was chosen, in one sentence without a full stop."""
        largest = "the largest for this task, since the noise is small enough"
        how = largest if self.rate >= self.limit else "chosen from the noise"
        return (
            f"learning rate {self.rate:g}, {how}: each value of a round's mean gradient has noise "
            f"of standard deviation {self.noise:.2g}"
        )


def noise_of_mean(task: Training, mechanism: Mechanism, countries: int) -> float:
    """Return the standard deviation of the noise in one coordinate of a round's mean gradient.

    It is that of the opened sum, in which each of the countries adds its share.
    """
    divisor = mechanism.scale * mechanism.sampling_rate * task.patients
    return mechanism.noise_std * math.sqrt(countries) / divisor


def choose_rate(
    task: Training, features: Sequence[Feature], mechanism: Mechanism, countries: int
) -> StepSize:
    """Return the learning rate for a task whose gradients are released by `mechanism`.

    The task's own `learning_rate` is not used. In local mode a mechanism's rounds are the steps of
    one country, whose noise the mean over countries reduces as an opened sum does.
    """
    noise, part = noise_of_mean(task, mechanism, countries), _part(task)
    bound = RULE.bound(noise, _width(task, features), mechanism.rounds * _decay(task))
    return StepSize(
        _rounded(part * min(_largest(task), bound)), noise, _rounded(part * _largest(task))
    )


def choose_rounds(
    task: Training, features: Sequence[Feature], mechanism: Mechanism, countries: int
) -> int:
    """Return the number of rounds for a task; `mechanism` may have any number of them."""
    noise = noise_of_mean(task, mechanism, countries) * math.sqrt(_decay(task) / mechanism.rounds)
    return RULE.rounds(noise, _width(task, features), _largest(task))


def rounds_sentence(rounds: int) -> str:
    """Return how a number of rounds was chosen, in one sentence without a full stop."""
    if rounds == RULE.most_rounds:
        how = "the most that are chosen, since the noise is small enough"
    elif rounds == RULE.fewest_rounds:
        how = "the fewest that are chosen, since the noise is large"
    else:
        how = "chosen from the noise"
    return f"{rounds} rounds, {how}"


def _largest(task: Training) -> float:
    """Return the largest rate; with a strong penalty, one at which its own steps converge."""
    return min(RULE.largest_rate, 1 / task.l2) if task.l2 else RULE.largest_rate


def _width(task: Training, features: Sequence[Feature]) -> int:
    """Return how many encoded inputs an output depends on, the bias included."""
    return row_width(task.input_features(features))


def _part(task: Training) -> float:
    return (1 - task.momentum) * (LINEAR_PART if task.family is Family.LINEAR else 1.0)


def _decay(task: Training) -> float:
    """Return the mean square of the rounds' rates, as parts of the first one's."""
    rates = [task.rate_at(number) / task.learning_rate for number in range(1, task.rounds + 1)]
    return math.fsum(rate**2 for rate in rates) / task.rounds


def _rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
