"""The long-running Flower client: calls the Fleet API from the daemon, over the exchange's channel.

It uses Flower's own client. An interceptor sends each call as one `Relay` call across the border.
The client pulls a message together with its object, passes it to the installed ClientApp, and
pushes the reply together with its object: two calls a message. It never asks for the bundle of a
run, and so never executes one. What the coordinator sends is one message with one object, or it is
not read: an answer has a few kilobytes, and an object is a frame whose hash is the message's name.

A heartbeat that is refused ends the connection, and the daemon makes a new one: so a node whose
session was taken over signs in again, and does not believe that it is connected.

This is the only file of the node that touches Flower's internals. Pinned: flwr 1.42.
"""

import logging
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto, metadata_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.fleet_faults import StatusFault, no_answer, status_fault, with_status_faults
from client.state.incarnation import Incarnation
from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import RelayReply, RelayRequest
from protocols.wire.channel import ExchangeLink, LinkFault, Stop
from protocols.wire.exchange_clock import TOLERATED, in_words
from protocols.wire.flower_frame import (
    FRAME,
    HEADER_PREFIX,
    HEARTBEAT_SECONDS,
    LARGEST_BODY,
    LONG_POLL_SECONDS,
    NONCE_BYTES,
    RECORD,
    SESSION_ENDED,
)
from protocols.wire.flower_object import object_name, pack_frame, unpack_frame

T = TypeVar("T")

ONLINE_SECONDS = 40.0
"""How long the SuperLink considers the node online after a heartbeat."""
CALL_SECONDS = LONG_POLL_SECONDS + 15.0
SECONDS_BY_METHOD = {"PullMessages": 300.0, "PushMessages": 300.0, "DeactivateNode": 2.0}
"""Time limits of calls that carry a payload over a slow link, or that nobody waits for."""
PULL, PUSH = "PullMessages", "PushMessages"
SIGN_IN, HEARTBEAT = "ActivateNode", "SendNodeHeartbeat"
_log = logging.getLogger("pratique.fleet")


class RuntimeVersion:
    """Interceptor that adds the version of Flower to each call.

    Flower's own interceptor also ends the process if the other side asks for it.
    """

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the headers of the version, and continue the call."""
        context.request.headers.update(self._headers)
        response: httpx.Response = call_next(context)
        return response


class Interruption:
    """Set if the daemon stops, or if a heartbeat failed; `fault` then says how."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self.fault: LinkFault | None = None

    def is_set(self) -> bool:
        """Return whether the pull in progress shall end."""
        return self._stop.is_set() or self.fault is not None


class SignedTime:
    """Interceptor that signs the time of each call: the SuperLink admits the key by it.

    It is the exchange's time, as far as it is known. Flower refuses a time that is ahead by five
    seconds. It is used for nothing else: documents are judged by this machine's own clock.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, link: ExchangeLink) -> None:
        self._key, self._link = key, link
        self._public = b64encode(public_key_to_bytes(key.public_key())).decode("ascii")

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the headers of the node's authentication, and continue the call."""
        time = self._link.clock.now().isoformat()
        signature = sign_message(self._key, time.encode("ascii"))
        context.request.headers.update(
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: self._public,
                TIMESTAMP_HEADER: time,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
            }
        )
        response: httpx.Response = call_next(context)
        return response


class _RelayedFleet(FleetHttpClient):  # type: ignore[misc] # it has no types
    """Flower's client of the Fleet API, which neither reads the environment nor connects.

    Flower's own constructor makes an HTTP client that follows the proxies of the environment.
    """

    def __init__(self, interceptors: Sequence[ProtobufClientInterceptor]) -> None:
        self._base_url, self._interceptors = "http://exchange", tuple(interceptors)
        self._retry_invoker = None
        self._client = httpx.Client(trust_env=False)


