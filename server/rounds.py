"""The rounds of one run: three set-up messages, then two messages a round.

It drives the coordinator's side of the private sum over any carrier, and knows neither Flower
nor what is learnt. A country that is silent is asked once more, with the same bytes; it answers
with the same bytes, or the round is void.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocols.errors import ProtocolFault, Refusal
from protocols.private_sum.coordinator import CoordinatorRun
from protocols.private_sum.opening import OpenedSum, VoidRound
from server.carrier import Carrier
from server.errors import OperationFault

ATTEMPTS = 2


class SetUpFailed(OperationFault):
    """A run that could not begin; `causes` says why, by country."""

    def __init__(self, causes: Mapping[str, str]) -> None:
        self.causes = dict(causes)
        listed = "; ".join(f"{country}: {cause}" for country, cause in sorted(causes.items()))
        super().__init__(
            "The countries could not agree keys for this run",
            why=listed,
            fix="see `status` on the nodes named; launch again when they are ready",
        )


@dataclass(frozen=True)
class RoundReport:
    """What came of a round, for the watcher and the log."""

    number: int
    phase: str
    seconds: float
    outcome: OpenedSum | VoidRound
    causes: Mapping[str, str]


Take = Callable[[str, bytes], None]
Ask = Callable[[str], bytes]


class Conductor:
    """Leads one run."""

    def __init__(
        self, run: CoordinatorRun, roster: tuple[str, ...], carrier: Carrier, *, seconds: float
    ) -> None:
        """`seconds`: how long a country may take to reply to one message."""
        self._run, self._roster, self._carrier = run, roster, carrier
        self._seconds = seconds

    def set_up(self) -> None:
        """Agree keys among all countries. Raises SetUpFailed naming those at fault."""
        run = self._run
        phases: tuple[tuple[Ask, Take], ...] = (
            (run.bundle_request, run.take_bundle),
            (run.encapsulate_request, run.take_encapsulation),
            (run.confirm_request, run.take_confirmation),
        )
        for ask, take in phases:
            if causes := self._gather(ask, take):
                raise SetUpFailed(causes)

    def sum(self, number: int, phase: str, model: bytes) -> RoundReport:
        """Lead round `number`; returns what opened, or that it is void and why."""
        started = time.monotonic()
        current = self._run.begin_round(number, phase, model)
        causes = self._gather(current.contribute_request, current.take_contribution)
        if not causes:
            causes = self._gather(current.answer_request, current.take_answer)
        return RoundReport(number, phase, time.monotonic() - started, current.open(), causes)

    def _gather(self, ask: Ask, take: Take) -> dict[str, str]:
        """Ask every country and take its reply; returns what is wrong, by country."""
        causes = dict.fromkeys(self._roster, "no reply in time")
        silent = {country: ask(country) for country in self._roster}
        for _ in range(ATTEMPTS):
            replies = self._carrier.exchange(silent, self._seconds)
            for country, reply in replies.items():
                _take(take, country, reply, causes)
                silent.pop(country)
            if not silent:
                break
        return causes


def _take(take: Take, country: str, reply: bytes, causes: dict[str, str]) -> None:
    try:
        take(country, reply)
    except Refusal as refusal:
        causes[country] = f"refused ({refusal.code})"
    except ProtocolFault as fault:
        causes[country] = fault.what
    else:
        del causes[country]
