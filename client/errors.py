"""The errors of the national node."""

from keys.errors import PratiqueError


class RecordFault(PratiqueError):
    """The records or their dictionary cannot be used. It is shown locally and never sent."""


class ContentFault(RecordFault):
    """The content of a file of records is not what its dictionary says.

    A single record can cause it. So it stops no reply: the node goes on with the records that it
    read last.
    """


class NodeFault(PratiqueError):
    """A command or service of the node cannot do what it was asked to do."""
