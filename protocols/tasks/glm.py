"""`train/glm`: generalised linear models by distributed, private gradient descent."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from protocols.numerics.rowwise_products import row_products
from protocols.tasks.features import Columns, Feature, FloatArray
from protocols.tasks.layout import input_names, row_width
from protocols.tasks.sizes import Size
from protocols.tasks.tensors import Initial, Tensor
from protocols.tasks.training import Family, Predictor

WEIGHTS = "weights"


class TrainGlm(Predictor):
    """Parameters of one study that fits a generalised linear model."""

    kind: Literal["train/glm"] = "train/glm"

    def model_size(self, features: Sequence[Feature]) -> Size:
        """Return the size of the model vector, from counts alone."""
        factors = (self.classes(features), row_width(self.input_features(features)))
        return Size.of_model(factors, fix="use fewer inputs, or fewer levels")

    def tensors(self, features: Sequence[Feature]) -> tuple[Tensor, ...]:
        """Return the one part of the model: all weights, biases included."""
        size = self.classes(features) * row_width(self.input_features(features))
        return (Tensor(name=WEIGHTS, shape=(size,), initial=Initial.ZEROS),)

    def initial(self, features: Sequence[Feature]) -> FloatArray:
        """Return zeros: the loss is convex, so any starting point leads to its minimum."""
        return np.zeros(self.dimension(features))

    def weights_only(self, features: Sequence[Feature], vector: FloatArray) -> FloatArray:
        """Return a copy of a model vector with its biases zero."""
        weights = vector.reshape(self.classes(features), -1).copy()
        weights[:, 0] = 0.0
        return weights.reshape(-1)

    def rows(self, features: Sequence[Feature], columns: Columns) -> FloatArray:
        """Return encoded inputs (patients, coordinates), the bias first."""
        return self.encoded(features, columns)

    def outputs(
        self, features: Sequence[Feature], model: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Return the linear predictor, (patients, classes)."""
        return row_products(rows, model.reshape(self.classes(features), -1).T)

    def coordinate_names(self, features: Sequence[Feature]) -> tuple[str, ...]:
        """Return the name of each coordinate of the model vector."""
        names = input_names(self.input_features(features))
        if self.family is not Family.MULTINOMIAL:
            return names
        levels = self.target_feature(features).levels
        return tuple(f"{level}: {name}" for level in levels for name in names)
