"""Networks through the whole private sum: four real nodes, the real procedure, no noise.

Only rounding is random. It changes a weight of the perceptron by a standard deviation of 0.0004 in
five rounds, and one of the module by 0.0008. The tests allow more than eight times as much.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.tasks.series_conv import series_conv
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import split
from server.runs.procedure import Outcome
from tests.support import training_studies
from tests.support.documents import with_schedule
from tests.support.node_federation import NodeFederation, code_of, last_refusal
from tests.support.training_studies import (
    RATE,
    drafted,
    proposed,
    run_study,
)

ROUNDS, WIDTH = 5, 3
MLP, MODULE = (
    training_studies.MLP | {"rounds": ROUNDS},
    training_studies.MODULE | {"rounds": ROUNDS},
)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    federation = NodeFederation(
        tmp_path / "federation", changes={"task_kinds": ["train/mlp", "train/module"]}
    )
    yield federation
    federation.close()


def approved(federation: NodeFederation, task: dict[str, Any], name: str = "network") -> Study:
    """Return a study that every country permits; its declared noise is not drawn here."""
    return proposed(
        federation, with_schedule(drafted(federation, task, id=name), noise_std=100_000)
    )


def trained(federation: NodeFederation, task: dict[str, Any]) -> tuple[Study, Outcome]:
    study = approved(federation, task)
    return study, run_study(federation, study)


def pooled(study: Study) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the records of four countries with eighty patients each, encoded by hand."""
    n = np.tile(np.arange(80), 4)
    age, male, ill = 40 + n % 40, (n % 2 == 0).astype(float), (n % 4 == 0).astype(float)
    rows = np.column_stack([(age - 60) / 60, 1 - male, male])
    return torch.from_numpy(rows), torch.from_numpy(ill[:, None])


def plain_descent(study: Study, net: nn.Module, names: Mapping[str, str]) -> FloatArray:
    """Return the model after the same steps of torch's gradient descent on pooled records.

    `names` maps the model's parts to torch's parameters.
    """
    assert study.task.kind.startswith("train/")
    tensors = study.task.tensors(study.features)  # type: ignore[union-attr]
    start = split(study.task.initial(study.features), tensors)  # type: ignore[union-attr]
    parameters = dict(net.double().named_parameters())
    for part, name in names.items():
        parameters[name].data = torch.from_numpy(start[part].copy())
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    rows, target = pooled(study)
    for _ in range(ROUNDS):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(rows), target)
        torch.autograd.backward(loss)
        optimiser.step()
    return torch.cat([parameters[name].detach().ravel() for name in names.values()]).numpy()


def test_a_perceptron_equals_one_trained_on_pooled_records(
    federation: NodeFederation,
) -> None:
    study, outcome = trained(federation, MLP)
    net = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    names = {f"layer{k}.{what}": f"{2 * k}.{what}" for k in range(3) for what in ("weight", "bias")}
    assert outcome.part.rounds_void == 0
    assert outcome.model == pytest.approx(plain_descent(study, net, names), abs=0.005)


def test_a_registered_module_equals_one_trained_on_pooled_records(
    federation: NodeFederation,
) -> None:
    study, outcome = trained(federation, MODULE)
    net = series_conv({"channels": 2, "kernel": 3}, WIDTH, 1)
    names = {part["name"]: part["name"] for part in MODULE["parts"]}
    assert outcome.model == pytest.approx(plain_descent(study, net, names), abs=0.007)


def test_evaluation_of_networks_opens_a_report(federation: NodeFederation) -> None:
    for number, task in enumerate((MLP, MODULE)):
        evaluated_task = task | {"evaluation": {"held_out": 0.3}, "rounds": 1}
        study = approved(federation, evaluated_task, f"study-{number}")
        outcome = run_study(federation, study)
        patients = outcome.findings["everybody"]["patients"]["value"]
        assert 50 < patients < 150


def test_a_node_without_the_module_refuses_before_anything_is_charged(
    federation: NodeFederation,
) -> None:
    study = approved(federation, MODULE | {"version": 2})
    run, node = federation.run(study), federation.nodes["DK"]
    assert code_of(node.handle(run.request("bundle", "DK"))) is ReasonCode.TASK_UNKNOWN
    assert "has not registered it" in last_refusal(node)["why"]
    assert not node.parts.ledger.entries()


def test_a_model_of_a_million_weights_goes_through_the_whole_private_sum(
    federation: NodeFederation,
) -> None:
    study = approved(federation, MLP | {"hidden": [1024, 1024], "rounds": 1}, "large")
    tensors = study.task.tensors(study.features)  # type: ignore[union-attr]
    assert sum(tensor.size for tensor in tensors) > 1_000_000
    outcome = run_study(federation, study)
    moved = outcome.model - study.task.initial(study.features)  # type: ignore[operator, union-attr]
    parts = split(moved, tensors)
    assert outcome.part.rounds_void == 0
    assert all(part.any() for part in parts.values())
