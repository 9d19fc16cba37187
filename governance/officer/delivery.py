"""Handing the own country's signed documents over: to the own node first, then to the exchange."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.officer.errors import HandoverFault, OfficerFault
from governance.officer.node import SETTINGS_FILE, deliver
from governance.officer.office import Office
from governance.trust.bundle import CountryDocuments
from governance.trust.files import one_writer, write_atomic
from governance.trust.signing import OfficerDocuments
from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import SubmitRequest

Version = Annotated[int, Field(ge=0)]
Change = Callable[[OfficerDocuments], None]


class Handed(BaseModel):
    """The newest versions of the own documents that node and exchange have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: Version = 0
    exchange: Version = 0


@dataclass(frozen=True)
class Handing:
    """Where else the documents go: the own node's folder, a file to carry."""

    node: Path | None = None
    out: Path | None = None


def read_handed(path: Path) -> Handed:
    """Return what was handed over; nothing where that is not known."""
    try:
        return Handed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Handed()


def remember_node(office: Office, handing: Handing) -> None:
    """Keep the node's folder, where one was given. Raises OfficerFault where it is no node's."""
    if handing.node is None:
        return
    node = handing.node.expanduser().resolve()
    if not (node / SETTINGS_FILE).is_file():
        raise OfficerFault(
            f"There is no node in {node}",
            why=f"it holds no {SETTINGS_FILE}; nothing was signed",
            fix="name the folder that `pratique-node init` made, or use --bundle-out FILE",
        )
    if office.settings.node != str(node):
        office.save(office.settings.model_copy(update={"node": str(node)}))


def sign_and_hand_over(
    office: Office, change: Change, handing: Handing, published: CountryDocuments | None
) -> dict[str, Any]:
    """Apply a change, sign everything as it then stands, and hand it over.

    `published` is what the exchange shows of this country: what it has and this folder lacks
    (a folder restored from an old copy) is taken over first, so that no withdrawal is undone.
    Returns what a machine may want to know. Raises HandoverFault once something was signed.
    """
    with one_writer(office.home.path):
        documents = office.documents
        shown = published.version if published else 0
        if published and shown > documents.version:
            take_over(documents, office.own(), published)
            office.terminal.warn(f"your folder was older than the exchange's version {shown}")
        change(documents)
        bundles = signed_under_every_key(office, documents, shown)
    return hand_over(office, bundles, handing.out)


def signed_under_every_key(
    office: Office, documents: OfficerDocuments, at_least: int
) -> tuple[bytes, ...]:
    """Return everything signed by the key in force, then by the one that is to follow, if any.

    In this order: what is held for later is the newer, or it is not used.
    """
    present = documents.sign(office.now(), office.identity.key, at_least=at_least)
    new = office.identity.next_key
    return (present,) if new is None else (present, documents.sign_next(office.now(), new))


def take_over(
    documents: OfficerDocuments, own: CountryDocuments | None, published: CountryDocuments
) -> None:
    """Take over what this country has published and this folder lacks.

    A no stands, whichever of the two says it: nothing that was withdrawn comes back by itself.
    """
    decided = {*own.permits, *own.withdrawals} if own else set()
    for study, permit in published.permits.items():
        if study not in decided:
            documents.approve(permit)
    for withdrawal in published.withdrawals.values():
        documents.withdraw(withdrawal)
    if published.node:
        documents.set_node(published.node)
    documents.set_policy(published.policy)


def hand_over(office: Office, bundles: Sequence[bytes], out: Path | None) -> dict[str, Any]:
    """Give the bundles to everyone they are for; say who has them.

    Raises HandoverFault at the end.
    """
    own = office.own()
    version = own.version if own else 0
    valid = f"{own.expires:%Y-%m-%d %H:%M} UTC" if own else "never"
    office.terminal.say(f"Signed: version {version} of your country's documents, until {valid}.")
    if out is not None:
        _write_out(office, bundles, out)
    ways = (("node", _to_node), ("exchange", _to_exchange))
    faults = [fault for name, way in ways if (fault := _try(office, name, way, bundles, version))]
    if faults:
        raise HandoverFault(
            f"Version {version} is signed and kept, but has not reached everyone",
            why=" ".join(str(fault) for fault in faults),
            fix="run `pratique-officer renew` once this is mended; it hands everything over again",
        )
    return {"version": version, "expires": valid, **_reached(office)}


def _write_out(office: Office, bundles: Sequence[bytes], out: Path) -> None:
    for number, bundle in enumerate(bundles):
        file = out.with_name(f"next-{out.name}") if number else out
        write_atomic(file, bundle)
        office.terminal.say(f"A copy to carry is in {file}.")


def _reached(office: Office) -> dict[str, int]:
    return {f"{name}_has": v for name, v in read_handed(office.home.handed_file)}


Way = Callable[[Office, Sequence[bytes]], bool]


def _try(
    office: Office, name: str, way: Way, bundles: Sequence[bytes], version: int
) -> PratiqueError | None:
    try:
        if way(office, bundles):
            handed = read_handed(office.home.handed_file).model_copy(update={name: version})
            write_atomic(office.home.handed_file, handed.model_dump_json().encode())
    except PratiqueError as fault:
        return fault
    return None


def _to_node(office: Office, bundles: Sequence[bytes]) -> bool:
    if office.settings.node is None:
        office.terminal.warn("name your own node once with --node, or carry it the --bundle-out")
        return False
    running = deliver(Path(office.settings.node), office.country, bundles)
    how = "is running and has them" if running else "is not running; it finds them when it starts"
    office.terminal.say(f"Your node {how}.")
    return True


def _to_exchange(office: Office, bundles: Sequence[bytes]) -> bool:
    if office.settings.exchange is None:
        office.terminal.warn("you are not enrolled with an exchange yet; other countries wait")
        return False
    if not office.is_published():
        office.terminal.warn(
            "the agreement is not published yet: the exchange takes these documents after that, "
            "at your next `pratique-officer renew`"
        )
        return False
    for bundle in bundles:
        office.exchange.submit(SubmitRequest.COUNTRY_BUNDLE, bundle)
    office.terminal.say("The exchange has them.")
    return True
