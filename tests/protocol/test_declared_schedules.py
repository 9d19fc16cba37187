"""A study is charged for the steps and samples that it declares, and nodes allow no others.

The case is FLamby's Fed-Heart-Disease benchmark with differential privacy (Ogier du Terrail et al.
2022): 15 rounds of 100 updates with shuffled batches of 4, in a centre of 30 patients, were
accounted by Opacus as 15 epochs, for a nominal ε = 1 at δ = 1e-4.
"""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier
from pydantic import ValidationError

from governance.budget.accounting import epsilon, noise_multiplier
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks import TrainGlm
from protocols.tasks.layout import vector_to_bytes
from server.errors import CoordinatorFault
from server.services.study_checks import complete
from tests.support.documents import COHORT_NOISE, study_fields
from tests.support.node_federation import (
    NodeFederation,
    Run,
    code_of,
    last_refusal,
)

pytestmark = pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning")

PATIENTS, BATCH, EPOCHS = 30, 4, 15
ROUNDS, UPDATES = 15, 100
NOMINAL, DELTA = 1.0, 1e-4
BATCHES = math.ceil(PATIENTS / BATCH)
RATE = 1 / BATCHES
"""The rate that Opacus computes from a loader: one by the number of batches, not 4 / 30."""
QUIET = 2**30
"""Noise with which counts cost almost nothing."""


@cache
def flamby_noise(accountant: str) -> float:
    """Return the noise multiplier that Opacus computes from these inputs."""
    multiplier = get_noise_multiplier(
        target_epsilon=NOMINAL,
        target_delta=DELTA,
        sample_rate=RATE,
        epochs=EPOCHS,
        accountant=accountant,
    )
    return float(multiplier)


def opacus_epsilon(accountant: str, steps: int) -> float:
    """Return the ε that Opacus states for so many steps with that noise."""
    book = create_accountant(accountant)
    book.history = [(flamby_noise(accountant), RATE, steps)]
    return float(book.get_epsilon(DELTA))


def steps_of(count: int, accountant: str, rate: float = RATE, shares: int = 1) -> Mechanism:
    """Return so many gradient releases with the noise that Opacus computed."""
    bare = Mechanism(
        phase="train",
        rounds=count,
        sampling_rate=rate,
        dimension=14,
        clip_norm=1.0,
        scale=2**16,
        noise_std=3,
        patients_bound=PATIENTS,
        scope=Scope.LOCAL if shares == 1 else Scope.SHARED,
    )
    std = math.sqrt((flamby_noise(accountant) ** 2 * bare.squared_sensitivity + 4) / shares)
    return bare.model_copy(update={"noise_std": math.floor(std)})


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_the_inputs_given_to_opacus_cost_the_nominal_epsilon(accountant: str) -> None:
    declared = EPOCHS * BATCHES
    assert declared == 120
    assert opacus_epsilon(accountant, declared) == pytest.approx(NOMINAL, abs=0.01)
    ours = steps_of(declared, accountant)
    assert noise_multiplier(ours, 2) == pytest.approx(flamby_noise(accountant), rel=1e-4)
    assert epsilon([ours], 2, DELTA) == pytest.approx(opacus_epsilon("prv", declared), abs=0.12)


@pytest.mark.parametrize(("accountant", "least"), [("prv", 4.15), ("rdp", 3.73)])
def test_the_steps_that_were_taken_cost_their_real_epsilon(accountant: str, least: float) -> None:
    """4.16 with the noise of today's Opacus, 3.73 with that of its older accountant (σ = 5)."""
    done = steps_of(ROUNDS * UPDATES, accountant)
    stated = epsilon([done], 2, DELTA)
    assert round(stated, 2) >= least
    assert stated == pytest.approx(least, abs=0.02)


@pytest.mark.parametrize("rate", [BATCH / PATIENTS, 1.0])
def test_batches_of_four_or_no_amplification_cost_even_more(rate: float) -> None:
    assert epsilon([steps_of(ROUNDS * UPDATES, "rdp", rate)], 2, DELTA) > 3.73


def training(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": ROUNDS,
        "sampling_rate": RATE,
        "learning_rate": 0.5,
        "clip_norm": 1.0,
        "patients": 4 * PATIENTS,
        "patients_bound": 1_000,
        "evaluation": None,
    } | changes


def declared(federation: NodeFederation, **changes: Any) -> Study:
    """Return a study of nominal ε, whose gradients have FLamby's noise."""
    fields = {
        "id": "as-in-flamby",
        "task": training(**changes),
        "release": {"what": "model", "keep_days": 365, "audience": "the public"},
        "privacy": {"epsilon": NOMINAL, "delta": DELTA},
        "population": {"register": "patients"},
    }
    proposed = Study.model_validate(study_fields(federation.documents.agreed, **fields))
    return proposed.with_mechanisms(tuple(_noised(m) for m in proposed.schedule()))


def _noised(template: Mechanism) -> Mechanism:
    if template.scope is Scope.DERIVED:
        return template
    if template.phase == "cohort-floor":
        return template.model_copy(update={"noise_std": COHORT_NOISE})
    if template.phase == "evaluate":
        return template.model_copy(update={"noise_std": QUIET})
    shares = 2 if template.scope is Scope.SHARED else 1
    wanted = (flamby_noise("prv") ** 2 * template.squared_sensitivity + 4) / shares
    return template.model_copy(update={"noise_std": math.floor(math.sqrt(wanted))})


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    federation = NodeFederation(tmp_path / "federation")
    yield federation
    federation.close()


