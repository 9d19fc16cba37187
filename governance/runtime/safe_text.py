"""Find and replace characters that hide or change what a text shows."""

import re

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Control, invisible and direction-changing characters: they change what a reader sees."""


def is_plain(text: str) -> bool:
    """Whether the text is one line in which nothing is hidden."""
    return not HIDDEN.search(text)


def shown(text: str) -> str:
    """Return the line with such characters replaced, so that it is safe to print.

    Many texts were written by others, such as a coordinator's reasons or the entries of a log.
    """
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
