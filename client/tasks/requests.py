"""Reads the model in a request, and refuses a request that does not match its study."""

from protocols.errors import ProtocolFault, ReasonCode, Refusal
from protocols.tasks.features import FloatArray
from protocols.tasks.layout import vector_from_bytes


def read_model(payload: bytes, dimension: int) -> FloatArray:
    """Return the model in a request. Raises Refusal MALFORMED if it has another size."""
    try:
        return vector_from_bytes(payload, dimension)
    except ProtocolFault as fault:
        raise malformed(fault.what, fault.why) from fault


def malformed(what: str, why: str = "it does not match the signed study") -> Refusal:
    """Return the refusal of a request that does not match its study."""
    return Refusal(
        ReasonCode.MALFORMED, what, why=why, fix="ask the coordinator to check what it sent"
    )
