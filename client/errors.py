"""Errors of the national node: its records, its commands and its services."""

from keys.errors import PratiqueError


class RecordFault(PratiqueError):
    """The records or their dictionary cannot be used. Shown locally, never sent anywhere."""


class OperationFault(PratiqueError):
    """A command or service of the node cannot do what was asked."""
