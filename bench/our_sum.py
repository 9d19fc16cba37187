"""Our private sum over vectors at hand: the state machines of both sides, driven in memory.

What nodes and the coordinator do between the bytes of one message and the bytes of the next is
charged, to each country and to the coordinator: reading, signing, verifying, masking, sealing,
writing, and a country's state as it would store it. Drawing noise is left out.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.stopwatch import Stopwatch
from protocols.mechanism import Mechanism, Rounding
from protocols.private_sum.opening import CoordinatorRound, OpenedSum, VoidRound
from tests.support.federation import World

KIND, MODEL = "train", b"a query of a few bytes"
STEPS = {"bundle": "bundle", "encapsulate": "encapsulation", "confirm": "confirmation"}
NOISE_STD = 64


def mechanism(dimension: int) -> Mechanism:
    """Return a release of gradients whose factors are rounded: three coordinates to a word."""
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
    """Return c: a third of them, as in Bonawitz et al. 2017; t is then two thirds and one."""
    return max(1, countries // 3)


@dataclass
class OurSum:
    """A run over `values` (n, d) int64, which every opened sum is held against.

    `watch` holds the set-up's seconds.
    """

    world: World
    values: NDArray[np.int64]
    watch: Stopwatch = field(default_factory=Stopwatch)
    rounds: int = 0

    @classmethod
    def ready(cls, values: NDArray[np.int64]) -> Self:
        """Return a run whose set-up is complete."""
        countries, dimension = values.shape
        c = colluding(countries)
        released = (mechanism(dimension),)
        world = World.of(countries, colluding=c, honest=countries - c, mechanisms=released)
        run = cls(world, values)
        for step in STEPS:
            for country in world.terms.roster:
                run._set_up(step, country)
        return run

    @property
    def threshold(self) -> int:
        """The shares that open a seed."""
        return self.world.terms.threshold

    def round(self, watch: Stopwatch) -> int:
        """Run a round in which all take part; return the most bytes that a country sent."""
        self.rounds += 1
        with watch.on("server"):
            opened = self.world.coordinator.begin_round(self.rounds, KIND, MODEL)
        sent = [self._contribute(opened, *one, watch) for one in enumerate(self._roster)]
        with watch.on("server"):
            opened.close()
        sent = [a + self._answer(opened, c, watch) for a, c in zip(sent, self._roster, strict=True)]
        with watch.on("server"):
            found = opened.open()
        self._require_sum(found)
        return max(sent)

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

    def _contribute(
        self, opened: CoordinatorRound, place: int, country: str, watch: Stopwatch
    ) -> int:
        run, values = self.world.countries[country], self.values[place]
        noise = np.zeros_like(values)
        with watch.on("server"):
            request = opened.contribute_request(country)
        with watch.on(f"client {country}"):
            reply = run.contribute(request, values, noise)
            run.to_bytes()
        with watch.on("server"):
            opened.take_contribution(country, reply)
        return len(reply)

    def _answer(self, opened: CoordinatorRound, country: str, watch: Stopwatch) -> int:
        run = self.world.countries[country]
        with watch.on("server"):
            request = opened.answer_request(country)
        with watch.on(f"client {country}"):
            reply = run.answer(request)
            run.to_bytes()
        with watch.on("server"):
            opened.take_answer(country, reply)
        return len(reply)

    def _require_sum(self, found: OpenedSum | VoidRound) -> None:
        whole = self.values.sum(axis=0)
        if isinstance(found, VoidRound) or not np.array_equal(found.values, whole):
            raise RuntimeError("our round opened another sum, or none")
