"""`train/mlp`: multilayer perceptrons, ReLU between linear layers.

In each layer a patient's gradient is the outer product of the layer's input and of the loss's
derivative by its output. So its norm has a closed form, and the two factors can be rounded instead
of their product (`protocols.numerics.factored_rounding`). The model vector holds each layer's
weights, row by row, then its biases, as torch orders them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from protocols.errors import ProtocolFault
from protocols.numerics.factored_rounding import factored_scale
from protocols.numerics.mechanism import LARGEST_SCALE, Mechanism, Rounding
from protocols.numerics.rowwise_products import row_products
from protocols.tasks.features import Feature, FloatArray
from protocols.tasks.network import NARROWER, Network
from protocols.tasks.sizes import Size
from protocols.tasks.tensors import Initial, Tensor, split
from protocols.tasks.training import Predictor

Width = Annotated[int, Field(ge=1, le=65_536)]


class TrainMlp(Network, Predictor):
    """Parameters of one study that trains a perceptron with these `hidden` layers."""

    kind: Literal["train/mlp"] = "train/mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)]
    activation: Literal["relu"] = "relu"

    def widths(self, features: Sequence[Feature]) -> tuple[int, ...]:
        """Return how many values enter each layer, and how many leave the last."""
        return (self.width(features), *self.hidden, self.classes(features))

    def model_size(self, features: Sequence[Feature]) -> Size:
        """Return the size of the model vector, from counts alone."""
        layers = pairwise(self.widths(features))
        terms = [(leaving, entering + 1) for entering, leaving in layers]
        return Size.of_model(*terms, fix=NARROWER)

    def tensors(self, features: Sequence[Feature]) -> tuple[Tensor, ...]:
        """Return weights and biases of each layer."""
        return tuple(
            tensor
            for number, (entering, leaving) in enumerate(pairwise(self.widths(features)))
            for tensor in (
                Tensor(name=f"layer{number}.weight", shape=(leaving, entering)),
                Tensor(name=f"layer{number}.bias", shape=(leaving,), initial=Initial.ZEROS),
            )
        )

    def check(self, features: Sequence[Feature]) -> None:
        """Raise ProtocolFault if the task does not fit the features or the clip norm is too low."""
        super().check(features)
        if factored_scale(self.clip_norm, self.widths(features)) > LARGEST_SCALE:
            raise ProtocolFault(
                f"The clip norm {self.clip_norm:g} is too small for layers of these widths",
                why="rounding to whole numbers would change a contribution of that norm too much",
                fix="choose a larger `clip_norm`, or narrower layers",
            )

    def layers(
        self, features: Sequence[Feature], model: FloatArray
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Return weights (leaving, entering) and biases (leaving,) of each layer, as views."""
        parts = list(split(model, self.tensors(features)).values())
        return list(zip(parts[::2], parts[1::2], strict=True))

    def outputs(
        self, features: Sequence[Feature], model: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Return the outputs of the last layer, (patients, classes)."""
        *hidden, (weights, biases) = self.layers(features, model)
        for inner, shift in hidden:
            rows = np.maximum(row_products(rows, inner.T) + shift, 0.0)
        return np.asarray(row_products(rows, weights.T) + biases, dtype=np.float64)

    def _train_template(self, features: Sequence[Feature]) -> Mechanism:
        scale = factored_scale(self.clip_norm, self.widths(features))
        factored = {"scale": scale, "rounding": Rounding.FACTORED}
        return Mechanism.model_validate({**dict(super()._train_template(features)), **factored})
