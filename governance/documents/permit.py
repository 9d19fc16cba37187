"""A country's permits and withdrawals for studies, and the public keys of its node."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from governance.documents.models import (
    Country,
    Document,
    Epsilon,
    IdentityKey,
    Line,
    Part,
    PublicKey,
    Sentence,
    UtcTime,
)
from governance.documents.succession import NodeSuccession
from keys.composite import halves
from protocols.tasks.features import FeatureName
from protocols.wire.document_versions import LARGEST_ROSTER
from protocols.wire.encoding import Digest


class PermitConditions(Part):
    """The limits of a permit. Without `features`, all that the study uses are permitted.

    No run and no sum may be over fewer than `minimum_countries`; a permit from before the field was
    introduced has none, and the agreement's numbers are all that it demands. `by_country` allows
    that this country's own sum is visible, with noise only. `calibrate` allows the node to fit the
    released model to its own records; the outcome stays on the node.
    """

    features: Annotated[tuple[FeatureName, ...], Field(max_length=1_000)] | None = None
    epsilon_at_most: Epsilon | None = None
    expires: UtcTime
    minimum_countries: Annotated[int, Field(ge=2, le=LARGEST_ROSTER)] | None = Field(
        default=None, exclude_if=lambda number: number is None
    )
    by_country: bool = Field(default=False, exclude_if=lambda allowed: not allowed)
    calibrate: bool = Field(default=False, exclude_if=lambda allowed: not allowed)


class Permit(Document):
    """One country's permission for one study, named by its digest."""

    name_in_messages: ClassVar[str] = "permit"

    kind: Literal["permit"] = "permit"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    country: Country
    study: Digest
    agreement: Digest
    conditions: PermitConditions
    approved_by: Line
    sentence: Sentence
    issued: UtcTime
    earlier: Annotated[int, Field(ge=1)] | None = None
    """How many permits the country gave for the study before this one; left out if none."""

    @property
    def minimum_countries(self) -> int:
        """The fewest countries of a run, and of a sum, that this permit demands by itself."""
        return self.conditions.minimum_countries or 0

    @property
    def number(self) -> int:
        """The permit's number for this study, from 1; no more runs can have been charged."""
        return 1 + (self.earlier or 0)

    @model_serializer(mode="wrap")
    def _without_none(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `earlier` out of a first permit, as before the field was introduced."""
        fields: dict[str, Any] = write(self)
        return fields if self.earlier else {k: v for k, v in fields.items() if k != "earlier"}


class Withdrawal(Document):
    """One country's refusal of one study, before or after a permit; it overrides any permit."""

    name_in_messages: ClassVar[str] = "withdrawal"

    kind: Literal["withdrawal"] = "withdrawal"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    country: Country
    study: Digest
    reason: Sentence
    issued: UtcTime


class NodeKeys(Document):
    """The public keys of one country's node, vouched for by its officer.

    `node_auth` is the OpenSSH public key line by which the SuperLink knows the node. `succession`
    is present if these keys replace others: then the former identity key has signed them.
    """

    name_in_messages: ClassVar[str] = "set of node keys"

    kind: Literal["node"] = "node"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    country: Country
    identity_key: IdentityKey
    log_key: PublicKey
    log_origin: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./-]{0,126}$")]
    node_auth: Annotated[
        str, StringConstraints(pattern=r"^ecdsa-sha2-nistp(256|384) [A-Za-z0-9+/]+={0,2}$")
    ]
    succession: Annotated[NodeSuccession | None, Field(exclude_if=lambda keys: keys is None)] = None

    @model_validator(mode="after")
    def _succeeds(self) -> Self:
        succession = self.succession
        if succession is not None and not succession.is_signed(self.identity_key, self.stated()):
            raise ValueError("the succession is not signed by the former and the new identity key")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if halves(self.identity_key) & halves(self.log_key):
            raise ValueError("identity_key and log_key must be two keys")
        return self

    def stated(self) -> dict[str, str]:
        """Return the fields that a succession signs: all but itself."""
        names = ("country", "identity_key", "log_key", "log_origin", "node_auth")
        return {name: getattr(self, name) for name in names}
