"""Run this project's private sum over given vectors: both sides' state machines, in memory.

The time of each country and of the coordinator is measured from the bytes of one message to the
bytes of the next: reading, signing, verifying, masking, sealing, writing, and the state that a
country would store. Drawing noise is not included.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.stopwatch import Stopwatch
from protocols.numerics.mechanism import Mechanism, Rounding
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from tests.support.protocol_world import ProtocolWorld

KIND, MODEL = "train", b"a query of a few bytes"
STEPS = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}
NOISE_STD = 64
Ask = Callable[[str], bytes]
Reply = Callable[[str, bytes], bytes]


def mechanism(dimension: int) -> Mechanism:
    """Return a release of gradients whose factors are rounded; a word holds three coordinates."""
    return Mechanism(
        phase=KIND,
        rounds=1000,
        dimension=dimension,
        clip_norm=1,
        scale=64,
        noise_std=NOISE_STD,
        patients_bound=10_000,
        rounding=Rounding.FACTORED,
    )


def colluding(countries: int) -> int:
    """Return c, a third of the countries as in Bonawitz et al. 2017; t is two thirds plus one."""
    return max(1, countries // 3)


@dataclass
class OurSum:
    """A run over `values` (n, d) int64, with which every opened sum is compared.

    `watch` has the seconds of the set-up.
    """

    world: ProtocolWorld
    values: NDArray[np.int64]
    watch: Stopwatch = field(default_factory=Stopwatch)
    rounds: int = 0

    @classmethod
    def ready(cls, values: NDArray[np.int64]) -> Self:
        """Return a run whose set-up is complete."""
        countries, dimension = values.shape
        c = colluding(countries)
        released = (mechanism(dimension),)
        world = ProtocolWorld.of(countries, colluding=c, honest=countries - c, mechanisms=released)
        run = cls(world, values)
        for step in STEPS:
            for country in world.terms.roster:
                run._set_up(step, country)
        return run

    @property
    def threshold(self) -> int:
        """How many shares open a seed."""
        return self.world.terms.threshold

    def round(self, watch: Stopwatch) -> int:
        """Run a round with all countries; return the bytes of the country that sent the most."""
        self.rounds += 1
        with watch.on("server"):
            coordinator_round = self.world.coordinator.begin_round(self.rounds, KIND, MODEL)
        masked = self._gathered(coordinator_round.contribute_request, self._contribute, watch)
        with watch.on("server"):
            for country, reply in masked.items():
                coordinator_round.take_contribution(country, reply)
            coordinator_round.close()
        answers = self._gathered(coordinator_round.answer_request, self._answer, watch)
        with watch.on("server"):
            for country, reply in answers.items():
                coordinator_round.take_answer(country, reply)
            result = coordinator_round.open()
        self._require_sum(result)
        return max(len(reply) + len(answers[country]) for country, reply in masked.items())

    @cached_property
    def _no_noise(self) -> NDArray[np.int64]:
        return np.zeros(self.values.shape[1], np.int64)

    @property
    def _roster(self) -> tuple[str, ...]:
        return self.world.terms.roster

    def _set_up(self, step: str, country: str) -> None:
        with self.watch.on("server"):
            request = getattr(self.world.coordinator, f"{step}_request")(country)
        with self.watch.on(f"client {country}"):
            reply = getattr(self.world.countries[country], step)(request)
            self.world.countries[country].to_bytes()
        with self.watch.on("server"):
            getattr(self.world.coordinator, f"take_{STEPS[step]}")(country, reply)

    def _gathered(self, ask: Ask, reply: Reply, watch: Stopwatch) -> dict[str, bytes]:
        """Make all requests first, then all replies, in the order of the real coordinator."""
        with watch.on("server"):
            requests = {country: ask(country) for country in self._roster}
        replies = {}
        for country, request in requests.items():
            with watch.on(f"client {country}"):
                replies[country] = reply(country, request)
                self.world.countries[country].to_bytes()
        return replies

    def _contribute(self, country: str, request: bytes) -> bytes:
        values = self.values[self._roster.index(country)]
        return self.world.countries[country].contribute(request, values, self._no_noise)

    def _answer(self, country: str, request: bytes) -> bytes:
        return self.world.countries[country].answer(request)

    def _require_sum(self, result: OpenedSum | VoidRound) -> None:
        expected = self.values.sum(axis=0)
        if isinstance(result, VoidRound) or not np.array_equal(result.values, expected):
            raise RuntimeError("our round opened another sum than the true one, or none")
