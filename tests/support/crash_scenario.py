"""One run of a study in which one country's node is killed again and again, and the rest goes on.

The coordinator is the real state machine, and repeats each request until it is answered. Whenever
the node is killed, its ledger, journal and log must be right, and the run must end with the right
sums.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from client.border.failpoints import Failpoint
from governance.documents.study import Study
from governance.policy.assessment import ledger_terms
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum
from tests.support.crashing_node import CrashingNode, fixed, recorded_draws
from tests.support.documents import COHORT_NOISE, COUNTRIES, study_fields, with_schedule
from tests.support.node_federation import (
    STEPS,
    NodeFederation,
    Run,
    code_of,
    keyring_of,
)
from tests.support.state_checks import Place, StateChecks

NOISE_STD = 30_000
"""The noise that the ledger is charged for; the drawn noise is small, and recorded."""
PHASES = {"bundle": "bundle", "encapsulation": "encapsulate", "confirmation": "confirm"}
COUNT = (
    Failpoint.FLOOR_PREPARED,
    Failpoint.FLOOR_RESERVED,
    Failpoint.FLOOR_CHARGE_LOGGED,
    Failpoint.FLOOR_CHARGED,
    Failpoint.FLOOR_COUNTED,
    Failpoint.FLOOR_NOISED,
    Failpoint.FLOOR_WRITTEN,
)
KEEP = (
    Failpoint.OUTBOX_MADE,
    Failpoint.OUTBOX_JOURNALLED,
    Failpoint.OUTBOX_ADVANCED,
    Failpoint.OUTBOX_LOGGED,
)
SENT = (Failpoint.OUTBOX_KEPT,), (Failpoint.HEAD_MOVED,)
DOOR = (
    Failpoint.DOOR_PERMITTED,
    Failpoint.DOOR_PREPARED,
    Failpoint.DOOR_RESERVED,
    Failpoint.DOOR_CHARGE_LOGGED,
    Failpoint.DOOR_CHARGED,
    Failpoint.DOOR_SUMMED,
    Failpoint.DOOR_NOISED,
)
WAYS: dict[str, tuple[tuple[Failpoint, ...], ...]] = {
    "bundle": (COUNT, (Failpoint.FLOOR_KEPT,), (Failpoint.FLOOR_PASSED, *KEEP), *SENT),
    "encapsulate": (KEEP, *SENT),
    "confirm": (KEEP, *SENT),
    "contribute": ((*DOOR, *KEEP), *SENT),
    "agree": (KEEP, *SENT),
    "answer": (KEEP, *SENT),
}
"""The failpoints of each message, in order and in groups: after a kill at one point of a group, the
next attempt still passes the others."""
LEFT, MOMENT, STATEMENT = "left", "moment", "statement"
"""Killed right after a reply has left, at a random moment, before or after an SQL statement."""
MAX_STATEMENTS = 400


@dataclass
class Plan:
    """When the node is killed.

    At each failpoint of each message with probability `points`; after each reply with probability
    `left`; `moments` times per message, up to `longest` seconds after it arrived; and before or
    after every `stride`-th SQL statement, if that is not 0. In order, no attempt has passed a point
    before it is killed there; if `shuffled`, earlier attempts may have.
    """

    seed: int
    points: float = 1.0
    left: float = 1.0
    moments: int = 0
    longest: float = 0.15
    stride: int = 0
    shuffled: bool = False

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311  a campaign can be repeated

    def steps(self, phase: str, *, last: bool) -> Iterator[Failpoint]:
        """Yield the failpoints at which one message's attempts are killed, in turn."""
        for group in WAYS[phase]:
            ending = (Failpoint.OUTBOX_ENDED,) if last and group is KEEP else ()
            chosen = [s for s in (*group, *ending) if self.random.random() < self.points]
            if self.shuffled:
                self.random.shuffle(chosen)
            yield from chosen

    def statements(self) -> Iterator[int]:
        """Yield the statements at which one message's attempts are killed, in turn."""
        if self.stride:
            yield from range(1 + self.random.randrange(self.stride), MAX_STATEMENTS, self.stride)
            raise AssertionError("every statement killed the node")


@dataclass
class ScenarioParties:
    """A federation, one node of which is killed, and the checks of its state."""

    federation: NodeFederation
    country: str
    deaths: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for country in COUNTRIES:
            self.federation.restart(country, entropy=fixed)
        self.federation.nodes[self.country].parts.engine.dispose()
        agreed = self.federation.documents.agreed
        budget = ledger_terms(agreed, "patients", self.federation.clock())
        self.state_checks = StateChecks(
            self.federation.home(self.country).database,
            self.country,
            keyring_of(self.country).log_key,
            budget.cap_micro,
        )
        self.node = CrashingNode(self.federation, self.country)

    def approved(self, name: str, noise_std: int = NOISE_STD, **changes: object) -> Study:
        """Return a study that every country has approved, the killed node's too."""
        self.node.kill()
        mortal = self.federation.restart(self.country, entropy=fixed)
        agreed = self.federation.documents.agreed
        study = with_schedule(
            Study.model_validate(study_fields(agreed, id=name, **changes)),
            noise_std,
            cohort_noise=min(noise_std, COHORT_NOISE),
        )
        self.federation.documents.propose(study)
        for country in COUNTRIES:
            self.federation.permit(country, study)
        self.federation.sync()
        mortal.parts.engine.dispose()
        return study

    def died(self, phase: str, where: str) -> None:
        """Count a kill, and check the state that it left."""
        self.deaths[phase, where] += 1
        self.state_checks.check()


