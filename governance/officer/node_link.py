"""Delivers documents to the officer's node on this machine; asks for its ledger and records."""

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.budget.ledger import LedgerView
from governance.documents.agreement import Agreement
from governance.documents.models import Country
from governance.documents.reading import read_settings
from governance.errors import DocumentFault
from governance.officer.errors import OfficerFault
from governance.policy.assessment import ledger_terms
from governance.runtime.files import write_atomic
from governance.runtime.local_rpc import LocalRpcFault, ask
from governance.runtime.wording import counted
from keys.errors import reason_of

SETTINGS_FILE = "node.yaml"
SOCKET = Path("run", "node.sock")
INBOX = "officer"
STATUS_SECONDS = 5.0

Micro = Annotated[int, Field(ge=0)]


class StatedLedger(BaseModel):
    """A node's statement about its ledger, in micro-units of RDP at an order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    register_name: str = Field(alias="register")
    order: int
    cap_micro: Micro
    spent_micro: Micro
    lifetime_micro: Micro


class StatedRecords(BaseModel):
    """A node's statement about its records, without anything from one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    fault: str | None
    unmatched_opt_outs: Annotated[int, Field(ge=0)] = 0


class StatedNode(BaseModel):
    """The part of a node's settings that says whose it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    country: Country


def require_node_of(node: Path, country: str) -> None:
    """Raise OfficerFault unless the node in this folder is the country's."""
    file = node / SETTINGS_FILE
    try:
        stated = read_settings(StatedNode, file)
    except (OSError, ValueError) as error:
        raise OfficerFault(
            f"The file {file} cannot be read",
            why=f"{reason_of(error)}; nothing was signed",
            fix="name the folder of your node, or use --bundle-out FILE",
        ) from None
    if stated.country != country:
        raise OfficerFault(
            f"The node in {node} is not yours",
            why=f"it is the node of {stated.country}, and you sign for {country}; nothing was "
            "signed",
            fix="name the folder of your own node with --node",
        )


def deliver(node: Path, country: str, bundles: Sequence[bytes]) -> bool:
    """Give the node its country's documents; return whether its daemon accepted them.

    The second bundle, if there is one, is signed by the next key. If no daemon runs, they are left
    in the node's folder. Raises LocalRpcFault if the daemon refuses.
    """
    if all(_daemon_accepts(node, bundle) for bundle in bundles):
        return True
    for number, bundle in enumerate(bundles):
        name = f"country-{country}-next.json" if number else f"country-{country}.json"
        write_atomic(node / INBOX / name, bundle)
    return False


def _daemon_accepts(node: Path, bundle: bytes) -> bool:
    socket = node / SOCKET
    if not socket.exists():
        return False
    try:
        ask(socket, "deliver", bundle=base64.b64encode(bundle).decode())
    except LocalRpcFault as fault:
        if isinstance(fault.__cause__, OSError):  # a socket that a killed daemon left behind
            return False
        raise
    return True


def records_warning(node: Path | None) -> str:
    """Return what the officer should know of the node's records; empty if there is nothing.

    The text of a fault stays with the operator: it may quote a record.
    """
    if node is None or not (node / SOCKET).exists():
        return ""
    try:
        stated = StatedRecords.model_validate(ask(node / SOCKET, "status", STATUS_SECONDS)["data"])
    except (LocalRpcFault, ValidationError, KeyError, TypeError):
        return ""
    return "; ".join(_warnings(stated))


def _warnings(stated: StatedRecords) -> Iterator[str]:
    if stated.unmatched_opt_outs:
        number = counted(stated.unmatched_opt_outs, "entry", "entries")
        match = "matches" if stated.unmatched_opt_outs == 1 else "match"
        yield (
            f"FAIL: {number} of the opt-out list {match} no patient, and nobody has confirmed that "
            "this is right; people who opted out may still be in the records"
        )
    if stated.fault:
        yield "its files cannot be read as they are now; the operator's `doctor` says why"


def ledger_left(
    node: Path | None, agreement: Agreement, register: str, now: datetime
) -> LedgerView | None:
    """Return what the node's ledger has spent of a register's budget.

    None if the node cannot be asked now, or has another register.
    """
    if node is None or not (node / SOCKET).exists():
        return None
    try:
        status = ask(node / SOCKET, "status", STATUS_SECONDS)
        stated = StatedLedger.model_validate(status["ledger"])
        terms = ledger_terms(agreement, register, now)
    except (LocalRpcFault, DocumentFault, ValidationError, KeyError, TypeError):
        return None
    if (stated.register_name, stated.order) != (terms.register, terms.order):
        return None
    return LedgerView(
        register=terms.register,
        period=terms.period,
        order=terms.order,
        cap_micro=terms.cap_micro,
        spent_micro=stated.spent_micro,
        lifetime_micro=stated.lifetime_micro,
    )