class RelayTransport:
    """Interceptor that sends a call over the exchange, and never over HTTP.

    `outgoing` is the object that is sent with the next push. `incoming` is the object that came
    with the last pull, and `received_id` the id of its message. One thread pulls and pushes; other
    threads may make other calls.
    """

    def __init__(
        self, link: ExchangeLink, incarnation: Incarnation, on_standing: Callable[[bool], None]
    ) -> None:
        self._link, self._incarnation, self._on_standing = link, incarnation, on_standing
        self.outgoing = self.incoming = b""
        self.received_id = ""
        self.stop, self.ended = Interruption(), threading.Event()
        """What interrupts a pull, and a heartbeat; no other call is interrupted."""

    def intercept(
        self,
        context: ProtobufRequestContext,
        call_next: ProtobufCall,  # noqa: ARG002 (no call leaves any other way)
    ) -> httpx.Response:
        """Return the answer of the SuperLink as the exchange returned it."""
        method = context.rpc_method.rsplit("/", 1)[-1]
        seconds = SECONDS_BY_METHOD.get(method, CALL_SECONDS)
        stops: dict[str, Stop] = {PULL: self.stop, HEARTBEAT: self.ended}
        reply = self._link.relay(self._request(method, context.request), seconds, stops.get(method))
        _require_small(reply, method)
        self._on_standing(reply.disputed)
        if method == PULL:
            self.incoming = reply.object
        return httpx.Response(reply.status, content=reply.body, request=context.request)

    def _request(self, method: str, request: httpx.Request) -> RelayRequest:
        here = self._incarnation
        signs_in: dict[str, Any] = {"incarnation": here.number, "former": here.former}
        headers = request.headers.items()
        return RelayRequest(
            method=method,
            body=request.content,
            headers={name: value for name, value in headers if name.startswith(HEADER_PREFIX)},
            object=self.outgoing if method == PUSH else b"",
            received=self.received_id if method == PULL else "",
            session=here.session,
            **(signs_in if method == SIGN_IN else {}),
        )


