"""Local mode through the whole private sum: a country sends results of noised steps only.

Rounding changes a weight by a standard deviation of 0.0006 in these studies. The tests allow 0.01,
more than ten times as much.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from client.border.door import Door
from client.tasks import assignment
from client.tasks.assignment import Assignment
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.numerics.mechanism import SMALLEST_NOISE_STD, Scope
from protocols.numerics.noise import DiscreteGaussian
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.private_sum.country_run import CountryRun
from protocols.tasks import Training
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_to_bytes
from protocols.tasks.tensors import split
from tests.support.documents import COHORT_NOISE
from tests.support.local_mode import (
    COUNTRIES,
    FLOOR,
    GLM,
    MLP,
    MODULE,
    QUICK,
    ROUNDS,
    SIZES,
    STEPS,
    RecordingNoise,
    approved,
    federation_of_unequal_countries,
    payload_of,
    sum_of_first_round,
)
from tests.support.node_federation import NodeFederation, code_of, last_refusal
from tests.support.training_studies import RATE, run_study


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    federation = federation_of_unequal_countries(tmp_path / "federation")
    yield federation
    federation.close()


# What local mode computes


def encoded(country: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a country's records, encoded by hand."""
    n, index = np.arange(SIZES[country]), list(SIZES).index(country)
    age, male, ill = (
        40 + 10 * index + n % 40,
        (n % 2 == 0).astype(float),
        (n % 4 == 0).astype(float),
    )
    rows = np.column_stack([(age - 60) / 60, 1 - male, male])
    return torch.from_numpy(rows), torch.from_numpy(ill[:, None])


def averaged(
    study: Study, net: nn.Module, names: Mapping[str, str], *, without: str = ""
) -> FloatArray:
    """Return the model by federated averaging of torch's own descents (McMahan et al. 2017)."""
    assert isinstance(study.task, Training)
    tensors = study.task.tensors(study.features)
    model = study.task.initial(study.features)
    parameters = dict(net.double().named_parameters())
    for _ in range(ROUNDS):
        ended = []
        for country in (country for country in SIZES if country != without):
            for part, value in split(model, tensors).items():
                parameters[names[part]].data = torch.from_numpy(value.copy())
            ended.append(
                _descended(net, *encoded(country), [parameters[name] for name in names.values()])
            )
        model = np.mean(ended, axis=0)
    return model


def _descended(
    net: nn.Module, rows: torch.Tensor, target: torch.Tensor, parts: list[nn.Parameter]
) -> FloatArray:
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE / (320 / COUNTRIES))
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(rows), target, reduction="sum")
        torch.autograd.backward(loss)
        optimiser.step()
    weights: FloatArray = torch.cat([part.detach().ravel() for part in parts]).numpy()
    return weights


