"""What stops an officer's command, beside faults of keys, documents, links and logs."""

from keys.errors import PratiqueError


class OfficerFault(PratiqueError):
    """The officer's command cannot do what was asked; nothing was signed or sent."""


class HandoverFault(OfficerFault):
    """Something was signed and kept, but has not reached everyone it is for."""