class FleetClient:
    """The connection of one node with the SuperLink; `serve` runs it."""

    def __init__(
        self,
        link: ExchangeLink,
        key: ec.EllipticCurvePrivateKey,
        app: ClientApp,
        incarnation: Incarnation,
        *,
        on_ready: Callable[[], None] = lambda: None,
        before_pull: Callable[[], None] = lambda: None,
        on_standing: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`on_ready` is called after the sign-in, `before_pull` before each pull.

        `on_standing` is called after each call with whether another machine has presented this
        node's identity.
        """
        link.session = incarnation.session  # documents and renewals are this process's calls too
        self._app, self._on_ready, self._before_pull = app, on_ready, before_pull
        self._clock = link.clock
        self._public = public_key_to_bytes(key.public_key())
        self._transport = RelayTransport(link, incarnation, on_standing)
        self._client = _RelayedFleet([RuntimeVersion(), SignedTime(key, link), self._transport])

    def serve(self, stop: threading.Event) -> None:
        """Answer messages until `stop` is set; raises LinkFault when the link is lost."""
        self._transport.stop = interruption = Interruption(stop)
        node = self._sign_in()
        self._on_ready()
        self._transport.ended = ended = threading.Event()
        heartbeats = threading.Thread(target=self._send_heartbeats, args=(node, ended), daemon=True)
        heartbeats.start()
        try:
            self._answer_until(interruption, node)
        finally:
            ended.set()
            heartbeats.join(HEARTBEAT_SECONDS)
            self._deactivate(node)

    def _answer_until(self, interruption: Interruption, node: Node) -> None:
        try:
            while not interruption.is_set():
                self._before_pull()
                self._answer_next(node)
        except LinkFault as fault:
            raise interruption.fault or fault from fault
        if interruption.fault is not None:
            raise interruption.fault

    def _sign_in(self) -> Node:
        """Activate this node; once more if the answer shows how much the clocks differ."""
        known = self._clock.offset
        self._require_tolerated_clock()
        try:
            return self._activate()
        except LinkFault:
            self._require_tolerated_clock()
            if known is not None or not self._clock.difference():
                raise
            return self._activate()

    def _require_tolerated_clock(self) -> None:
        if not self._clock.is_tolerated:
            raise LinkFault(
                f"The node does not sign in: {self._clock.difference()}",
                why=f"a difference of at most {in_words(TOLERATED)} is tolerated",
                fix="set the clock of this machine, and synchronise it with NTP; if it is right, "
                "notify the coordinator",
            )

    def _activate(self) -> Node:
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=ONLINE_SECONDS)
        response = with_status_faults(lambda: self._client.ActivateNode(request))
        return Node(node_id=response.node_id)

    def _deactivate(self, node: Node) -> None:
        try:
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        except (LinkFault, httpx.HTTPError):
            return  # the SuperLink drops a silent node by itself

    def _send_heartbeats(self, node: Node, ended: threading.Event) -> None:
        while not ended.is_set():
            begun = time.monotonic()
            try:
                with_status_faults(lambda: self._send_heartbeat(node))
            except StatusFault as fault:
                self._transport.stop.fault = fault  # the daemon signs in again
                return
            except (LinkFault, httpx.HTTPError):
                pass  # the pull loop gets the same fault, and ends the service
            ended.wait(HEARTBEAT_SECONDS - (time.monotonic() - begun))

    def _send_heartbeat(self, node: Node) -> None:
        request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=ONLINE_SECONDS)
        if not self._client.SendNodeHeartbeat(request).success:
            raise status_fault(SESSION_ENDED)

    def _answer_next(self, node: Node) -> None:
        incoming = with_status_faults(lambda: self._pull(node))
        if incoming is None:
            return
        context = Context(
            run_id=incoming.metadata.run_id,
            node_id=node.node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        try:
            reply = self._app(incoming, context)
        except (PratiqueError, ValueError) as error:  # not a message of Pratique: no answer
            _log.warning("message ignored", extra={"what": type(error).__name__})
            return
        with_status_faults(lambda: self._push(node, reply))

    def _pull(self, node: Node) -> Message | None:
        response = self._client.PullMessages(PullMessagesRequest(node=node))
        self._transport.received_id = ""
        if not response.messages_list:
            return None
        name = self._transport.received_id = response.messages_list[0].metadata.message_id
        message = _message_in(response, self._transport.incoming, name)
        if message is None:
            _log.warning("message ignored", extra={"what": "it is not one message with one object"})
        return message

    def _push(self, node: Node, reply: Message) -> None:
        content = pack_frame(reply.content[RECORD][FRAME], os.urandom(NONCE_BYTES))
        name = object_name(content)
        reply.metadata.__dict__["_message_id"] = name
        empty = make_message(metadata=reply.metadata, content=RecordDict())
        self._transport.outgoing = content
        self._client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(empty)],
                message_object_trees=[ObjectTree(object_id=name)],
                clientapp_runtime_list=[0.0],
            )
        )
        self._transport.outgoing = b""


def _message_in(response: PullMessagesResponse, content: bytes, name: str) -> Message | None:
    """Return the message with its one object; None if it has another form."""
    record = _unpack(content, name)
    if record is None or not _has_one_object(response, name):
        return None
    try:
        metadata = metadata_from_proto(response.messages_list[0].metadata)
    except ValueError:  # Flower does not know its type
        return None
    return make_message(metadata=metadata, content=record)


def _unpack(content: bytes, name: str) -> RecordDict | None:
    """Return the content of a message from its object; None for another message's object."""
    frame = unpack_frame(content) if object_name(content) == name else None
    return None if frame is None else RecordDict({RECORD: ConfigRecord({FRAME: frame})})


def _has_one_object(response: PullMessagesResponse, name: str) -> bool:
    trees = [(tree.object_id, len(tree.children)) for tree in response.message_object_trees]
    return len(response.messages_list) == 1 and trees == [(name, 0)]


def _require_small(reply: RelayReply, method: str) -> None:
    """Raise LinkFault if an answer is larger than any that the exchange gives."""
    if len(reply.body) > LARGEST_BODY or (reply.object and method != PULL):
        raise no_answer(
            f"it has {len(reply.body)} bytes beside its object, or an object that belongs to no "
            "message"
        )