class Line(nn.Module):
    """A linear score whose first weight is the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(4))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.weights[0] + (rows @ self.weights[1:])[:, None]


def test_a_linear_model_is_the_average_of_the_countries_models(
    federation: NodeFederation,
) -> None:
    study = approved(federation, GLM)
    assert run_study(federation, study).model == pytest.approx(
        averaged(study, Line(), {"weights": "weights"}), abs=0.01
    )


def test_without_one_country_the_model_is_the_average_of_the_others(
    federation: NodeFederation,
) -> None:
    study = approved(federation, GLM)
    model = run_study(federation, study, without="NO").model
    names = {"weights": "weights"}
    assert model == pytest.approx(averaged(study, Line(), names, without="NO"), abs=0.01)
    assert model != pytest.approx(averaged(study, Line(), names), abs=0.01)


def test_a_perceptron_is_the_average_of_the_countries_models(federation: NodeFederation) -> None:
    study = approved(federation, MLP)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    names = {f"layer{k}.{what}": f"{2 * k}.{what}" for k in range(3) for what in ("weight", "bias")}
    assert run_study(federation, study).model == pytest.approx(
        averaged(study, net, names), abs=0.01
    )


def test_a_registered_module_can_take_local_steps_too(federation: NodeFederation) -> None:
    few = {"local": {"steps": 2}, "sampling_rate": 0.1}
    study = approved(federation, MODULE | QUICK | few)
    model = run_study(federation, study).model
    assert model is not None
    assert isinstance(study.task, Training)
    assert np.abs(model - study.task.initial(study.features)).max() > 0.01


def test_evaluation_follows_under_all_countries_noise(federation: NodeFederation) -> None:
    study = approved(federation, GLM | {"evaluation": {"held_out": 0.3}})
    assert [m.scope for m in study.mechanisms] == ["local", "local", "derived", "shared"]
    patients = run_study(federation, study).findings["everybody"]["patients"]["value"]
    assert 50 < patients < 150


# What local mode is charged


def test_a_run_is_charged_for_every_local_step_and_for_no_sum(federation: NodeFederation) -> None:
    study = approved(federation, GLM | {"evaluation": {"held_out": 0.3}})
    run_study(federation, study)
    for node in federation.nodes.values():
        entries = {entry.phase: entry for entry in node.parts.ledger.entries()}
        assert set(entries) == {FLOOR, "local-step", "evaluate"}
        assert entries["local-step"].mechanism.rounds == ROUNDS * STEPS
        assert entries["local-step"].mechanism.scope is Scope.LOCAL


def test_everything_is_charged_before_a_record_is_read(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def watch(owner: type, name: str) -> None:
        inner = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            steps.append(name)
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    study = approved(federation, GLM)
    federation.restart("DK", noise=RecordingNoise())
    round_ = federation.ready(study).coordinator.begin_round(1, "train", payload_of(study))
    for owner, name in ((Door, "_charge"), (Assignment, "lattice_sum"), (RecordingNoise, "draw")):
        watch(owner, name)
    assert code_of(federation.nodes["DK"].handle(round_.contribute_request("DK"))) is None
    assert steps == ["_charge", *["lattice_sum", "draw"] * STEPS, "draw"]


def test_no_more_rounds_of_steps_than_were_charged(federation: NodeFederation) -> None:
    study = approved(federation, GLM | {"rounds": 1})
    run, node = federation.ready(study), federation.nodes["DK"]
    run.contributed(1, "train", payload_of(study))
    second = run.coordinator.begin_round(2, "train", payload_of(study))
    assert code_of(node.handle(second.contribute_request("DK"))) is ReasonCode.BUDGET


# What leaves the country


def test_every_step_and_the_sum_have_their_own_noise(federation: NodeFederation) -> None:
    study, sources = approved(federation, GLM), {c: RecordingNoise() for c in SIZES}
    for country, source in sources.items():
        federation.restart(country, noise=source)
    run_study(federation, study)
    step, least = (1_000_000, 4), (SMALLEST_NOISE_STD, 4)
    for source in sources.values():
        assert source.asked == [(COHORT_NOISE, 1), *([step] * STEPS + [least]) * ROUNDS]


def test_a_sum_depends_on_records_through_noised_steps_only(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same step sums, other patients in four countries give the same opened update."""
    study = approved(federation, GLM | QUICK)
    run = federation.ready(study)
    step_sum = np.array([5_000, -3_000, 200, 1], np.int64)
    monkeypatch.setattr(Assignment, "lattice_sum", lambda *_, **__: step_sum.copy())
    result = sum_of_first_round(study, run)
    step, update = study.mechanisms[1], study.mechanisms[2]
    update_of_one = np.rint(STEPS * step_sum / step.scale * update.scale).astype(np.int64)
    assert result.values.tolist() == (COUNTRIES * update_of_one).tolist()


