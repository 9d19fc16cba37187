"""Sign the country's documents and deliver them: to its node first, then to the exchange."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.officer.errors import HandoverFault, OfficerFault
from governance.officer.foreign_documents import (
    ForeignDocuments,
    foreign,
    keep,
    sentence,
    take_over,
    take_over_refusals,
)
from governance.officer.node_link import SETTINGS_FILE, deliver, require_node_of
from governance.officer.session import OfficerSession
from governance.runtime.files import one_writer, write_atomic
from governance.runtime.local_rpc import LocalRpcFault
from governance.trust.bundle import CountryDocuments
from governance.trust.signing import OfficerDocuments
from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import SubmitRequest

Version = Annotated[int, Field(ge=0)]
NODE_WAITS = "your node does not have this yet, and answers no request until it has: "
NAME_NODE = (
    "name its folder once with --node, or write a file with --bundle-out, and its operator runs "
    "`pratique-node accept`"
)
DELIVER_AGAIN = "once this is fixed, run `pratique-officer renew`, which delivers everything again"
Change = Callable[[OfficerDocuments], None]
TO_DO = (
    "your folder takes over only the refusals and withdrawals of these. If it was restored from an "
    "old copy, run `pratique-officer renew --take-over`. If not, your key is stolen: run "
    "`pratique-officer rotate`, and call the coordinator and the other officers"
)


class Delivered(BaseModel):
    """The newest versions of the country's documents that its node and the exchange have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: Version = 0
    exchange: Version = 0


@dataclass(frozen=True)
class Delivery:
    """Where else to write the documents: the node's folder, a file for transport."""

    node: Path | None = None
    out: Path | None = None


def read_delivered(path: Path) -> Delivered:
    """Return which versions were delivered; 0 for each if that is not known."""
    try:
        return Delivered.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Delivered()


def use_node(session: OfficerSession, delivery: Delivery) -> None:
    """Use the node's folder that the command names. Raises OfficerFault if it is not this node's.

    It is stored for later commands once the documents have reached it.
    """
    if delivery.node is None:
        return
    if not (delivery.node / SETTINGS_FILE).is_file():
        raise OfficerFault(
            f"There is no node in {delivery.node}",
            why=f"the folder has no {SETTINGS_FILE}; nothing was signed",
            fix="name the folder that `pratique-node init` made, or use --bundle-out FILE",
        )
    require_node_of(delivery.node, session.country)
    session.chosen_node = delivery.node


def sign_and_hand_over(
    session: OfficerSession, change: Change, delivery: Delivery, published: CountryDocuments | None
) -> dict[str, Any]:
    """Apply a change, sign all documents of the country, and deliver them.

    `published` is what the exchange shows for this country. If this folder did not sign it, the
    folder's documents are signed with a higher version, the officer gets a warning, and only
    refusals are taken over from what was shown. Returns JSON values. Raises HandoverFault if the
    signed documents did not reach everyone.
    """
    with one_writer(session.home.path):
        _warn_of_foreign(session, published)
        bundles = _changed(session, change, published.version if published else 0)
    warning = {"not_signed_here": session.foreign} if session.foreign else {}
    return {**hand_over(session, bundles, delivery.out), **warning}


def take_over_and_hand_over(
    session: OfficerSession, seen: ForeignDocuments, delivery: Delivery
) -> dict[str, Any]:
    """Take over what another folder of this officer signed, then sign and deliver everything."""
    with one_writer(session.home.path):
        own = session.own()
        bundles = _changed(session, lambda folder: take_over(folder, own, seen), seen.version)
        session.home.foreign_file.unlink(missing_ok=True)
    return hand_over(session, bundles, delivery.out)


def _changed(session: OfficerSession, change: Change, newer_than: int) -> tuple[bytes, ...]:
    change(session.documents)
    return signed_under_every_key(session, session.documents, newer_than)


def _warn_of_foreign(session: OfficerSession, published: CountryDocuments | None) -> None:
    """Warn the officer if another folder has signed for this country, and keep what it signed."""
    own, documents = session.own(), session.documents
    seen = foreign(own, documents.version, published)
    if seen is None:
        return
    session.foreign = sentence(own, seen)
    session.terminal.warn(session.foreign)
    session.terminal.warn(TO_DO)
    keep(session.home.foreign_file, seen)
    take_over_refusals(documents, own, seen)


