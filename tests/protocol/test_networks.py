"""Networks through the whole private sum: four real nodes, the coordinator's own lead, no noise."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.tasks.series import series_conv
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import split
from server.lead import Outcome, lead
from server.rounds import Conductor
from tests.support.documents import priced, study_fields
from tests.support.nodes import Federation, Run, code_of, last_refusal

ROUNDS, RATE, WIDTH = 5, 0.5, 3
PRIVACY = {"epsilon": 2.5, "delta": 1e-5}
COMMON: dict[str, Any] = {
    "family": "logistic",
    "target": "disease",
    "rounds": ROUNDS,
    "learning_rate": RATE,
    "average_last": 0.0,
    "clip_norm": 5.0,
    "patients": 320,
    "patients_bound": 1_000,
    "evaluation": None,
}
MLP = COMMON | {"kind": "train/mlp", "hidden": [4, 3], "seed": 7}
MODULE = COMMON | {
    "kind": "train/module",
    "module": "series-conv",
    "version": 1,
    "parameters": {"channels": 2, "kernel": 3},
    "parts": [
        {"name": "1.weight", "shape": [2, 1, 3]},
        {"name": "1.bias", "shape": [2], "initial": "zeros"},
        {"name": "2.weight", "shape": [2], "initial": "ones"},
        {"name": "2.bias", "shape": [2], "initial": "zeros"},
        {"name": "5.weight", "shape": [1, 6]},
        {"name": "5.bias", "shape": [1], "initial": "zeros"},
    ],
}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(
        tmp_path / "federation", changes={"task_kinds": ["train/mlp", "train/module"]}
    )
    yield made
    made.close()


class Straight:
    """Carries every frame to its node and back at once."""

    def __init__(self, federation: Federation) -> None:
        self._nodes = federation.nodes

    def exchange(self, frames: Mapping[str, bytes], seconds: float) -> Mapping[str, bytes]:
        return {country: self._nodes[country].handle(frame) for country, frame in frames.items()}


def conductor_of(federation: Federation, run: Run) -> Conductor:
    carrier = Straight(federation)
    return Conductor(
        run.coordinator, run.terms.roster, carrier, seconds=9.0, keep_closed=lambda *_: None
    )


def approved(federation: Federation, task: dict[str, Any], name: str = "network") -> Study:
    """Return a study that every country permits; its noise is large on paper, and silent here."""
    release = {"what": "model", "keep_days": 365, "audience": "the public"}
    agreed = federation.papers.agreed
    fields = study_fields(agreed, id=name, task=task, release=release, privacy=PRIVACY)
    study = priced(Study.model_validate(fields), noise_std=100_000)
    federation.papers.propose(study)
    for country in study.countries:
        federation.permit(country, study)
    federation.sync()
    return study


def trained(federation: Federation, task: dict[str, Any]) -> tuple[Study, Outcome]:
    study = approved(federation, task)
    conductor = conductor_of(federation, federation.run(study))
    conductor.set_up()
    return study, lead(study, conductor, lambda *_: None)


def pooled(study: Study) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what four countries of eighty patients hold together, encoded by hand."""
    n = np.tile(np.arange(80), 4)
    age, male, ill = 40 + n % 40, (n % 2 == 0).astype(float), (n % 4 == 0).astype(float)
    rows = np.column_stack([(age - 60) / 60, 1 - male, male])
    return torch.from_numpy(rows), torch.from_numpy(ill[:, None])


def plain_descent(study: Study, net: nn.Module, names: Mapping[str, str]) -> FloatArray:
    """Return the model after the same steps of torch's own gradient descent on pooled records.

    `names` maps the model's parts to torch's parameters.
    """
    assert study.task.kind.startswith("train/")
    tensors = study.task.tensors(study.features)  # type: ignore[union-attr]
    start = split(study.task.initial(study.features), tensors)  # type: ignore[union-attr]
    own = dict(net.double().named_parameters())
    for part, name in names.items():
        own[name].data = torch.from_numpy(start[part].copy())
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    rows, target = pooled(study)
    for _ in range(ROUNDS):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(rows), target).backward()
        optimiser.step()
    return torch.cat([own[name].detach().ravel() for name in names.values()]).numpy()


def test_a_perceptron_is_the_one_that_pooled_records_would_have_given(
    federation: Federation,
) -> None:
    study, outcome = trained(federation, MLP)
    net = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    names = {f"layer{k}.{what}": f"{2 * k}.{what}" for k in range(3) for what in ("weight", "bias")}
    assert outcome.part.rounds_void == 0
    assert outcome.model == pytest.approx(plain_descent(study, net, names), abs=0.005)


def test_a_registered_module_is_the_one_that_pooled_records_would_have_given(
    federation: Federation,
) -> None:
    study, outcome = trained(federation, MODULE)
    net = series_conv({"channels": 2, "kernel": 3}, WIDTH, 1)
    names = {part["name"]: part["name"] for part in MODULE["parts"]}
    assert outcome.model == pytest.approx(plain_descent(study, net, names), abs=0.005)


def test_evaluation_of_networks_opens_a_report(federation: Federation) -> None:
    for number, task in enumerate((MLP, MODULE)):
        kept = task | {"evaluation": {"held_out": 0.3}, "rounds": 1}
        study = approved(federation, kept, f"study-{number}")
        conductor = conductor_of(federation, federation.run(study))
        conductor.set_up()
        outcome = lead(study, conductor, lambda *_: None)
        patients = outcome.findings["everybody"]["patients"]["value"]
        assert 50 < patients < 150


def test_a_node_without_the_module_refuses_before_anything_is_charged(
    federation: Federation,
) -> None:
    study = approved(federation, MODULE | {"version": 2})
    run, node = federation.run(study), federation.nodes["DK"]
    assert code_of(node.handle(run.request("bundle", "DK"))) is ReasonCode.TASK_UNKNOWN
    assert "has not registered it" in last_refusal(node)["why"]
    assert not node.ledger.entries()


def test_a_million_weights_pass_the_whole_private_sum(federation: Federation) -> None:
    study = approved(federation, MLP | {"hidden": [1024, 1024], "rounds": 1}, "large")
    tensors = study.task.tensors(study.features)  # type: ignore[union-attr]
    assert sum(tensor.size for tensor in tensors) > 1_000_000
    conductor = conductor_of(federation, federation.run(study))
    conductor.set_up()
    outcome = lead(study, conductor, lambda *_: None)
    moved = outcome.model - study.task.initial(study.features)  # type: ignore[operator, union-attr]
    parts = split(moved, tensors)
    assert outcome.part.rounds_void == 0
    assert all(part.any() for part in parts.values())
