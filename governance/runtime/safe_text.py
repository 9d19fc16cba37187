"""Show text that others wrote, so that it cannot be taken for ours: every surface uses this module.

`escaped` leaves only characters that a reader sees: everything that is printed, logged or written
as JSON passes it. `quoted` marks free text of others as theirs. `pure_json` writes JSON. How lines
are broken is decided in `governance.runtime.text_layout`.

Letters that look like other letters (a Cyrillic о in a Latin word) are not recognised: there are
too many honest uses. Quotation marks and indentation do not depend on them.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What no signed document may contain. It never grows: a document that was signed stays valid."""
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u2d7f\u3164\ufe00-\ufe0f\uffa0\ufffc"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that show nothing: fillers, joiners, variation selectors."""
MARKS, ENCLOSING = frozenset({"Mn", "Mc"}), "Me"
MOST_MARKS = 4
"""Marks on one letter that are shown: more of them would be drawn over other lines."""
LONGEST_QUOTE = 2_000
"""Characters of a quotation that are shown; the longest sentence of a document."""
NAME = re.compile(r"[A-Za-z0-9_.:/+@-]{1,128}", re.ASCII)
Escape = Callable[[str], str]


def is_plain(text: str) -> bool:
    """Whether a document may contain the text: one line without control characters."""
    return not HIDDEN.search(text)


def escaped(text: str) -> str:
    """Return the text with an escape such as `\\u{202e}` for each character that shows nothing.

    Unicode's categories decide: control, format, private, unassigned, surrogate, separators except
    the space, and marks that no letter or digit carries. Line ends are escaped too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_characters(text, lambda character: f"\\u{{{ord(character):x}}}"))


def quoted(text: str, longest: int = LONGEST_QUOTE) -> str:
    r"""Return text of others in quotation marks: escaped, cut to `longest`, and unmistakable.

    Quotation marks and backslashes inside get a backslash. Of several spaces the first is shown and
    the others are escaped, so that the text cannot be laid out like ours.
    """
    inside = text[:longest].replace("\\", r"\\").replace('"', r"\"")
    inside = re.sub(r"(?<= ) ", r"\\u{20}", inside)
    more = f" and {len(text) - longest} more characters" if len(text) > longest else ""
    return f'"{escaped(inside)}"{more}'


def in_backticks(name: str) -> str:
    """Return a name of the reader's own files between backticks, escaped."""
    return f"`{escaped(name)}`"


def named(text: str) -> str:
    """Return an id or a name as it is if it is one word of ASCII, else as a quotation."""
    return text if NAME.fullmatch(text) else quoted(text)


def pure_json(value: Any, *, indent: int | None = None, in_ascii: bool = False) -> str:
    """Return the value as JSON in which each character that shows nothing is a JSON escape.

    `in_ascii` escapes every character beyond ASCII. Values that JSON does not know are written as
    text, infinity among them.
    """
    known = json.loads(json.dumps(value, default=str), parse_constant=str)
    text = json.dumps(known, ensure_ascii=in_ascii, indent=indent)
    lines = text.split("\n")  # within a string, JSON escapes a line end
    return "\n".join("".join(_characters(line, lambda c: json.dumps(c)[1:-1])) for line in lines)


def _characters(text: str, escape: Escape) -> Iterator[str]:
    """Yield each character, or its escape."""
    room = 0
    for character in text:
        category = unicodedata.category(character)
        if category in MARKS and room and not INVISIBLE.match(character):
            room -= 1
            yield character
            continue
        seen = category not in MARKS and _is_seen(character, category)
        room = MOST_MARKS if seen and category[0] in "LN" else 0
        yield character if seen else escape(character)


def _is_seen(character: str, category: str) -> bool:
    """Whether a reader sees the character when it stands alone."""
    if character == " ":
        return True
    return category[0] not in "CZ" and category != ENCLOSING and not INVISIBLE.match(character)
