"""How many files and connections this process may have open: it asks for all that it may have."""

import resource
from contextlib import suppress

USUAL_LIMIT = 65_536
"""What a daemon asks for at most: more than it can use, and no table that costs memory."""


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open, USUAL_LIMIT if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return USUAL_LIMIT if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open descriptors as far as it may, and no further than needed.

    Processes that it starts have the same limit. Without the right to raise it (setrlimit(2)), the
    former limit stays.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = USUAL_LIMIT if hard == resource.RLIM_INFINITY else min(hard, USUAL_LIMIT)
    if descriptor_limit() < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