class CrashScenario:
    """One run; `without` names a country that is left out, by round number."""

    def __init__(
        self,
        parties: ScenarioParties,
        study: Study,
        plan: Plan,
        model: bytes = b"",
        without: Mapping[int, str] | None = None,
    ) -> None:
        self.parties, self._without = parties, without or {}
        self._study, self._plan, self._model = study, plan, model
        self.run: Run = parties.federation.run(study)
        leaving = [m for m in study.mechanisms if m.leaves_country]
        self._rounds = [m.phase for m in leaving for _ in range(m.rounds)]
        parties.state_checks.schedules[self.run.id] = Counter(m.phase for m in study.charged_by_run)

    def run_to_end(self) -> None:
        """Drive the run to its end; every sum must be right."""
        assert self.until_refused() is None
        state_checks = self.parties.state_checks
        assert state_checks.charged(self.run.id) == state_checks.schedules[self.run.id]

    def until_refused(self) -> ReasonCode | None:
        """Drive the run to its end, or to the first refusal; return the code of the refusal."""
        for step in STEPS:
            for country in self.run.terms.roster:
                frame = self.run.request(step, country)
                reply = self._reply(country, frame, (self.run.id, 0, PHASES[step]))
                if code_of(reply) is not None:
                    return code_of(reply)
                self.run.take(step, country, reply)
        for number, phase in enumerate(self._rounds, start=1):
            refused = self._round(number, phase)
            if refused is not None:
                return refused
        return None

    def _round(self, number: int, phase: str) -> ReasonCode | None:
        coordinator_round = self.run.coordinator.begin_round(number, phase, self._model)
        place, away = (self.run.id, number, "contribute"), self._without.get(number, "")
        for country in self.run.terms.roster:
            if country == away:
                continue
            reply = self._reply(country, coordinator_round.contribute_request(country), place)
            if code_of(reply) is not None:
                return code_of(reply)
            coordinator_round.take_contribution(country, reply)
        noise = recorded_draws(self.parties.node.draws)[-1]
        chosen = coordinator_round.close()
        if away:
            self._assents(coordinator_round, number)
        self._answers(coordinator_round, number)
        result = coordinator_round.open()
        assert isinstance(result, OpenedSum), result
        assert result.values.tolist() == (self._expected(phase, chosen) + noise).tolist()
        assert result.countries == tuple(one for one in self.run.terms.roster if one != away)
        return None

    def _assents(self, coordinator_round: CoordinatorRound, number: int) -> None:
        place = (self.run.id, number, "agree")
        for country in coordinator_round.close():
            coordinator_round.take_assent(
                country, self._reply(country, coordinator_round.agree_request(country), place)
            )

    def _answers(self, coordinator_round: CoordinatorRound, number: int) -> None:
        place = (self.run.id, number, "answer")
        for country in coordinator_round.close():
            coordinator_round.take_answer(
                country, self._reply(country, coordinator_round.answer_request(country), place)
            )

    def _expected(self, phase: str, countries: Collection[str]) -> NDArray[np.int64]:
        """Return the sum over countries without noise, with the same sampling and rounding."""
        mechanism = next(m for m in self._study.mechanisms if m.phase == phase)
        parts = [
            node.parts.tasks.prepared(self._study).assignment.lattice_sum(
                mechanism, self._model, entropy=fixed
            )
            for country, node in self.parties.federation.nodes.items()
            if country in countries
        ]
        total: NDArray[np.int64] = np.sum(parts, axis=0, dtype=np.int64)
        return total

    def _reply(self, country: str, frame: bytes, place: Place) -> bytes:
        if country != self.parties.country:
            return self.parties.federation.nodes[country].handle(frame)
        self.interrupt(frame, place)
        return self._survive(frame, place)

    def interrupt(self, frame: bytes, place: Place) -> None:
        """Kill the node during one message, as often as the plan says."""
        self._die_at_points(frame, place)
        self._die_at_moments(frame, place)
        self._die_at_statements(frame, place)

    def _die_at_points(self, frame: bytes, place: Place) -> None:
        parties, (_, number, phase) = self.parties, place
        last = phase == "answer" and number == len(self._rounds)
        for step in self._plan.steps(phase, last=last):
            reply = parties.node.ask(frame, die_at=step)
            if reply is not None and code_of(reply) is not None:
                return
            assert reply is None, f"{phase} did not pass {step}"
            parties.died(phase, step)

    def _die_at_moments(self, frame: bytes, place: Place) -> None:
        for _ in range(self._plan.moments):
            seconds = self._plan.random.uniform(0, self._plan.longest)
            reply = self.parties.node.ask(frame, seconds=seconds)
            if reply is None:
                self.parties.died(place[2], MOMENT)
            elif code_of(reply) is None:
                self.parties.state_checks.took(place, reply)

    def _die_at_statements(self, frame: bytes, place: Place) -> None:
        for number in self._plan.statements():
            reply = self.parties.node.ask(frame, die_at=f"#{number}")
            if reply is not None:
                assert code_of(reply) is None
                self.parties.state_checks.took(place, reply)
                return
            self.parties.died(place[2], STATEMENT)

    def _survive(self, frame: bytes, place: Place) -> bytes:
        """Return the reply; if one was on disk, it must be the same, and no noise is drawn."""
        parties = self.parties
        before, drawn = parties.state_checks.kept.get(place), recorded_draws(parties.node.draws)
        reply = parties.node.ask(frame)
        assert reply is not None
        if code_of(reply) is not None:
            return reply
        parties.state_checks.took(place, reply)
        if before is not None:
            assert reply == before, f"another reply left at {place} than was kept"
            assert recorded_draws(parties.node.draws) == drawn, (
                "noise was drawn for a sum that may have left"
            )
        if self._plan.random.random() < self._plan.left:
            parties.node.kill()
            parties.died(place[2], LEFT)
            again = parties.node.ask(frame)
            assert again == reply, f"a repetition at {place} got other bytes"
        return reply
