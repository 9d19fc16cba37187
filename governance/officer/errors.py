"""Faults that stop an officer's command; those of keys, documents, links and logs are elsewhere."""

from keys.errors import PratiqueError


class OfficerFault(PratiqueError):
    """The officer's command cannot do what was asked; nothing was signed or sent."""


class HandoverFault(OfficerFault):
    """Documents were signed and stored, but have not reached everyone."""