def signed_under_every_key(
    session: OfficerSession, documents: OfficerDocuments, newer_than: int
) -> tuple[bytes, ...]:
    """Return all documents as signed by the key in force, then by the next key, if there is one.

    In this order, because a node uses the copy under the next key only if it is the newer one.
    """
    under_current = documents.sign(session.now(), session.identity.key, newer_than=newer_than)
    if (next_key := session.identity.next_key) is None:
        return (under_current,)
    return (under_current, documents.sign_next(session.now(), next_key))


def hand_over(
    session: OfficerSession, bundles: Sequence[bytes], out: Path | None
) -> dict[str, Any]:
    """Deliver the bundles to the node and to the exchange, and say who has them.

    Tries both; raises HandoverFault afterwards if one was not reached.
    """
    own = session.own()
    version = own.version if own else 0
    valid = f"{own.expires:%Y-%m-%d %H:%M} UTC" if own else "never"
    session.terminal.say(
        f"Signed: version {version} of your country's documents, valid until {valid}."
    )
    if out is not None:
        _write_out(session, bundles, out)
    if session.node is None:
        session.terminal.warn(f"{NODE_WAITS}{_by_file(bundles, out) if out else NAME_NODE}")
    ways = (("node", _to_node), ("exchange", _to_exchange))
    faults = [fault for name, way in ways if (fault := _try(session, name, way, bundles, version))]
    if faults:
        raise HandoverFault(
            f"Version {version} is signed and kept, but has not reached everyone",
            why=" ".join(str(PratiqueError(fault.what, why=fault.why)) for fault in faults),
            fix="; ".join([*(fault.fix for fault in faults if fault.fix), DELIVER_AGAIN]),
        )
    return {"version": version, "expires": valid, **_reached(session)}


def _write_out(session: OfficerSession, bundles: Sequence[bytes], out: Path) -> None:
    for file, bundle in zip(_files(bundles, out), bundles, strict=True):
        write_atomic(file, bundle)
        session.terminal.say(f"A copy for transport is in {file}.")


def _files(bundles: Sequence[bytes], out: Path) -> list[Path]:
    """Return the file of each bundle: the second one is signed by the next key."""
    return [out.with_name(f"next-{out.name}") if number else out for number in range(len(bundles))]


def _by_file(bundles: Sequence[bytes], out: Path) -> str:
    files = _files(bundles, out)
    commands = ", then ".join(f"`pratique-node accept {file}`" for file in files)
    return f"give {' and '.join(map(str, files))} to your node's operator: {commands}"


def _reached(session: OfficerSession) -> dict[str, int]:
    return {f"{name}_has": v for name, v in read_delivered(session.home.handed_file)}


Way = Callable[[OfficerSession, Sequence[bytes]], bool]


def _try(
    session: OfficerSession, name: str, way: Way, bundles: Sequence[bytes], version: int
) -> PratiqueError | None:
    try:
        if way(session, bundles):
            delivered = read_delivered(session.home.handed_file).model_copy(update={name: version})
            write_atomic(session.home.handed_file, delivered.model_dump_json().encode())
    except PratiqueError as fault:
        return fault
    return None


def _to_node(session: OfficerSession, bundles: Sequence[bytes]) -> bool:
    if session.node is None:
        return False
    try:
        running = deliver(session.node, session.country, bundles)
    except LocalRpcFault as fault:
        if fault.__cause__ is None:  # this node's daemon answered, and refused the documents
            session.remember_node()
        raise
    session.remember_node()
    how = "is running and has them" if running else "is not running; it reads them when it starts"
    session.terminal.say(f"Your node {how}.")
    return True


def _to_exchange(session: OfficerSession, bundles: Sequence[bytes]) -> bool:
    if session.settings.exchange is None:
        session.terminal.warn(
            "you are not enrolled with an exchange yet; these documents are only in your folder"
        )
        return False
    if not session.is_published():
        session.terminal.warn(
            "the agreement is not published yet: the exchange accepts these documents after that, "
            "at your next `pratique-officer renew`"
        )
        return False
    for bundle in bundles:
        session.exchange.submit(SubmitRequest.COUNTRY_BUNDLE, bundle)
    session.terminal.say("The exchange has them.")
    return True
