"""The contribution of a patient to `train/module`: the full gradient of an installed torch module.

The module may contain layers of any kind that Opacus does not reject for mixing patients. The
result for one patient must not depend on another, so the module gets one patient at a time. Rows
that are given together change each other in the last digits even if no layer mixes them, because
the order of sums depends on their number; and with weights chosen to cancel, the last digits are
the result.

A module with buffers is refused, because it would remember earlier patients. So is a module whose
result for a made-up row changes if other rows come with it or before it (batch normalisation,
dropout). This is tested with the node's weights: the study's weights may be zero, and would then
show nothing. torch is imported only when the first such study is prepared.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from client.tasks.module_registry import Registered
from protocols.tasks import Feature, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import Initial, Tensor, split, start_vector

if TYPE_CHECKING:
    import torch

Residual = Callable[[FloatArray, FloatArray], FloatArray]
"""Maps outputs and targets (patients, classes) to the derivative of the loss by the outputs."""
Gradient = Callable[[FloatArray, FloatArray], FloatArray]
"""Maps one patient's row and target to the gradient, (dimension,)."""
THREADS = 2
"""Number of threads that torch may use beside the other work of the node."""
SAME = 1e-9
"""Largest difference between two computations of one gradient in float64."""
TRIED_ROWS, TRIED_SEED = 5, 1
"""Number of made-up rows, and seed of the made-up weights, that test every module."""


