"""How many files and connections this process may have open: it asks for all that it may have."""

import resource

USUAL_LIMIT = 65_536
"""What a daemon asks for at most: more than it can use, and no table that costs memory."""


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open descriptors as far as it may, and return the limit.

    Without the right to raise it (setrlimit(2)), the former limit stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = USUAL_LIMIT if hard == resource.RLIM_INFINITY else min(hard, USUAL_LIMIT)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return USUAL_LIMIT if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted
