"""`train/module`: a torch module that every node of the study has installed, by name and version.

The study holds no code. It names a registered module, gives it whole numbers as parameters, and
declares the parts of its model vector; a node whose own module of that name and version has other
parts refuses the study. The server never needs the module: it works on the declared vector.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from protocols.tasks.features import Feature
from protocols.tasks.network import NARROWER, Network
from protocols.tasks.sizes import Size
from protocols.tasks.tensors import Tensor

ModuleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Whole = Annotated[int, Field(ge=0, le=1_000_000)]


class TrainModule(Network):
    """Parameters of one study that trains a registered module with the declared parts."""

    kind: Literal["train/module"] = "train/module"
    module: ModuleName
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    parameters: Annotated[Mapping[ParameterName, Whole], Field(max_length=32)] = {}
    parts: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=1_000)]

    def model_size(self, features: Sequence[Feature]) -> Size:
        """Return the size of the model vector, from counts alone."""
        del features
        return Size.of_model(*(part.shape for part in self.parts), fix=NARROWER)

    def tensors(self, features: Sequence[Feature]) -> tuple[Tensor, ...]:
        """Return the declared parts of the model vector."""
        del features
        return self.parts
