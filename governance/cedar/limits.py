"""Bounds on Cedar text, checked before any parser sees it.

Cedar's parser and validator call themselves once for each level of an expression, in native code:
some 1,000 levels overflow the stack, and the process ends. A level comes from a bracket, from `if`,
or from one more operator in a chain; so brackets and `if` are limited together, and a chain by the
number of words and signs in a policy.
"""

import re

from governance.errors import DocumentFault

MAX_BYTES = 64 * 1024
MAX_WORDS = 2_000
"""Words and signs in one policy; the longest that comes with the package has 62."""
MAX_LEVELS = 32
"""Brackets and `if` inside each other; the policies that come with the package have three."""

_WORD = re.compile(
    r'//[^\n\r]*|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[A-Za-z_][A-Za-z_0-9]*|[0-9]+|\S', re.DOTALL
)
"""A text in quotes without an end is one word: no text is read twice, so time is linear."""


def check_limits(what: str, text: str) -> None:
    """Raise DocumentFault if the text is larger, longer or deeper than a policy needs to be."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _fault(what, f"it is larger than {MAX_BYTES // 1024} kB")
    words = levels = ifs = 0
    for match in _WORD.finditer(text):
        sign = match.group()
        if sign.startswith("//"):
            continue
        words += 1
        levels += (sign in "([{") - (sign in ")]}")
        ifs += sign == "if"
        if words > MAX_WORDS or not 0 <= levels <= MAX_LEVELS - ifs:
            line = text.count("\n", 0, match.start()) + 1
            raise _fault(
                what,
                f"line {line}: a policy may have {MAX_WORDS} words and signs, and {MAX_LEVELS} "
                "brackets and `if` inside each other",
            )
        if sign == ";" and levels == 0:
            words = ifs = 0


def _fault(what: str, why: str) -> DocumentFault:
    return DocumentFault(
        what, why=why, fix="write it as several shorter policies and sign it again"
    )
