import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from client.errors import RecordFault
from client.tasks import assignment
from client.tasks.assignment import Assignment
from client.tasks.registry import INSTALLED
from client.tasks.trainers import patient_gradients
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.rounding import round_sparse
from protocols.tasks import Condition, CountByFeature, CountPatients, Family, Task
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.layout import Grouping, vector_to_bytes
from protocols.tasks.local import LocalMode
from tests.support.patients import (
    FEATURES,
    cohort,
    entropy,
    glm,
    mlp,
    module,
    records,
    release,
)

MODEL = vector_to_bytes(np.linspace(-1, 1, 7))
MODES = (None, LocalMode(steps=3))
COUNT = CountPatients(patients_bound=1000, strata=(Grouping(feature="sex"),))


def prepared(task: Task, patients: int = 60, **replaced: Any) -> Assignment:
    return Assignment.prepare(
        task,
        FEATURES,
        records(patients, **replaced),
        split_secret=bytes(32),
        split="sha256:" + "c" * 64,
    )


def refusal(task: Task, mechanism: Any, payload: bytes) -> Refusal:
    answers = []
    for patients in (60, 0):  # a refusal never depends on the cohort
        with pytest.raises(Refusal) as caught:
            prepared(task, patients).lattice_sum(mechanism, payload, entropy=entropy())
        answers.append((caught.value.code, str(caught.value)))
    assert answers[0] == answers[1]
    return caught.value


def test_every_task_kind_is_installed_with_the_phases_of_its_schedule() -> None:
    histogram = CountByFeature(patients_bound=10, of=Grouping(feature="sex"))
    for train in (glm, mlp, module):
        phases = {m.phase for mode in MODES for m in train(local=mode).schedule(FEATURES)}
        assert set(INSTALLED[train().kind]) == phases
    for task in (COUNT, histogram):
        assert INSTALLED[task.kind] == tuple(m.phase for m in task.schedule(FEATURES))


def test_training_sums_the_rounded_gradients_of_training_patients_only() -> None:
    task = glm(evaluation=Evaluation(held_out=0.5))
    one = prepared(task)
    mechanism = release(task, "train")
    total = one.lattice_sum(mechanism, MODEL, entropy=entropy())
    training = one.cohort.where(~one.held_out)
    assert 0 < training.patients < 60
    per_patient = patient_gradients(task, training, np.linspace(-1, 1, 7))
    norms = np.linalg.norm(per_patient, axis=1, keepdims=True)
    clipped = per_patient * np.minimum(1, mechanism.clip_norm / norms)
    gap = total / mechanism.scale - clipped.sum(axis=0)
    # rounding is unbiased and moves a coordinate of a patient by less than one unit
    assert np.abs(gap).max() < 8 * math.sqrt(training.patients) / mechanism.scale
    assert total.dtype == np.int64


def test_evaluation_counts_held_out_patients_only() -> None:
    task = glm(evaluation=Evaluation(held_out=0.5))
    one = prepared(task)
    mechanism = release(task, "evaluate")
    total = one.lattice_sum(mechanism, MODEL, entropy=entropy())
    assert total.sum() == one.held_out.sum() * mechanism.scale


@pytest.mark.parametrize("make", [mlp, module], ids=["mlp", "module"])
@pytest.mark.parametrize("family", list(Family))
def test_networks_train_on_some_patients_and_are_evaluated_on_the_others(
    make: Any, family: Family
) -> None:
    task = make(family, evaluation=Evaluation(held_out=0.5))
    one, model = prepared(task), vector_to_bytes(task.initial(FEATURES))
    trained = one.lattice_sum(release(task, "train"), model, entropy=entropy())
    assert trained.any()
    evaluation = release(task, "evaluate")
    counted = one.lattice_sum(evaluation, model, entropy=entropy()) / evaluation.scale
    table = task.score_table(FEATURES)
    assert table.counts_of(counted)[0].sum() == one.held_out.sum()