class TorchModule:
    """One registered module, built for one study; each call passes the model to use."""

    def __init__(self, task: TrainModule, features: Sequence[Feature], module: Registered) -> None:
        """Raises ValueError if the module is not the one that the study declares."""
        import torch  # noqa: PLC0415 (takes seconds; most nodes never need it)

        torch.set_num_threads(THREADS)
        width, classes = task.width(features), task.classes(features)
        self._classes = classes
        with torch.random.fork_rng(devices=[]):
            # First without memory for the weights: whole numbers of a study may ask for terabytes.
            with torch.device("meta"):
                _require_parts(module.build(task.parameters, width, classes), task.parts)
            self._module = module.build(task.parameters, width, classes).double().train()
        self._parts, self._dimension = task.parts, task.dimension(features)
        if next(self._module.buffers(), None) is not None:
            raise ValueError("the module has buffers, which would remember earlier patients")
        self._require_separate(width, classes)
        _require_known(self._module)

    def outputs(self, model: FloatArray, rows: FloatArray) -> FloatArray:
        """Return the outputs of the module, (patients, classes)."""
        self._load(model)
        self._module.eval()
        return np.concatenate(
            [np.zeros((0, self._classes)), *map(self._outputs_or_zero, _alone(rows))]
        )

    def gradients(
        self, model: FloatArray, rows: FloatArray, target: FloatArray, residual: Residual
    ) -> FloatArray:
        """Return one gradient per patient, float64 (patients, dimension).

        If the module fails for a patient, the gradient is 0: whether a country answers must not
        depend on a record.
        """
        gradient = partial(self._gradient_or_zero, residual=residual)
        return self._gradients(model, rows, target, gradient)

    def _gradients(
        self, model: FloatArray, rows: FloatArray, target: FloatArray, gradient: Gradient
    ) -> FloatArray:
        self._load(model)
        self._module.train()
        gradients = np.zeros((len(rows), model.size))
        for index, (row, label) in enumerate(zip(_alone(rows), _alone(target), strict=True)):
            gradients[index] = gradient(row, label)
        return gradients

    def _outputs_or_zero(self, row: FloatArray) -> FloatArray:
        try:
            return self._outputs(row)
        except Exception:  # noqa: BLE001 - any fault may depend on a record
            return np.zeros((1, self._classes))

    def _gradient_or_zero(
        self, row: FloatArray, target: FloatArray, residual: Residual
    ) -> FloatArray:
        try:
            return self._gradient(row, target, residual)
        except Exception:  # noqa: BLE001 - any fault may depend on a record
            return np.zeros(self._dimension)

    def _outputs(self, rows: FloatArray) -> FloatArray:
        import torch  # noqa: PLC0415

        with torch.no_grad():
            outputs = self._module(torch.from_numpy(rows))
        return np.asarray(outputs.numpy(), dtype=np.float64)

    def _gradient(self, row: FloatArray, target: FloatArray, residual: Residual) -> FloatArray:
        """Return the gradient of one patient, (dimension,), who is given alone.

        `autograd.grad` returns the gradient and stores nothing in the module: nothing of one
        patient may stay there until the next one.
        """
        import torch  # noqa: PLC0415

        outputs = self._module(torch.from_numpy(row))
        derivative = torch.from_numpy(residual(outputs.detach().numpy(), target))
        named = dict(self._module.named_parameters())
        ordered = [named[tensor.name] for tensor in self._parts]
        parts = torch.autograd.grad(outputs, ordered, derivative, allow_unused=True)
        return np.concatenate(
            [_flat(part, parameter) for part, parameter in zip(parts, ordered, strict=True)]
        )

    def _load(self, model: FloatArray) -> None:
        import torch  # noqa: PLC0415

        parts = split(model, self._parts)
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(parts[name])))

    def _require_separate(self, width: int, classes: int) -> None:
        """Raise ValueError unless each row has one result: alone, with others, and after others."""
        uniform = [part.model_copy(update={"initial": Initial.UNIFORM}) for part in self._parts]
        model = start_vector(uniform, TRIED_SEED)
        rows = np.sin(np.arange(1.0, TRIED_ROWS * width + 1)).reshape(TRIED_ROWS, width)
        try:
            self._load(model)
            pairs = [self._both_outputs(rows, training=training) for training in (True, False)]
            target = np.zeros((len(rows), classes))
            gradient = partial(self._gradient, residual=_nonzero_residual)
            first, second = (self._gradients(model, rows, target, gradient) for _ in range(2))
        except Exception as error:  # a module that raises anything is not used
            raise ValueError(
                f"it has no gradient for a patient who is given alone ({type(error).__name__})"
            ) from error
        if any(outputs.shape != (len(rows), classes) for pair in pairs for outputs in pair):
            raise ValueError(f"the module does not have {classes} outputs for each patient")
        if not all(_same(left, right) for left, right in (*pairs, (first, second))):
            raise ValueError("its result for a patient depends on other patients, or on chance")

    def _both_outputs(self, rows: FloatArray, *, training: bool) -> tuple[FloatArray, FloatArray]:
        """Return the outputs of the module for the rows together, and for each row alone."""
        self._module.train(training)
        return self._outputs(rows), np.concatenate([self._outputs(row) for row in _alone(rows)])


def _alone(rows: FloatArray) -> list[FloatArray]:
    """Return a separate copy of each patient's row, (1, coordinates)."""
    return [row[None, :].copy() for row in rows]


def _same(left: FloatArray, right: FloatArray) -> bool:
    return np.allclose(left, right, rtol=SAME, atol=SAME)


def _nonzero_residual(outputs: FloatArray, target: FloatArray) -> FloatArray:
    return outputs - target + 1.0


def _require_known(module: "torch.nn.Module") -> None:
    """Raise ValueError if Opacus rejects a layer because it mixes or remembers patients."""
    from opacus.validators import ModuleValidator  # noqa: PLC0415

    faults = ModuleValidator.validate(module)
    if faults:
        raise ValueError(f"Opacus has no per-patient gradients for one of its layers: {faults[0]}")


def _require_parts(module: "torch.nn.Module", declared: Sequence[Tensor]) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if shapes != {tensor.name: tensor.shape for tensor in declared}:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"the parts of the module are {listed}, and the study declares others")


def _flat(gradient: "torch.Tensor | None", parameter: "torch.nn.Parameter") -> FloatArray:
    """Return one part of a gradient, flat; zeros if the part was not used."""
    if gradient is None:
        return np.zeros(parameter.numel())
    return np.asarray(gradient.reshape(-1).numpy(), dtype=np.float64)
