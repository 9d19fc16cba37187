"""The torch modules registered on a node, by name and version; no other module is built.

One module comes with the node. A country may install others in its Python environment, under the
entry point group `pratique.modules`. Of these, a node uses only those that its operator lists in
`node.yaml`. A study can name a module, but never supply one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from client.errors import NodeFault
from client.tasks.series_conv import series_conv

if TYPE_CHECKING:
    import torch

GROUP = "pratique.modules"


class Build(Protocol):
    """Builds a module from public whole numbers."""

    def __call__(
        self, parameters: Mapping[str, int], inputs: int, outputs: int
    ) -> "torch.nn.Module":
        """Return a module that maps (patients, inputs) to (patients, outputs).

        Raises ValueError if the parameters are not those that it needs.
        """


@dataclass(frozen=True)
class Registered:
    """A module that this node can build."""

    name: str
    version: int
    build: Build


BUILT_IN = (Registered("series-conv", 1, series_conv),)
Modules = Mapping[tuple[str, int], Registered]


def registered(listed: Sequence[str] = ()) -> Modules:
    """Return the modules of this node: those that come with it, and those that are listed.

    The object of an entry point is a `Registered`. Raises NodeFault if a listed module is not
    installed, is not a `Registered`, or has the name and version of another one.
    """
    entries = [*BUILT_IN, *(_installed(name) for name in listed)]
    modules = {(entry.name, entry.version): entry for entry in entries}
    if len(modules) != len(entries):
        raise _unusable("two of them have the same name and version")
    return modules


def _installed(name: str) -> Registered:
    points = entry_points(group=GROUP, name=name)
    if len(points) != 1:
        raise _unusable(f"{len(points)} packages offer the module {name!r}")
    entry = next(iter(points)).load()
    if not isinstance(entry, Registered):
        raise _unusable(f"the entry point {name!r} of the package is not a `Registered` module")
    return entry


def _unusable(why: str) -> NodeFault:
    return NodeFault(
        "The torch modules that this node lists cannot be used",
        why=why,
        fix="correct `modules` in node.yaml, or install the package in the node's environment",
    )
