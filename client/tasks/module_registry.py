"""The torch modules registered on a node, by name and version. What is not in here is not built.

One module comes with the node. A country may install others in its own Python environment, under
the entry point group `pratique.modules`; a node takes of these only the ones that its operator
lists in `node.yaml`. A study can name a module, and can never bring one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from client.errors import OperationFault
from client.tasks.series_conv import series_conv

if TYPE_CHECKING:
    import torch

GROUP = "pratique.modules"


class Build(Protocol):
    """Makes a module from public whole numbers."""

    def __call__(
        self, parameters: Mapping[str, int], inputs: int, outputs: int
    ) -> "torch.nn.Module":
        """Return a module that maps (patients, inputs) to (patients, outputs).

        Raises ValueError where the parameters are not what it needs.
        """


@dataclass(frozen=True)
class Registered:
    """A module that this node would build."""

    name: str
    version: int
    build: Build


BUILT_IN = (Registered("series-conv", 1, series_conv),)
Modules = Mapping[tuple[str, int], Registered]


def registered(listed: Sequence[str] = ()) -> Modules:
    """Return the modules of this node: those that come with it, and those that are listed.

    An entry point's object is a `Registered`. Raises OperationFault where a listed one is not
    installed, is none, or takes the place of another.
    """
    found = [*BUILT_IN, *(_installed(name) for name in listed)]
    modules = {(one.name, one.version): one for one in found}
    if len(modules) != len(found):
        raise _unusable("Two of them have the same name and version")
    return modules


def _installed(name: str) -> Registered:
    points = entry_points(group=GROUP, name=name)
    if len(points) != 1:
        raise _unusable(f"{len(points)} packages offer the module {name!r}")
    found = next(iter(points)).load()
    if not isinstance(found, Registered):
        raise _unusable(f"What the package offers as {name!r} is no registered module")
    return found


def _unusable(why: str) -> OperationFault:
    return OperationFault(
        "The torch modules that this node lists cannot be used",
        why=why,
        fix="correct `modules` in node.yaml, or install the package beside the node",
    )
