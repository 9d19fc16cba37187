"""The history of a country's document key: each key signed the one after it.

A statement needs nothing beside it: whoever trusts the former key can verify the new one, whoever
delivered the statement. The new key signs too, so that nobody claims a key that is not theirs. A
history contains each key once, so an old statement cannot lead back to a replaced key.
"""

import base64
import binascii
from datetime import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from governance.documents.models import Country, Document, Part, PublicKey, UtcTime
from keys.composite import read_identity
from keys.derive import labelled_hash
from keys.errors import KeyFault
from keys.identity import SigningKey, VerifyKey
from protocols.wire.encoding import canonical_json

ROTATION_LABEL = "pratique/key-rotation/v1"
MAX_ROTATIONS = 100

SignatureText = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9+/]{86}|[A-Za-z0-9+/]{4498})==$")
]
"""64 bytes of Ed25519, or 3373 of Ed25519 and ML-DSA-65, according to the key that signs."""


class Rotation(Part):
    """One change of key. Raises ValueError if either signature is not valid."""

    country: Country
    former: PublicKey
    new: PublicKey
    issued: UtcTime
    by_former: SignatureText
    by_new: SignatureText

    @model_validator(mode="after")
    def _signed(self) -> Self:
        message = _message(self.country, self.former, self.new, self.issued)
        for key, signature in ((self.former, self.by_former), (self.new, self.by_new)):
            if not verifies(key, signature, message):
                raise ValueError(f"the change of key is not signed by {_fingerprint(key)}")
        return self


class KeyHistory(Document):
    """Every change of a country's document key, oldest first, without a gap."""

    name_in_messages: ClassVar[str] = "history of a country's keys"

    kind: Literal["key-history"] = "key-history"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    country: Country
    rotations: Annotated[tuple[Rotation, ...], Field(min_length=1, max_length=MAX_ROTATIONS)]

    @model_validator(mode="after")
    def _unbroken(self) -> Self:
        if any(rotation.country != self.country for rotation in self.rotations):
            raise ValueError("a change of key belongs to another country")
        former = [rotation.former for rotation in self.rotations[1:]]
        if former != [rotation.new for rotation in self.rotations[:-1]]:
            raise ValueError("a change of key does not follow the one before it")
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("a replaced key is used again")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key, oldest first."""
        return (self.rotations[0].former, *(rotation.new for rotation in self.rotations))

    @property
    def newest(self) -> str:
        """The newest key."""
        return self.rotations[-1].new

    def proves_succession(self, known: str, new: str) -> bool:
        """Whether the statements lead from the trusted key `known` to the later key `new`."""
        keys = self.keys
        return known in keys and new in keys[keys.index(known) + 1 :]


def extended(
    history: KeyHistory | None,
    country: str,
    former: SigningKey,
    new: SigningKey,
    issued: datetime,
) -> KeyHistory:
    """Return the history with one more change, signed by both keys; the newest 100 are kept."""
    rotation = _rotation(country, former, new, issued)
    before = history.rotations if history and history.newest == rotation.former else ()
    return KeyHistory(country=country, rotations=(*before, rotation)[-MAX_ROTATIONS:])


def _rotation(country: str, former: SigningKey, new: SigningKey, issued: datetime) -> Rotation:
    keys = former.public.to_text(), new.public.to_text()
    message = _message(country, *keys, issued)
    return Rotation(
        country=country,
        former=keys[0],
        new=keys[1],
        issued=issued,
        by_former=base64.b64encode(former.sign(message)).decode(),
        by_new=base64.b64encode(new.sign(message)).decode(),
    )


def _message(country: str, former: str, new: str, issued: datetime) -> bytes:
    fields = {"country": country, "former": former, "new": new, "issued": issued.isoformat()}
    return labelled_hash(ROTATION_LABEL, canonical_json(fields))


def verifies(key: str, signature: str, message: bytes) -> bool:
    """Whether the signature, in canonical base64, is the key's valid one over the message."""
    try:
        raw = base64.b64decode(signature, validate=True)
        read_identity(key).verify(raw, message)
    except (KeyFault, binascii.Error):
        return False
    return base64.b64encode(raw).decode() == signature


def _fingerprint(key: str) -> str:
    return VerifyKey.from_text(key).fingerprint
