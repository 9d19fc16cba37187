"""A carrier to countries in this process that are honest unless a test makes them misbehave."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Refusal
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.messages import refusal_reply
from protocols.proto.round_pb2 import (
    PHASE_AGREE,
    PHASE_ANSWER,
    PHASE_BUNDLE,
    PHASE_CONFIRM,
    PHASE_CONTRIBUTE,
    PHASE_ENCAPSULATE,
)
from protocols.proto.round_pb2 import Request as Envelope
from server.runs.rounds import ATTEMPTS, RoundDriver, RoundReport
from tests.support.protocol_world import MODEL, TRAIN, ProtocolWorld

PHASES = {
    PHASE_BUNDLE: "bundle",
    PHASE_ENCAPSULATE: "encapsulate",
    PHASE_CONFIRM: "confirm",
    PHASE_CONTRIBUTE: "contribute",
    PHASE_AGREE: "agree",
    PHASE_ANSWER: "answer",
}
Answer = Callable[[bytes], bytes | None]


def phase_of(frame: bytes) -> str:
    return PHASES[Envelope.FromString(frame).signed.phase]


class DirectCarrier:
    """Delivers frames to the countries of a protocol world; `misbehave` replaces their answers.

    A country answers a frame that it has seen before with the same bytes, as its journal does.
    """

    def __init__(self, world: ProtocolWorld, values: Mapping[str, Any]) -> None:
        self._world, self._values = world, values
        self._misbehaviour: dict[tuple[str, str], list[Answer]] = {}
        self._journal: dict[tuple[str, bytes], bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.frames: dict[tuple[str, str], bytes] = {}
        self.seconds: list[float] = []

    def misbehave(self, country: str, phase: str, *answers: Answer) -> None:
        """Give these answers to the next messages of `phase`; then the country is honest again."""
        self._misbehaviour[country, phase] = list(answers)

    def exchange(
        self, frames: Mapping[str, bytes], seconds: float, largest_reply: int
    ) -> Mapping[str, bytes]:
        self.seconds.append(seconds)
        replies = {country: self._reply(country, frame) for country, frame in frames.items()}
        return {country: reply for country, reply in replies.items() if reply is not None}

    def _reply(self, country: str, frame: bytes) -> bytes | None:
        phase = phase_of(frame)
        self.asked.append((country, phase))
        self.frames[country, phase] = frame
        answers = self._misbehaviour.get((country, phase))
        return answers.pop(0)(frame) if answers else self.honest(country, frame)

    def honest(self, country: str, frame: bytes) -> bytes:
        if (country, frame) not in self._journal:
            try:
                self._journal[country, frame] = self._compute(country, frame)
            except Refusal as refusal:
                return refusal_reply(refusal.code)
        return self._journal[country, frame]

    def _compute(self, country: str, frame: bytes) -> bytes:
        run, phase = self._world.countries[country], phase_of(frame)
        if phase == "contribute":
            values = self._values[country]
            no_noise = np.zeros_like(values)
            return run.contribute(frame, values, no_noise)
        return bytes(getattr(run, phase)(frame))


class DrivenRun:
    """A round driver, a protocol world, and a carrier between them."""

    def __init__(self, world: ProtocolWorld) -> None:
        self.roster = world.terms.roster
        ones = np.ones(TRAIN.dimension, np.int64)
        # Powers of 7: the sum shows which countries' values it has, and how often each.
        self.values: dict[str, NDArray[np.int64]] = {
            country: ones * 7**index for index, country in enumerate(self.roster)
        }
        self.carrier = DirectCarrier(world, self.values)
        self.driver = RoundDriver(
            world.coordinator,
            self.roster,
            self.carrier,
            seconds=1.0,
            keep_closed=lambda *_: None,
            sleep=lambda _: None,
        )

    def drop_replies(self, countries: tuple[str, ...], *phases: str) -> None:
        for country in countries:
            for phase in phases:
                self.carrier.misbehave(country, phase, *[lambda _: None] * ATTEMPTS)

    def round(self, number: int) -> RoundReport:
        self.carrier.asked.clear()
        report = self.driver.sum(number, "train", MODEL)
        asked = self.carrier.asked
        assert all(asked.count(question) <= ATTEMPTS for question in asked)
        return report

    def require(self, report: RoundReport, remaining: tuple[str, ...]) -> None:
        assert isinstance(report.outcome, OpenedSum)
        assert report.outcome.countries == remaining
        assert (report.outcome.values == sum(self.values[country] for country in remaining)).all()
