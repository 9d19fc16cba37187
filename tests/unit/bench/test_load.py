"""The load run's figures: which of them are too high, and that an honest call may fail."""

from typing import Any

import pytest

from bench.load import CALLS_A_SECOND, MOST_MIB, Honest, measured, shortfalls
from protocols.wire.channel import LinkFault

GOOD = {
    "honest_failures": 0,
    "failures": [],
    "quiet_p95_ms": 10.0,
    "p95_ms": 99.0,
    "peak_mib": 200.0,
}


class Link:
    """Every call takes no time; some fail."""

    def __init__(self, fault: LinkFault | None = None) -> None:
        self._fault = fault

    def fetch(self, path: str, seconds: float) -> None:
        if self._fault:
            raise self._fault


def test_good_figures_miss_nothing() -> None:
    assert shortfalls(GOOD) == []
    assert shortfalls(GOOD | {"quiet_p95_ms": 50.0, "p95_ms": 149.0}) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"p95_ms": 101.0}, "over 100 ms"),
        ({"quiet_p95_ms": 50.0, "p95_ms": 151.0}, "over 150 ms"),
        ({"peak_mib": MOST_MIB}, "1024 MiB"),
        ({"honest_failures": 2, "failures": ["no answer"]}, "2 honest calls failed: no answer"),
    ],
)
def test_each_bound_that_is_missed_is_named(changed: dict[str, Any], says: str) -> None:
    (missed,) = shortfalls(GOOD | changed)
    assert says in missed


def test_calls_are_made_at_a_steady_rate_and_failures_are_kept() -> None:
    links: list[Any] = [Link(), Link(LinkFault("The exchange does not answer"))] * 8
    honest = measured(links, 0.5)
    calls = len(honest.seconds) + len(honest.failures)
    assert 0 < calls <= CALLS_A_SECOND
    assert set(honest.failures) == {"The exchange does not answer."}


def test_the_time_of_95_per_cent_is_in_milliseconds() -> None:
    assert Honest(seconds=[0.001] * 95 + [1.0] * 5).p95_ms == 1.0
