"""The canonical form of data that is signed or hashed: RFC 8785 JSON, and digests as text."""

import hashlib
import re
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints

DIGEST_PATTERN = re.compile(r"^sha256:[0-9a-f]{64}$")
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN.pattern)]
"""`sha256:` and 64 hexadecimal digits."""


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 form of a JSON value."""
    return rfc8785.dumps(value)


def digest(data: bytes) -> str:
    """Return the SHA-256 digest of `data` as `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
