"""Text that shows a reader exactly what it holds."""

import re

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Control, invisible and direction-changing characters: they show a reader another text."""


def is_plain(text: str) -> bool:
    """Whether the text is one line in which nothing is hidden."""
    return not HIDDEN.search(text)


def shown(text: str) -> str:
    """Return a line in which nothing moves the cursor, hides or turns around.

    Much of what is said was written by others: a coordinator's reasons, entries of a log.
    """
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
