"""The canonical form of data that is signed or hashed: RFC 8785 JSON, and digests as text."""

import hashlib
import re
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints

DIGEST_PATTERN = re.compile(r"^sha256:[0-9a-f]{64}$")
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN.pattern)]
"""`sha256:` and 64 hexadecimal digits."""


MAX_LEVELS = 32
"""Objects and arrays inside each other; the deepest document has eight levels."""
_SIGNS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
"""Texts and brackets of JSON. A text without an end is one token, so the time is linear."""


def check_json(data: bytes) -> bytes:
    """Return JSON of another party if its nesting is bounded, so that every parser can read it.

    Parsers recurse: they refuse, or crash, at a depth that depends on the caller's own. Raises
    ValueError beyond `MAX_LEVELS`; it says nothing else about the JSON.
    """
    levels = 0
    for match in _SIGNS.finditer(data):
        sign = data[match.start()]
        levels += (sign in b"[{") - (sign in b"]}")
        if levels > MAX_LEVELS:
            raise ValueError(f"it has more than {MAX_LEVELS} levels of brackets")
    return data


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a JSON value."""
    return rfc8785.dumps(value)


def digest(data: bytes) -> str:
    """Return the SHA-256 digest of `data` as `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