def test_the_noise_of_the_steps_is_in_the_contribution(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = approved(federation, GLM | QUICK)
    step, update = study.mechanisms[1], study.mechanisms[2]
    noise = 40 * step.scale  # forty clip norms in every coordinate
    for country in SIZES:
        federation.restart(country, noise=RecordingNoise(noise))
    run = federation.ready(study)
    monkeypatch.setattr(
        Assignment, "lattice_sum", lambda self, mechanism, *_, **__: np.zeros(4, np.int64)
    )
    result = sum_of_first_round(study, run)
    country_sum = STEPS * 40 * update.scale + noise
    assert result.values.tolist() == [COUNTRIES * country_sum] * 4


def test_the_coordinator_may_not_request_a_single_local_step(federation: NodeFederation) -> None:
    study = approved(federation, GLM)
    run, node = federation.ready(study), federation.nodes["DK"]
    round_ = run.coordinator.begin_round(1, "local-step", payload_of(study))
    assert code_of(node.handle(round_.contribute_request("DK"))) is ReasonCode.TASK_UNKNOWN
    assert last_refusal(node)["clause"] == "node/door"
    assert {entry.phase for entry in node.parts.ledger.entries()} == {FLOOR}


def test_no_records_are_summed_for_a_derived_release(federation: NodeFederation) -> None:
    """Even if the door made this mistake, the code that reads records refuses it."""
    study = approved(federation, GLM)
    assignment = federation.nodes["DK"].parts.tasks.prepared(study).assignment
    with pytest.raises(Exception, match="their own noise") as caught:
        assignment.lattice_sum(study.mechanisms[2], payload_of(study), entropy=_zeros)
    assert getattr(caught.value, "code", None) is ReasonCode.MALFORMED


@pytest.mark.parametrize("weight", [1e308, -1e308, 0.0])
def test_a_model_made_to_overflow_gets_an_ordinary_update(
    federation: NodeFederation, weight: float
) -> None:
    study = approved(federation, GLM | QUICK | {"l2": 10.0})
    run = federation.ready(study)
    result = run.sum(1, "train", vector_to_bytes(np.full(4, weight)))
    assert isinstance(result, OpenedSum)
    assert np.abs(result.values).max() <= COUNTRIES * study.mechanisms[2].reach


@pytest.mark.parametrize("model", [b"", bytes(24), vector_to_bytes(np.full(4, np.nan))])
def test_a_model_that_is_not_finite_is_refused(federation: NodeFederation, model: bytes) -> None:
    study = approved(federation, GLM)
    run, node = federation.ready(study), federation.nodes["DK"]
    round_ = run.coordinator.begin_round(1, "train", model)
    assert code_of(node.handle(round_.contribute_request("DK"))) is ReasonCode.MALFORMED


# Samples and noise come from the operating system, step by step


def test_each_step_draws_a_separate_sample(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = approved(federation, GLM | QUICK | {"sampling_rate": 0.5})
    sizes, drawn = [], list[bytes]()
    trainer = federation.nodes["DK"].parts.tasks.prepared(study).assignment.trainer
    inner = type(trainer).contribute

    def contribute(self: Any, cohort: Any, *rest: Any) -> Any:
        sizes.append(cohort.patients)
        drawn.append(" ".join(cohort.ids).encode())
        return inner(self, cohort, *rest)

    monkeypatch.setattr(type(trainer), "contribute", contribute)
    round_ = federation.ready(study).coordinator.begin_round(1, "train", payload_of(study))
    assert code_of(federation.nodes["DK"].handle(round_.contribute_request("DK"))) is None
    assert len(set(drawn)) == STEPS
    # False alarms below 1e-11: beyond 6.7 deviations of 180 coins.
    assert 0.25 * 60 < np.mean(sizes) < 0.75 * 60


def seeded() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 (the generator that must not be used)
    torch.manual_seed(5)


@pytest.mark.parametrize("rate", [0.5, 1.0])  # at 1.0 nothing but rounding distinguishes sums
def test_seeding_the_usual_generators_changes_nothing(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """With equal seeds, a node still draws other samples, roundings, noise and updates."""
    study = approved(federation, MLP | QUICK | {"sampling_rate": rate})
    round_ = federation.ready(study).coordinator.begin_round(1, "train", payload_of(study))
    calls: list[list[Any]] = []

    def record_calls(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def listened(*args: Any, **kwargs: Any) -> Any:
            result = inner(*args, **kwargs)
            calls[-1].append(result.tolist())
            return result

        monkeypatch.setattr(owner, name, listened)

    def masked(self: CountryRun, frame: bytes, values: Any, noise: Any) -> bytes:
        calls[-1].append((values + noise).tolist())
        raise Crash

    record_calls(assignment, "poisson_sample")
    record_calls(Assignment, "lattice_sum")
    record_calls(DiscreteGaussian, "draw")
    monkeypatch.setattr(CountryRun, "contribute", masked)
    for _ in range(2):
        calls.append([])
        node = federation.restart("DK", noise=DiscreteGaussian())
        seeded()
        with pytest.raises(Crash):
            node.handle(round_.contribute_request("DK"))
    each_step = 2 if rate == 1.0 else 3  # a step's sample, sum and noise
    assert len(calls[0]) == len(calls[1]) == each_step * STEPS + 2
    assert all(one != other for one, other in zip(*calls, strict=True))


# Crashes


class Crash(BaseException):
    """The process dies here; nothing may catch this."""


class Fatal(RecordingNoise):
    """A source that dies at one of its draws."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        if len(self.asked) == self._at:
            raise Crash
        return super().draw(std, size)


@pytest.mark.parametrize("at", range(STEPS + 1))
def test_a_node_killed_between_two_steps_starts_again_with_fresh_noise_and_one_charge(
    federation: NodeFederation, at: int
) -> None:
    study = approved(federation, GLM | QUICK)
    run = federation.ready(study)
    round_ = run.coordinator.begin_round(1, "train", payload_of(study))
    request = round_.contribute_request("DK")
    with pytest.raises(Crash):
        federation.restart("DK", noise=Fatal(at)).handle(request)
    again = RecordingNoise()
    node = federation.restart("DK", noise=again)
    reply = node.handle(request)
    assert code_of(reply) is None
    assert len(again.asked) == STEPS + 1
    assert node.handle(request) == reply
    assert len(again.asked) == STEPS + 1
    assert sorted(entry.phase for entry in node.parts.ledger.entries()) == [FLOOR, "local-step"]


def _zeros(size: int) -> bytes:
    return bytes(size)
