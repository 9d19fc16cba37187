"""What a patient contributes to `train/module`: the whole gradient of an installed torch module.

Layers of any kind that Opacus has per-sample gradients for may be in it. What one patient gives
must not depend on another: a module with buffers, which would remember, is refused, and so is one
whose gradients for two made-up rows change when the rows come together (batch normalisation,
dropout). torch is imported when the first such study is prepared, and only then.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from client.tasks.modules import Registered
from protocols.tasks import Feature, TrainModule
from protocols.tasks.features import FloatArray
from protocols.tasks.tensors import Tensor, split

if TYPE_CHECKING:
    import torch

Residual = Callable[[FloatArray], FloatArray]
"""Maps outputs (patients, classes) to the loss's derivative by them."""
THREADS = 2
"""Threads that torch may use beside everything else that a node does."""
SAME = 1e-9
"""How near two ways of computing one gradient in float64 must be to each other."""


class TorchModule:
    """One registered module, built for one study, at whatever model it is given."""

    def __init__(self, task: TrainModule, features: Sequence[Feature], module: Registered) -> None:
        """Raises ValueError where the module is not what the study declares."""
        import torch  # noqa: PLC0415 (takes seconds; most nodes never need it)

        torch.set_num_threads(THREADS)
        width, classes = task.width(features), task.classes(features)
        with torch.random.fork_rng(devices=[]):
            self._module = module.build(task.parameters, width, classes).double().train()
        self._parts = task.parts
        _require_parts(self._module, task.parts)
        if next(self._module.buffers(), None) is not None:
            raise ValueError("the module has buffers, which would remember what they saw")
        self._per_sample = _per_sample(self._module)
        self._require_separate(task.initial(features), width, classes)

    def outputs(self, model: FloatArray, rows: FloatArray) -> FloatArray:
        """Return what the module gives, (patients, classes)."""
        import torch  # noqa: PLC0415

        self._load(model)
        with torch.no_grad():
            given = self._module.eval()(torch.from_numpy(np.ascontiguousarray(rows)))
        return np.asarray(given.numpy(), dtype=np.float64)

    def gradients(self, model: FloatArray, rows: FloatArray, residual: Residual) -> FloatArray:
        """Return one gradient per patient, float64 (patients, dimension)."""
        import torch  # noqa: PLC0415

        if not len(rows):
            return np.zeros((0, model.size))
        self._load(model)
        self._module.train()
        self._per_sample.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # Whether inputs need gradients is the study's matter; torch warns where they do not.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            given = self._per_sample(torch.from_numpy(np.ascontiguousarray(rows)))
            given.backward(torch.from_numpy(residual(given.detach().numpy())))
        named = dict(self._module.named_parameters())
        parts = [_grad_sample(named[tensor.name], len(rows)) for tensor in self._parts]
        self._per_sample.zero_grad(set_to_none=True)
        return np.concatenate(parts, axis=1)

    def _load(self, model: FloatArray) -> None:
        import torch  # noqa: PLC0415

        parts = split(model, self._parts)
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(parts[name])))

    def _require_separate(self, model: FloatArray, width: int, classes: int) -> None:
        """Raise ValueError unless rows give the same gradients together and one by one."""
        rows = np.linspace(-1.0, 1.0, 2 * width).reshape(2, width)
        if self.outputs(model, rows).shape != (2, classes):
            raise ValueError(f"the module does not give {classes} outputs for each patient")
        try:
            together = self.gradients(model, rows, _as_it_is)
            alone = [self.gradients(model, row[None, :], _as_it_is) for row in rows]
        except RuntimeError as error:
            raise ValueError("Opacus finds no per-patient gradients of it") from error
        if not np.allclose(together, np.concatenate(alone), rtol=SAME, atol=SAME):
            raise ValueError("what it gives for a patient depends on the others, or on chance")


def _as_it_is(outputs: FloatArray) -> FloatArray:
    return outputs + 1.0


def _per_sample(module: "torch.nn.Module") -> Any:
    from opacus.grad_sample import GradSampleModule  # noqa: PLC0415

    try:
        return GradSampleModule(module, batch_first=True, loss_reduction="sum", strict=True)
    except NotImplementedError as error:
        raise ValueError("Opacus has no per-patient gradients for one of its layers") from error


def _require_parts(module: "torch.nn.Module", declared: Sequence[Tensor]) -> None:
    own = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if own != {tensor.name: tensor.shape for tensor in declared}:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in own.items())
        raise ValueError(f"the module's parts are {listed}, and the study declares others")


def _grad_sample(parameter: Any, patients: int) -> FloatArray:
    found = parameter.grad_sample
    if found is None:
        return np.zeros((patients, parameter.numel()))
    return np.asarray(found.reshape(patients, -1).numpy(), dtype=np.float64)
