"""What a patient contributes to `train/module`: the whole gradient of an installed torch module.

Layers of any kind may be in it that Opacus does not know to mix patients. What one patient gives
must not depend on another, so the module sees one patient at a time: rows that it is given together
change each other in the last places even where nothing mixes them, as the order of sums depends on
their number, and with weights chosen to cancel the last places are the result. A module with
buffers, which would remember, is refused, and so is one that gives something else for a made-up
row when others come with it or before it (batch normalisation, dropout). That is tried with weights
of the node's own: with the study's, which may be zero, nothing need show. torch is imported when
the first such study is prepared, and only then.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from client.tasks.module_registry import Registered
from protocols.tasks import Feature, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import Initial, Tensor, split, start_vector

if TYPE_CHECKING:
    import torch

Residual = Callable[[FloatArray, FloatArray], FloatArray]
"""Maps outputs and targets (patients, classes) to the loss's derivative by the outputs."""
Gradient = Callable[[FloatArray, FloatArray], FloatArray]
"""Maps one patient's row and target to the gradient, (dimension,)."""
THREADS = 2
"""Threads that torch may use beside everything else that a node does."""
SAME = 1e-9
"""How near two ways of computing one gradient in float64 must be to each other."""
TRIED_ROWS, TRIED_SEED = 5, 1
"""Made-up rows, and made-up weights, that every module is tried with."""


class TorchModule:
    """One registered module, built for one study, at whatever model it is given."""

    def __init__(self, task: TrainModule, features: Sequence[Feature], module: Registered) -> None:
        """Raises ValueError where the module is not what the study declares."""
        import torch  # noqa: PLC0415 (takes seconds; most nodes never need it)

        torch.set_num_threads(THREADS)
        width, classes = task.width(features), task.classes(features)
        self._classes = classes
        with torch.random.fork_rng(devices=[]):
            self._module = module.build(task.parameters, width, classes).double().train()
        self._parts, self._dimension = task.parts, task.dimension(features)
        _require_parts(self._module, task.parts)
        if next(self._module.buffers(), None) is not None:
            raise ValueError("the module has buffers, which would remember what they saw")
        self._require_separate(width, classes)
        _require_known(self._module)

    def outputs(self, model: FloatArray, rows: FloatArray) -> FloatArray:
        """Return what the module gives, (patients, classes)."""
        self._load(model)
        self._module.eval()
        return np.concatenate(
            [np.zeros((0, self._classes)), *map(self._given_or_zero, _alone(rows))]
        )

    def gradients(
        self, model: FloatArray, rows: FloatArray, target: FloatArray, residual: Residual
    ) -> FloatArray:
        """Return one gradient per patient, float64 (patients, dimension).

        A patient at whom the module fails has the gradient 0: whether a country answers must not
        depend on a record.
        """
        gradient = partial(self._gradient_or_zero, residual=residual)
        return self._each(model, rows, target, gradient)

    def _each(
        self, model: FloatArray, rows: FloatArray, target: FloatArray, gradient: Gradient
    ) -> FloatArray:
        self._load(model)
        self._module.train()
        found = np.zeros((len(rows), model.size))
        for place, (row, label) in enumerate(zip(_alone(rows), _alone(target), strict=True)):
            found[place] = gradient(row, label)
        return found

    def _given_or_zero(self, row: FloatArray) -> FloatArray:
        try:
            return self._given(row)
        except Exception:  # noqa: BLE001 - whatever it fails with depends on a record
            return np.zeros((1, self._classes))

    def _gradient_or_zero(
        self, row: FloatArray, target: FloatArray, residual: Residual
    ) -> FloatArray:
        try:
            return self._gradient(row, target, residual)
        except Exception:  # noqa: BLE001 - whatever it fails with depends on a record
            return np.zeros(self._dimension)

    def _given(self, rows: FloatArray) -> FloatArray:
        import torch  # noqa: PLC0415

        with torch.no_grad():
            given = self._module(torch.from_numpy(rows))
        return np.asarray(given.numpy(), dtype=np.float64)

    def _gradient(self, row: FloatArray, target: FloatArray, residual: Residual) -> FloatArray:
        """Return the gradient of one patient, (dimension,), who comes alone.

        It is handed back, and left nowhere in the module: what a layer ran for and was not used
        for must not wait there for the next patient.
        """
        import torch  # noqa: PLC0415

        given = self._module(torch.from_numpy(row))
        returned = torch.from_numpy(residual(given.detach().numpy(), target))
        named = dict(self._module.named_parameters())
        ordered = [named[tensor.name] for tensor in self._parts]
        found = torch.autograd.grad(given, ordered, returned, allow_unused=True)
        return np.concatenate(
            [_flat(part, parameter) for part, parameter in zip(found, ordered, strict=True)]
        )

    def _load(self, model: FloatArray) -> None:
        import torch  # noqa: PLC0415

        parts = split(model, self._parts)
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(parts[name])))

    def _require_separate(self, width: int, classes: int) -> None:
        """Raise ValueError unless every row gives the same alone, with others and after others."""
        every = [part.model_copy(update={"initial": Initial.UNIFORM}) for part in self._parts]
        model = start_vector(every, TRIED_SEED)
        rows = np.sin(np.arange(1.0, TRIED_ROWS * width + 1)).reshape(TRIED_ROWS, width)
        try:
            self._load(model)
            tried = [self._tried(rows, training=training) for training in (True, False)]
            target = np.zeros((len(rows), classes))
            one = partial(self._gradient, residual=_as_it_is)
            first, second = (self._each(model, rows, target, one) for _ in range(2))
        except Exception as error:  # whatever a module may raise: it is not used
            raise ValueError(
                f"a patient who comes alone gets no gradient of it ({type(error).__name__})"
            ) from error
        if any(one.shape != (len(rows), classes) for pair in tried for one in pair):
            raise ValueError(f"the module does not give {classes} outputs for each patient")
        if not all(_same(one, other) for one, other in (*tried, (first, second))):
            raise ValueError("what it gives for a patient depends on the others, or on chance")

    def _tried(self, rows: FloatArray, *, training: bool) -> tuple[FloatArray, FloatArray]:
        """Return what the module gives for rows together, and for each of them alone."""
        self._module.train(training)
        return self._given(rows), np.concatenate([self._given(row) for row in _alone(rows)])


def _alone(rows: FloatArray) -> list[FloatArray]:
    """Return each patient's row, (1, coordinates), in memory of its own."""
    return [row[None, :].copy() for row in rows]


def _same(one: FloatArray, other: FloatArray) -> bool:
    return np.allclose(one, other, rtol=SAME, atol=SAME)


def _as_it_is(outputs: FloatArray, target: FloatArray) -> FloatArray:
    return outputs - target + 1.0


def _require_known(module: "torch.nn.Module") -> None:
    """Raise ValueError where Opacus knows a layer to mix patients, or to remember them."""
    from opacus.validators import ModuleValidator  # noqa: PLC0415

    faults = ModuleValidator.validate(module)
    if faults:
        raise ValueError(f"Opacus has no per-patient gradients for one of its layers: {faults[0]}")


def _require_parts(module: "torch.nn.Module", declared: Sequence[Tensor]) -> None:
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if own != {tensor.name: tensor.shape for tensor in declared}:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in own.items())
        raise ValueError(f"the module's parts are {listed}, and the study declares others")


def _flat(found: Any, parameter: "torch.nn.Parameter") -> FloatArray:
    """Return one part of a gradient, flat; zeros for a part that was not used."""
    if found is None:
        return np.zeros(parameter.numel())
    return np.asarray(found.reshape(-1).numpy(), dtype=np.float64)
