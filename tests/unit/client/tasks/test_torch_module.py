"""`train/module`: one gradient for each patient of installed modules, and what is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.tasks.losses import residuals, targets
from client.tasks.module_registry import BUILT_IN, Registered
from client.tasks.torch_module import TorchModule
from protocols.tasks import Family, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import split
from tests.support.narrowing import present
from tests.support.patients import FEATURES, cohort, module

SERIES = BUILT_IN[0]
WIDTH = 6


def built(task: TrainModule, registered: Registered = SERIES) -> TorchModule:
    return TorchModule(task, FEATURES, registered)


def declared(net: nn.Module) -> list[dict[str, Any]]:
    return [{"name": n, "shape": tuple(p.shape)} for n, p in net.named_parameters()]


def plain_loop(net: nn.Module, task: TrainModule, model: FloatArray, people: Any) -> FloatArray:
    """Return per-patient gradients by torch's own backward, one patient at a time."""
    for name, part in split(model, task.parts).items():
        dict(net.named_parameters())[name].data = torch.from_numpy(part.copy())
    rows = torch.from_numpy(task.rows(FEATURES, people.columns))
    target = torch.from_numpy(targets(task, FEATURES, people.columns))
    found = []
    for row, label in zip(rows, target, strict=True):
        net.zero_grad()
        torch.autograd.backward(loss_of(task.family, net(row[None]), label[None]))
        named = dict(net.named_parameters())
        gradients = [present(named[t.name].grad) for t in task.parts]
        found.append(np.concatenate([each.numpy().ravel() for each in gradients]))
    return np.array(found)


def loss_of(family: Family, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if family is Family.LINEAR:
        return ((outputs - target) ** 2).sum() / 2
    if family is Family.MULTINOMIAL:
        return -(torch.log_softmax(outputs, 1) * target).sum()
    return nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum")


def gradients(found: TorchModule, task: TrainModule, model: FloatArray, people: Any) -> FloatArray:
    rows, target = task.rows(FEATURES, people.columns), targets(task, FEATURES, people.columns)
    return found.gradients(model, rows, target, lambda out, own: residuals(task.family, out, own))


@pytest.mark.parametrize("family", Family)
def test_series_conv_agrees_with_a_plain_loop(family: Family) -> None:
    task, people = module(family), cohort(9)
    model = task.initial(FEATURES) + 0.05
    outputs = 3 if family is Family.MULTINOMIAL else 1
    net = SERIES.build(task.parameters, WIDTH, outputs).double()
    ours = gradients(built(task), task, model, people)
    assert ours == pytest.approx(plain_loop(net, task, model, people), abs=1e-6)


def embedding_and_norm(parameters: Mapping[str, int], inputs: int, outputs: int) -> nn.Module:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(inputs, 4)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, outputs)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            index = torch.arange(inputs).expand(len(rows), inputs)
            outputs: torch.Tensor = self.head(
                self.norm(self.places(index) * rows[:, :, None]).mean(dim=1)
            )
            return outputs

    return Tokens()


def test_other_layers_agree_with_a_plain_loop() -> None:
    net = embedding_and_norm({}, WIDTH, 1).double()
    task, people = module(parts=declared(net), parameters={}), cohort(7)
    model = np.random.default_rng(3).normal(size=task.dimension(FEATURES))
    ours = gradients(built(task, Registered("tokens", 1, embedding_and_norm)), task, model, people)
    assert ours == pytest.approx(plain_loop(net, task, model, people), abs=1e-6)


def test_outputs_are_those_of_the_module() -> None:
    task, people = module(), cohort(5)
    model = task.initial(FEATURES)
    net = SERIES.build(task.parameters, WIDTH, 1).double().eval()
    for name, part in split(model, task.parts).items():
        dict(net.named_parameters())[name].data = torch.from_numpy(part.copy())
    rows = task.rows(FEATURES, people.columns)
    expected = net(torch.from_numpy(rows)).detach().numpy()
    assert built(task).outputs(model, rows) == pytest.approx(expected)


def refused(task: TrainModule, build: Any) -> str:
    with pytest.raises(ValueError, match=r".") as problem:
        built(task, Registered("other", 1, build))
    return str(problem.value)


def test_a_module_with_other_parts_is_refused() -> None:
    task = module(parts=[{"name": "weight", "shape": (1, WIDTH)}])
    with pytest.raises(ValueError, match=r"the parts of the module are 1.weight \[2, 1, 3\]"):
        built(task)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.BatchNorm1d(WIDTH), "buffers"),
        (nn.BatchNorm1d(WIDTH, track_running_stats=False), "is given alone"),
        (nn.Dropout(0.5), "depends on other patients, or on chance"),
    ],
    ids=["remembers", "mixes", "draws"],
)
def test_a_module_that_mixes_patients_is_refused(layer: nn.Module, said: str) -> None:
    net = nn.Sequential(layer, nn.Linear(WIDTH, 1))
    assert said in refused(module(parts=declared(net), parameters={}), lambda *_: net)


class Mixing(nn.Module):
    """Mixes patients if `when`, which gets the module and its rows, returns true."""

    def __init__(self, when: Callable[[nn.Module, torch.Tensor], bool]) -> None:
        super().__init__()
        self._when = when

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows - rows.mean(0, keepdim=True) if self._when(self, rows) else rows


