"""A country's state of a run between messages: secret, and sealed by the code that stores it.

Each state is frozen; a step makes the next one. A secret that the next state does not have is
erased with the old state, in memory and in the sealed copy that is replaced.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from protocols.errors import ProtocolFault


class Stage(StrEnum):
    """The step of a run that a country has reached."""

    FRESH = "fresh"
    BUNDLED = "bundled"
    ENCAPSULATED = "encapsulated"
    CONFIRMED = "confirmed"
    """It has sent its MACs, and has not yet checked those of all the others."""
    READY = "ready"


class Frozen(BaseModel):
    """Base of the stored values."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64"
    )


class OpenRound(Frozen):
    """A round that this country contributed to and has not answered.

    `head` is the body of its own signed head, `own_share` its share of its own seed, `seals` the
    keys that open what the others sealed for it, `masks` the keys of its masks with them, and
    `agreed` the smaller set that it signed, empty while it has signed none; from then on `masks`
    are those with countries outside that set.
    """

    context: bytes
    round_number: int
    head: bytes
    own_share: bytes
    seals: dict[str, bytes]
    masks: dict[str, bytes]
    agreed: tuple[str, ...] = ()


class CountryState(Frozen):
    """One country's run.

    `run` is the context of the run's terms. `key`, `bundle_bodies`, `kem_secrets` and
    `encapsulation` exist in set-up only. `links` are the pair chains at round `round_number` + 1,
    where `round_number` is the last round that this country contributed to, and `used` counts its
    contributions by phase kind.
    """

    run: bytes
    stage: Stage = Stage.FRESH
    key: bytes = b""
    bundle_bodies: dict[str, bytes] = {}
    kem_secrets: dict[str, bytes] = {}
    encapsulation: bytes = b""
    bundles: dict[str, bytes] = {}
    transcript: bytes = b""
    expected: dict[str, bytes] = {}
    links: dict[str, bytes] = {}
    round_number: int = 0
    used: dict[str, int] = {}
    open_round: OpenRound | None = None

    def to_bytes(self) -> bytes:
        """Return what `read_state` reads: secret, to be sealed."""
        return self.model_dump_json().encode()


def read_state(stored: bytes) -> CountryState:
    """Return a stored state. Raises ProtocolFault if the bytes are not a state."""
    try:
        return CountryState.model_validate_json(stored)
    except ValidationError:
        raise ProtocolFault("The stored state of a run cannot be read") from None


def without_open_round(stored: bytes) -> bytes:
    """Return a stored state without the secrets of an unanswered round. Raises ProtocolFault."""
    return read_state(stored).model_copy(update={"open_round": None}).to_bytes()