@pytest.mark.parametrize("make", [mlp, module], ids=["mlp", "module"])
def test_a_network_is_summed_in_batches(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(evaluation=None)
    one, model = prepared(task), vector_to_bytes(task.initial(FEATURES))
    mechanism = release(task, "train")
    all_patients = one.lattice_sum(mechanism, model, entropy=entropy()) / mechanism.scale
    monkeypatch.setattr(one.trainer, "patients_at_once", 7)
    parts = one.lattice_sum(mechanism, model, entropy=entropy()) / mechanism.scale
    assert parts == pytest.approx(all_patients, abs=0.1)


def test_the_progress_of_a_large_sum_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(assignment, "LARGE", 10)
    task = mlp(evaluation=None)
    model, mechanism = vector_to_bytes(task.initial(FEATURES)), release(task, "train")
    logged_steps = []
    for patients, at_once in ((60, 7), (60, 60), (9, 2), (0, 5)):
        one = prepared(task, patients)
        monkeypatch.setattr(one.trainer, "patients_at_once", at_once)
        caplog.clear()
        with caplog.at_level("INFO", "pratique.task"):
            one.lattice_sum(mechanism, model, entropy=entropy())
        logged_steps.append([vars(record)["percent"] for record in caplog.records])
    assert logged_steps == [[25, 50, 75, 100]] * 4, "as often for every cohort"


def test_a_small_sum_logs_no_progress(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "pratique.task"):
        prepared(glm()).lattice_sum(release(glm(), "train"), MODEL, entropy=entropy())
    assert not caplog.records


def test_torch_is_imported_for_registered_modules_only() -> None:
    """Neither the coordinator's part nor a node that trains perceptrons needs it."""
    script = """
import sys
from server.runs import procedure
from server.services import release as released
from server.learning import predict
from tests.support.patients import FEATURES, entropy, mlp, release
from tests.unit.client.tasks.test_assignment import prepared
from protocols.tasks.layout import vector_to_bytes
task = mlp()
payload = vector_to_bytes(task.initial(FEATURES))
prepared(task).lattice_sum(release(task, "train"), payload, entropy=entropy())
assert "torch" not in sys.modules and "opacus" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_patient_both_trains_and_evaluates() -> None:
    one = prepared(glm())
    training, tested = set(one._training.ids), set(one._evaluation.ids)
    assert training.isdisjoint(tested)
    assert training | tested == set(one.cohort.ids)


def test_without_evaluation_everybody_trains() -> None:
    assert not prepared(glm(evaluation=None)).held_out.any()


def test_the_floor_counts_the_whole_cohort() -> None:
    for task in (glm(), COUNT):
        mechanism = release(task, "cohort-floor")
        total = prepared(task).lattice_sum(mechanism, b"", entropy=entropy())
        assert total.tolist() == [60 * mechanism.scale]


def test_tables_count_everybody_once() -> None:
    mechanism = release(COUNT, "count")
    total = prepared(COUNT).lattice_sum(mechanism, b"", entropy=entropy())
    assert total.sum() == 60 * mechanism.scale


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("make", [glm, mlp, module], ids=["glm", "mlp", "module"])
def test_an_empty_cohort_contributes_zero_everywhere(make: Any, family: Family) -> None:
    task = make(family)
    payload = vector_to_bytes(np.zeros(task.dimension(FEATURES)))
    for phase in ("train", "evaluate"):
        mechanism = release(task, phase)
        total = prepared(task, 0).lattice_sum(mechanism, payload, entropy=entropy())
        assert total.shape == (mechanism.dimension,)
        assert not total.any()


def test_each_round_draws_another_sample_of_the_stated_share() -> None:
    task = glm(sampling_rate=0.3, evaluation=None)
    mechanism = release(task, "train")
    everybody = release(glm(evaluation=None), "train")
    one = prepared(task, 2_000)
    payload = vector_to_bytes(np.array([50.0, 0, 0, 0, 0, 0, 0]))
    words = entropy()
    all_patients = prepared(glm(evaluation=None), 2_000).lattice_sum(
        everybody, payload, entropy=words
    )
    sums = [one.lattice_sum(mechanism, payload, entropy=words)[0] for _ in range(2)]
    assert sums[0] != sums[1]
    for part in sums:
        assert 0.15 < part / all_patients[0] < 0.45


def test_many_patients_are_summed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(values: Any, coordinates: Any, mechanism: Any, **rest: Any) -> Any:
        sizes.append(len(values))
        return round_sparse(values, coordinates, mechanism, **rest)

    monkeypatch.setattr(assignment, "PATIENTS_AT_ONCE", 10)
    monkeypatch.setattr(assignment, "round_sparse", counting)
    mechanism = release(COUNT, "count")
    total = prepared(COUNT, 25).lattice_sum(mechanism, b"", entropy=entropy())
    assert sizes == [10, 10, 5]
    assert total.sum() == 25 * mechanism.scale


def test_an_overflowing_patient_is_bounded_like_any_other() -> None:
    task = glm(evaluation=None)
    mechanism = release(task, "train")
    usual, huge = prepared(task, 1), prepared(task, 1, age=np.array([1e308]))
    for one in (usual, huge):
        total = one.lattice_sum(mechanism, MODEL, entropy=entropy())
        assert int((total**2).sum()) <= mechanism.squared_sensitivity


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("weight", [1e308, -1e308])
def test_a_model_that_overflows_causes_no_fault_and_no_warning(
    family: Family, weight: float
) -> None:
    task = glm(family)
    payload = vector_to_bytes(np.full(task.dimension(FEATURES), weight))
    for phase in ("train", "evaluate"):
        mechanism = release(task, phase)
        total = prepared(task).lattice_sum(mechanism, payload, entropy=entropy())
        assert total.shape == (mechanism.dimension,)


def test_an_unknown_phase_is_refused() -> None:
    mechanism = release(glm(), "train").model_copy(update={"phase": "histogram"})
    problem = refusal(glm(), mechanism, MODEL)
    assert problem.code is ReasonCode.TASK_UNKNOWN
    assert "`histogram` of `train/glm` is not installed" in problem.what
    assert problem.fix


@pytest.mark.parametrize("change", [{"scale": 1}, {"clip_norm": 5.0}, {"dimension": 8}])
def test_a_release_that_is_not_the_tasks_is_refused(change: dict[str, Any]) -> None:
    mechanism = release(glm(), "train").model_copy(update=change)
    problem = refusal(glm(), mechanism, MODEL)
    assert problem.code is ReasonCode.MALFORMED
    assert "is not a release of the study's task" in problem.what


@pytest.mark.parametrize(
    "payload", [b"", MODEL[:-1], MODEL + b"\0", vector_to_bytes(np.full(7, np.nan))]
)
@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_a_model_of_the_wrong_form_is_refused(phase: str, payload: bytes) -> None:
    problem = refusal(glm(), release(glm(), phase), payload)
    assert problem.code is ReasonCode.MALFORMED
    assert problem.fix == "ask the coordinator to check what it sent"


def test_a_phase_without_a_model_refuses_one() -> None:
    for task, phase in ((glm(), "cohort-floor"), (COUNT, "count")):
        problem = refusal(task, release(task, phase), b"x")
        assert problem.code is ReasonCode.MALFORMED
        assert "takes no model" in problem.what


def test_a_study_that_does_not_fit_the_dictionary_is_not_prepared() -> None:
    task = glm(inputs=("age", "weight"))
    features = (*FEATURES, FEATURES[0].model_copy(update={"name": "weight"}))
    with pytest.raises(RecordFault, match="`weight`"):
        Assignment.prepare(
            task, features, records(3), split_secret=bytes(32), split="sha256:" + "d" * 64
        )


def test_conditions_narrow_the_cohort() -> None:
    one = Assignment.prepare(
        COUNT,
        FEATURES,
        records(50),
        conditions=(Condition(feature="age", at_least=60),),
        split_secret=bytes(32),
        split="sha256:" + "d" * 64,
    )
    assert 0 < one.cohort.patients < 50
    assert (one.cohort.columns["age"] >= 60).all()


def test_gradients_have_one_row_per_patient() -> None:
    assert patient_gradients(glm(), cohort(9), np.zeros(7)).shape == (9, 7)