@pytest.mark.parametrize(
    "when",
    [lambda _, rows: len(rows) > 2, lambda module, _: not module.training, lambda *_: True],
    ids=["many", "evaluating", "always"],
)
def test_a_model_that_starts_at_zero_does_not_hide_mixing(when: Any) -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 4), Mixing(when), nn.Linear(4, 1))
    parts = [part | {"initial": "zeros"} for part in declared(net)]
    assert "depends on other patients" in refused(
        module(parts=parts, parameters={}), lambda *_: net
    )


def test_a_module_that_remembers_without_buffers_is_refused() -> None:
    class Remembering(nn.Module):
        seen = 0.0

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            self.seen += float(rows.detach().sum())
            return rows + self.seen

    net = nn.Sequential(Remembering(), nn.Linear(WIDTH, 1))
    assert "depends on" in refused(module(parts=declared(net), parameters={}), lambda *_: net)


def test_layers_that_see_a_patient_as_several_rows_give_one_gradient() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.head = nn.Linear(1, 3), nn.Linear(3 * WIDTH, 1)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.head(self.each(rows.reshape(-1, 1)).reshape(len(rows), -1))
            return output

    net = Folded().double()
    task, people = module(parts=declared(net), parameters={}), cohort(5)
    model = np.random.default_rng(3).normal(size=task.dimension(FEATURES))
    ours = gradients(built(task, Registered("o", 1, lambda *_: Folded())), task, model, people)
    assert ours == pytest.approx(plain_loop(net, task, model, people), abs=1e-9)


def test_a_module_of_another_width_is_refused() -> None:
    net = nn.Linear(WIDTH, 2)
    assert "1 outputs" in refused(module(parts=declared(net), parameters={}), lambda *_: net)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"channels": 2}, {"channels": 2, "kernel": 3, "more": 1}, {"channels": 0, "kernel": 3},
     {"channels": 2, "kernel": 2}, {"channels": 2, "kernel": 99}],
    ids=str,
)  # fmt: skip
def test_series_conv_says_what_it_needs(parameters: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="channels"):
        built(module(parameters=parameters))


class Delicate(nn.Module):
    """Fails for some patients, once it is trained on them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if (rows.abs() > 50).any():
            raise RuntimeError("this patient is out of the ordinary")
        output: torch.Tensor = self.head(rows)
        return output


def test_a_patient_for_whom_a_module_fails_gives_zero_and_changes_no_other() -> None:
    net = Delicate(WIDTH, 1)
    task = module(parts=declared(net), parameters={})
    built_module = built(task, Registered("delicate", 1, lambda _, *sizes: Delicate(*sizes)))
    model = np.ones(task.dimension(FEATURES))
    rows = np.random.default_rng(5).normal(size=(4, WIDTH))
    odd = rows.copy()
    odd[2] = 1000.0
    target = np.ones((4, 1))
    usual, other = (
        built_module.gradients(model, part, target, _difference) for part in (rows, odd)
    )
    assert not other[2].any()
    assert usual[2].any()
    assert np.array_equal(np.delete(usual, 2, axis=0), np.delete(other, 2, axis=0))
    assert built_module.outputs(model, odd)[2] == 0


class Abandons(nn.Module):
    """Runs a layer, and fails or skips it for a patient whose output is large."""

    def __init__(self, inputs: int, outputs: int, *, fails: bool) -> None:
        super().__init__()
        self.deep, self.fails = nn.Linear(inputs, 4), fails
        self.head, self.short = nn.Linear(4, outputs), nn.Linear(inputs, outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        deep = self.deep(rows)
        output: torch.Tensor
        if not (deep.abs() > 1e6).any():
            output = self.head(torch.relu(deep))
            return output
        if self.fails:
            raise RuntimeError("this patient is out of the ordinary")
        output = self.short(rows)
        return output


@pytest.mark.parametrize("fails", [True, False])
def test_a_layer_that_one_patient_leaves_unused_works_for_the_next(fails: bool) -> None:
    """In this round and in the next, whatever weights the coordinator chose."""
    net = Abandons(WIDTH, 1, fails=fails)
    task = module(parts=declared(net), parameters={})
    sized = Registered("abandons", 1, lambda _, *sizes: Abandons(*sizes, fails=fails))
    built_module = built(task, sized)
    model = np.full(task.dimension(FEATURES), 0.1)
    model[0] = 1e300
    rows = np.abs(np.random.default_rng(5).normal(size=(40, WIDTH)))
    rows[:, 0] = 0.0
    odd, target = rows.copy(), np.zeros((40, 1))
    odd[0, 0] = 2.0
    usual, other, again = (
        built_module.gradients(model, part, target, _difference) for part in (rows, odd, rows)
    )
    assert usual[1:].any(axis=1).all()
    assert np.array_equal(usual[1:], other[1:])
    assert np.array_equal(usual, again)


def _difference(outputs: FloatArray, target: FloatArray) -> FloatArray:
    return outputs - target


def test_a_module_too_large_for_any_machine_is_compared_before_it_is_built() -> None:
    def linear(parameters: Mapping[str, int], inputs: int, outputs: int) -> nn.Module:
        width = parameters["width"]
        middle = nn.Linear(width, width)
        return nn.Sequential(nn.Linear(inputs, width), middle, nn.Linear(width, outputs))

    task = module(parameters={"width": 1_000_000})
    with pytest.raises(ValueError, match="the study declares others"):
        built(task, Registered("series-conv", 1, linear))
