"""Errors of the coordinator's commands and services."""

from keys.errors import PratiqueError


class OperationFault(PratiqueError):
    """A command or service of the coordinator cannot do what was asked."""