IN_ROUNDS = {"rounds": ROUNDS * UPDATES}
IN_LOCAL_STEPS = {"rounds": ROUNDS, "local": {"steps": UPDATES}, "average_last": 0.0}


@pytest.mark.parametrize("schedule", [IN_ROUNDS, IN_LOCAL_STEPS], ids=["rounds", "local steps"])
def test_a_study_that_declares_all_updates_is_refused_at_the_nominal_epsilon(
    federation: NodeFederation, schedule: dict[str, Any]
) -> None:
    study = declared(federation, **schedule)
    with pytest.raises(CoordinatorFault, match=r"costs ε = 4\.1\d+, more than its ε = 1"):
        complete(study, federation.documents.agreed)


@pytest.mark.parametrize(
    "schedule",
    [{"rounds": EPOCHS * BATCHES}, {"local": {"steps": BATCHES}, "average_last": 0.0}],
    ids=["rounds", "local steps"],
)
def test_a_study_of_fifteen_epochs_costs_what_it_declares(
    federation: NodeFederation, schedule: dict[str, Any]
) -> None:
    study = declared(federation, **schedule)
    assert complete(study, federation.documents.agreed) == study
    covered = study.releases_of(federation.documents.agreed)
    assert 0.97 < epsilon(covered, 2, DELTA) <= NOMINAL


def permitted_run(federation: NodeFederation, **changes: Any) -> tuple[Study, Run, bytes]:
    """Return a permitted study, its run after set-up, and the model of every round."""
    study = declared(federation, **changes)
    federation.approve(study)
    assert isinstance(study.task, TrainGlm)
    model = vector_to_bytes(study.task.initial(study.features))
    return study, federation.ready(study), model


def refused(
    federation: NodeFederation, run: Run, number: int, model: bytes
) -> set[tuple[str, str]]:
    """Return code and reason of every node's refusal to contribute to a round."""
    round_ = run.coordinator.begin_round(number, "train", model)
    refusals = set()
    for country, node in federation.nodes.items():
        reply = node.handle(round_.contribute_request(country))
        refusals.add((str(code_of(reply)), str(last_refusal(node)["what"])))
    return refusals


USED_UP = {(ReasonCode.BUDGET.value, "All rounds of this kind that the study has are used")}


def test_a_study_of_fifteen_epochs_runs_out_of_rounds(federation: NodeFederation) -> None:
    """After 15 rounds of 8 local steps, 120 updates, every node refuses all further rounds."""
    local = {"local": {"steps": BATCHES}, "average_last": 0.0, "evaluation": {"bins": 4}}
    _, run, model = permitted_run(federation, **local)
    for number in range(1, ROUNDS + 1):
        assert isinstance(run.sum(number, "train", model), OpenedSum)
    assert refused(federation, run, ROUNDS + 1, model) == USED_UP
    assert refused(federation, run, ROUNDS + 100, model) == USED_UP
    assert isinstance(run.sum(ROUNDS + 101, "evaluate", model), OpenedSum)
    ((code, _),) = refused(federation, run, ROUNDS + 102, model)
    assert code == ReasonCode.STALE.value, "the whole schedule is done, and the run is over"
    for node in federation.nodes.values():
        spent = [entry.mechanism for entry in node.parts.ledger.entries(run=run.id)]
        assert [m.rounds for m in spent if m.phase == "local-step"] == [EPOCHS * BATCHES]


def test_a_void_round_allows_no_additional_round(federation: NodeFederation) -> None:
    """Countries contributed to it, so it counts although it was not opened."""
    _, run, model = permitted_run(federation, rounds=2, evaluation={"bins": 4})
    run.contributed(1, "train", model)
    assert isinstance(run.sum(2, "train", model), OpenedSum)
    assert refused(federation, run, 3, model) == USED_UP


SHUFFLING = [
    {"batch_size": BATCH},
    {"epochs": EPOCHS},
    {"shuffle": True},
    {"sampling": "shuffled"},
    {"sampling": "without-replacement"},
    {"sample_size": BATCH},
]


@pytest.mark.parametrize("claim", SHUFFLING, ids=str)
def test_shuffled_batches_cannot_be_declared(claim: dict[str, Any]) -> None:
    """Amplification is accounted for secret Poisson samples; no document field describes others."""
    TrainGlm.model_validate(training())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TrainGlm.model_validate(training(**claim))
    honest = steps_of(1, "prv").model_dump()
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Mechanism.model_validate(honest | claim)


def test_a_schedule_with_another_sampling_rate_than_the_task_is_refused(
    federation: NodeFederation,
) -> None:
    """A schedule must not claim a smaller sample than the task takes."""
    study = declared(federation, rounds=120)
    assert study.schedule_matches_task
    claimed = [m.model_copy(update={"sampling_rate": 0.01}) for m in study.mechanisms]
    assert not study.with_mechanisms(tuple(claimed)).schedule_matches_task
