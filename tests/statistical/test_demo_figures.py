"""The demos' private evaluations: their intervals hold the exact figures that only a demo knows.

A run is the demo's training study without processes, masks and signatures: the study as `study
check` completes it, the nodes' sums of the same records with exact noise, the coordinator's
estimates. Each run draws other splits, roundings and noise, from a fixed seed.

The exact figure is that of the released model on all records, since each node's secret decides who
is held out. An interval is for the population that the held-out patients are drawn from, so at
least 95 % of the intervals should hold it. Of 40, fewer than 34 do with a probability of 0.003.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from client.records.source import Records
from client.tasks.assignment import Assignment
from demo.hospitals import four_hospitals
from demo.reference import exact_figures, predict, records
from demo.registers import four_countries
from demo.world import Site, World, write_documents
from governance.documents.study import Study
from protocols.numerics.discrete_gaussian import Sampler
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import TrainGlm
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.schedule import EVALUATE, TRAIN
from server.learning.estimates import Estimate
from server.learning.evaluate import evaluate
from server.learning.optimiser import OptimiserState, step
from server.services.drafts import read_draft
from server.services.study_checks import complete
from tests.support.documents import agreement
from tests.support.selection import HOSPITALS

pytestmark = pytest.mark.statistical

NOW = datetime(2026, 12, 1, tzinfo=UTC)
RUNS = 40
LEAST_HELD = 34
Release = Callable[[Mechanism, FloatArray], NDArray[np.int64]]


@dataclass(frozen=True)
class Trial:
    """The training study of a demo, ready to be run many times."""

    world: World
    study: Study
    records: tuple[Records, ...]

    @property
    def task(self) -> TrainGlm:
        assert isinstance(self.study.task, TrainGlm)
        return self.study.task

    def run(self, seed: int) -> Counter[tuple[str, bool]]:
        """Return whether each released interval holds the exact figure."""
        release = self._nodes(random.Random(seed))  # noqa: S311 (repeatable)
        model = self._trained(release)
        evaluation = self.task.evaluation
        assert evaluation is not None
        opened = release(self._mechanism(EVALUATE), model)
        mechanism, features = self._mechanism(EVALUATE), self.study.features
        report = evaluate(self.task, features, mechanism, opened, countries=len(self.records))
        people = records(self.world)
        scores, truth = predict(self.world, model, people), people[self.task.target]
        return held(report.everybody.figures, exact_figures(scores, truth, evaluation.boundaries()))

    def _mechanism(self, phase: str) -> Mechanism:
        return next(m for m in self.study.mechanisms if m.phase == phase)

    def _nodes(self, generator: random.Random) -> Release:
        nodes = [self._assignment(each, generator.randbytes(32)) for each in self.records]

        def opened(mechanism: Mechanism, model: FloatArray) -> NDArray[np.int64]:
            draw, payload, entropy = Sampler(generator.randbytes), vector_to_bytes(model), generator
            sums = [
                node.lattice_sum(mechanism, payload, entropy=entropy.randbytes)
                + draw.draw(mechanism.noise_std, mechanism.dimension)
                for node in nodes
            ]
            return np.asarray(np.sum(sums, axis=0), np.int64)

        return opened

    def _assignment(self, of_node: Records, split_secret: bytes) -> Assignment:
        study = self.study
        return Assignment.prepare(
            study.task, study.features, of_node, split_secret=split_secret, split=study.digest
        )

    def _trained(self, release: Release) -> FloatArray:
        task, features, mechanism = self.task, self.study.features, self._mechanism(TRAIN)
        state = OptimiserState.start(task.initial(features))
        for _ in range(mechanism.rounds):
            state = step(task, features, mechanism, state, release(mechanism, state.position))
        return state.model


def held(released: Mapping[str, object], exact: Mapping[str, float]) -> Counter[tuple[str, bool]]:
    estimates = {name: each for name, each in released.items() if isinstance(each, Estimate)}
    return Counter((name, e.low <= exact[name] <= e.high) for name, e in estimates.items())


def trial(world: World) -> Trial:
    terms = world.terms
    agreed = agreement(
        world.countries,
        honest=terms.honest,
        smallest_countries=terms.smallest_countries,
        smallest_cohort=terms.smallest_cohort,
        cohort_count={"epsilon": terms.cohort_epsilon, "delta": 1e-6},
    )
    name = world.training.removeprefix("hospital-")
    text = (write_documents(world, NOW) / f"{name}.yaml").read_text(encoding="utf-8")
    given = {"agreement": agreed.digest, "created": NOW.isoformat()}
    draft = read_draft(text, name, given, lambda study: complete(study, agreed))
    return Trial(world, draft.study, tuple(map(_records, world.sites)))


def _records(site: Site) -> Records:
    opted_out = read_opt_outs(site.opted_out) if site.opted_out else {}
    return CsvSource(site.records, read_dictionary(site.dictionary)).read(opted_out)


def check(tried: Trial, figures: set[str]) -> None:
    total: Counter[tuple[str, bool]] = Counter()
    for seed in range(RUNS):
        total += tried.run(seed)
    assert {name for name, _ in total} == figures
    for name in figures:
        assert total[name, True] >= LEAST_HELD * (total[name, True] + total[name, False]) / RUNS
    inside = sum(count for (_, good), count in total.items() if good)
    assert inside >= 0.9 * total.total(), total


def test_intervals_of_the_four_countries_hold_the_exact_figures(tmp_path: Path) -> None:
    figures = {"accuracy", "auc", "calibration_in_the_large", "expected_calibration_error"}
    check(trial(four_countries(tmp_path)), figures)


@pytest.mark.hospitals
def test_intervals_of_the_four_hospitals_hold_the_exact_figures(tmp_path: Path) -> None:
    """With some 160 held-out patients, the expected calibration error is too noisy."""
    figures = {"accuracy", "auc", "calibration_in_the_large"}
    check(trial(four_hospitals(tmp_path, HOSPITALS)), figures)
