"""Enrolment of a new party: the invitation that it gets, and the keys that it states.

The invitation is a secret file, handed over outside the system. It holds the digests of the
transport authority and of the TUF root, which people compare by voice. With the certificate in it a
party can only ask for enrolment, and its token works once.
"""

import base64
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from keys.composite import COMPOSITE_TEXT
from keys.derive import labelled_hash
from keys.errors import reason_of
from keys.identity import TEXT_PATTERN, spoken
from protocols.errors import ProtocolFault
from protocols.wire.encoding import Digest, canonical_json

TOKEN_BYTES = 32
MAX_INVITATION = 64 * 2**10
MAX_STATEMENT = 8 * 2**10

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
PublicKeyText = Annotated[str, StringConstraints(pattern=f"^{TEXT_PATTERN.pattern}$")]
IdentityKeyText = Annotated[
    str, StringConstraints(pattern=f"^({TEXT_PATTERN.pattern}|{COMPOSITE_TEXT.pattern})$")
]


def _checked_token(text: str) -> str:
    if len(base64.b64decode(text[:64], validate=True)) != TOKEN_BYTES:
        raise ValueError(f"its token is not {TOKEN_BYTES} bytes")
    return text


class Invitation(BaseModel):
    """What `pratique-coordinator invite` hands to one party of one country."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["invitation"] = "invitation"
    federation: Annotated[str, Field(max_length=64)]
    exchange: Annotated[str, Field(max_length=260)]
    """Host and port."""
    country: Country
    role: Literal["node", "officer"]
    token: Annotated[str, AfterValidator(_checked_token)]
    authority: str
    """Certificate of the federation's transport authority, PEM."""
    authority_digest: Digest
    root_digest: Digest | None
    """Of the TUF root to start from; None before the countries have signed the first root."""
    certificate: str
    key: str
    expires: AwareDatetime

    def token_bytes(self) -> bytes:
        """Return the one-time token."""
        return base64.b64decode(self.token)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read an invitation file. Raises ProtocolFault if it is not one."""
        try:
            return cls.model_validate_json(content[: MAX_INVITATION + 1])
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"]))
            raise ProtocolFault(
                "This file is not an invitation",
                why=f"the field `{field}` is missing or wrong" if field else "it is not JSON",
                fix="use the whole file that `pratique-coordinator invite` wrote",
            ) from error


class Statement(BaseModel):
    """The public keys that a party asks to enrol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: Country
    role: Literal["node", "officer"]
    document_key: PublicKeyText | None = None
    identity_key: IdentityKeyText | None = None
    log_key: PublicKeyText | None = None
    log_origin: Annotated[str, Field(max_length=128)] | None = None
    node_auth: Annotated[str, Field(max_length=1024)] | None = None
    """The node's SuperLink authentication key, one OpenSSH line."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_role(self) -> Self:
        node = (self.identity_key, self.log_key, self.log_origin, self.node_auth)
        required = (self.document_key,) if self.role == "officer" else node
        if any(value is None for value in required):
            raise ValueError(f"the statement of a {self.role} must have all of its keys")
        return self

    def to_bytes(self) -> bytes:
        """Return the canonical form."""
        return canonical_json(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a statement. Raises ProtocolFault if it is malformed or not canonical."""
        try:
            statement = cls.model_validate_json(content[: MAX_STATEMENT + 1])
        except ValidationError as error:
            raise ProtocolFault("An enrolment's statement cannot be read") from error
        if statement.to_bytes() != content:
            raise ProtocolFault("An enrolment's statement is not in canonical form")
        return statement


def read_invitation(path: Path) -> Invitation:
    """Read the coordinator's invitation file. Raises ProtocolFault."""
    try:
        with path.open("rb") as file:
            return Invitation.from_bytes(file.read(MAX_INVITATION + 1))
    except OSError as error:
        raise ProtocolFault(
            f"The invitation {path} cannot be read",
            why=reason_of(error),
            fix="give the path of the file that the coordinator handed over",
        ) from None


def enrolment_fingerprint(transport_key: bytes, statement: bytes) -> str:
    """Return a 120-bit fingerprint of an enrolment request, for people to compare by voice."""
    return spoken(labelled_hash("pratique/enrolment/v1", transport_key, statement))
