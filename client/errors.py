"""The errors of the national node."""

from keys.errors import PratiqueError


class RecordFault(PratiqueError):
    """The records or their dictionary cannot be used. It is shown locally and never sent."""


class NodeFault(PratiqueError):
    """A command or service of the node cannot do what it was asked to do."""
