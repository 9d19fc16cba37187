"""Starts the node in a folder: its daemon (`up`), its recovery (`restored`), or a calibration."""

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.border.reply_timing import ReplySlots
from client.commands.calibrate import ModelCalibration
from client.commands.calibration_file import Written
from client.credentials.certificate_renewal import CertificateRenewal, credentials
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.daemon import Daemon, MakeServer, Server, ServerHooks
from client.documents.store import Fetch
from client.errors import NodeFault
from client.home import NodeHome, read_public
from client.node import Node
from client.settings import Enrolment, NodeSettings
from client.state.incarnation import Incarnation, begin
from client.state.restored import Restored
from client.state.tables import MIGRATIONS
from client.status.health import NodeHealth
from client.wiring import Surroundings, build_node
from governance.runtime.credentials import Presented
from governance.runtime.database import open_database
from governance.runtime.descriptors import raise_descriptor_limit
from governance.runtime.health import observed
from governance.runtime.systemd import Supervisor
from keys.clock import utc_now
from keys.store import KeyStore
from protocols.numerics.noise import DiscreteGaussian
from protocols.wire.channel import ExchangeLink, LinkFault

_ENROL_AGAIN = "enrol again with a new invitation"
_LINK_FIRST = (
    "repair the link, and run `pratique-node restored` again. If the certificate was renewed "
    "after the copy was made, the one in the copy looks stolen and is refused. Then call the "
    "coordinator, who revokes it and sends a new invitation; and run `pratique-node enrol` first"
)


def run_daemon(home: NodeHome, settings: NodeSettings, store: KeyStore) -> None:
    """Run the node in `home` until SIGTERM or SIGINT. Raises any fault that prevents its start."""
    raise_descriptor_limit()
    enrolment, keyring = settings.require_enrolment(), NodeKeyring.load(store)
    health, supervisor = NodeHealth(home, utc_now), Supervisor()
    with home.locked(), observed(settings.observe, health.report):
        own_credentials = credentials(home, store, utc_now, secrets.SystemRandom().random())
        link = _dial(enrolment, own_credentials.presented())
        node = _node(home, settings, store, link.fetch)
        node.parts.log_head.move()  # before anything else: the state may be an old or changed copy
        NodeKeyring.note_signed_state(store)
        incarnation = begin(node.parts.engine)
        daemon = Daemon(
            node,
            link,
            fleet_server(keyring, incarnation),
            home,
            health=health,
            supervisor=supervisor,
            renewal=CertificateRenewal(home, own_credentials, link, utc_now),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        daemon.run()


def restore_node(home: NodeHome, settings: NodeSettings, store: KeyStore) -> Restored:
    """Recover the node in `home` after its state was restored. Raises any fault in the way."""
    enrolment = settings.require_enrolment()
    with home.locked():
        link = _dial(enrolment, credentials(home, store, utc_now).presented())
        try:
            return _node(home, settings, store, link.fetch).restore()
        except LinkFault as fault:
            raise NodeFault(fault.what, why=fault.why, fix=_LINK_FIRST) from fault
        finally:
            link.close()


def calibrate_model(
    home: NodeHome,
    settings: NodeSettings,
    store: KeyStore,
    source: Path,
    *,
    out: Path | None,
    replace: bool,
) -> Written:
    """Calibrate a released model, beside a running daemon or without one; raises any fault.

    Nothing is fetched: the documents are those that the node has.
    """
    node = _node(home, settings, store, _nothing_fetched)
    with _alone(home) as alone:
        if alone:
            node.parts.log_head.move()
            NodeKeyring.note_signed_state(store)
        else:
            node.check_state()
        updates = node.parts.updates
        take_over = updates.collect if alone else updates.require_none_waiting
        command = ModelCalibration(
            node.parts, source, out=out, replace=replace, take_over=take_over
        )
        try:
            return command.run()
        finally:
            if alone:  # a running daemon moves the log's head by itself
                node.parts.log_head.move()


@contextmanager
def _alone(home: NodeHome) -> Iterator[bool]:
    """Yield whether no daemon or other command holds the node; then none can in the block."""
    with ExitStack() as stack:
        try:
            stack.enter_context(home.locked())
        except NodeFault:
            yield False
        else:
            yield True


def _nothing_fetched(_: str) -> None:
    return None


def _node(home: NodeHome, settings: NodeSettings, store: KeyStore, fetch: Fetch) -> Node:
    return build_node(
        home,
        settings,
        NodeKeyring.load(store),
        open_database(home.database, MIGRATIONS),
        identities=IdentityKeys(store),
        pinned_root=read_public(home.root, "The root of the documents", _ENROL_AGAIN),
        around=Surroundings(
            fetch=fetch, noise=DiscreteGaussian(), clock=utc_now, slots=ReplySlots()
        ),
    )


def _dial(enrolment: Enrolment, presented: Presented) -> ExchangeLink:
    return ExchangeLink(
        enrolment.exchange,
        authority=presented.authority,
        key=presented.key,
        certificate=presented.certificate,
    )


def fleet_server(keyring: NodeKeyring, incarnation: Incarnation) -> MakeServer:
    """Return a function that makes a Flower client, which signs in with this node's key."""
    from client.app import build_app  # noqa: PLC0415 - Flower takes a second to import
    from client.flower_client import FleetClient  # noqa: PLC0415

    key = load_pem_private_key(keyring.node_auth_key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NodeFault(
            "The node's SuperLink key cannot be used",
            why="it is not an elliptic-curve key",
            fix=_ENROL_AGAIN,
        )

    def make_server(
        link: ExchangeLink, handle: Callable[[bytes], bytes], hooks: ServerHooks
    ) -> Server:
        return FleetClient(
            link,
            key,
            build_app(handle),
            incarnation,
            on_ready=hooks.on_ready,
            before_pull=hooks.before_pull,
            on_standing=hooks.on_standing,
        )

    return make_server
