"""The long-running Flower client: calls the Fleet API from the daemon, over the exchange's channel.

It uses Flower's own client and object classes. An interceptor sends each call as one `Relay` call
across the border. The client pulls a message together with its object, passes it to the installed
ClientApp, and pushes the reply together with its object: two calls a message. It never asks for the
bundle of a run, and so never executes one.

This is the only file of the node that touches Flower's internals. Pinned: flwr 1.42.
"""

import logging
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import TypeVar

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
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient

from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import RelayRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from protocols.wire.exchange_clock import TOLERATED, in_words
from protocols.wire.flower_frame import (
    FRAME,
    HEADER_PREFIX,
    LONG_POLL_SECONDS,
    NONCE,
    NONCE_BYTES,
    RECORD,
)

T = TypeVar("T")

HEARTBEAT_SECONDS = 10.0
ONLINE_SECONDS = 40.0
"""How long the SuperLink considers the node online after a heartbeat."""
CALL_SECONDS = LONG_POLL_SECONDS + 15.0
SECONDS_BY_METHOD = {"PullMessages": 300.0, "PushMessages": 300.0, "DeactivateNode": 2.0}
"""Time limits of calls that carry a payload over a slow link, or that nobody waits for."""
PULL, PUSH = "PullMessages", "PushMessages"
_log = logging.getLogger("pratique.fleet")
_STILL_ONLINE = httpx.codes.PRECONDITION_FAILED


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

    def __init__(self, link: ExchangeLink) -> None:
        self._link = link
        self.outgoing = self.incoming = b""
        self.received_id = ""
        self.stop = threading.Event()
        """Interrupts a pull; no other call is interrupted."""

    def intercept(
        self,
        context: ProtobufRequestContext,
        call_next: ProtobufCall,  # noqa: ARG002 (no call leaves any other way)
    ) -> httpx.Response:
        """Return the answer of the SuperLink as the exchange returned it."""
        headers, method = context.request.headers.items(), context.rpc_method.rsplit("/", 1)[-1]
        request = RelayRequest(
            method=method,
            body=context.request.content,
            headers={name: value for name, value in headers if name.startswith(HEADER_PREFIX)},
            object=self.outgoing if method == PUSH else b"",
            received=self.received_id if method == PULL else "",
        )
        seconds = SECONDS_BY_METHOD.get(method, CALL_SECONDS)
        reply = self._link.relay(request, seconds, self.stop if method == PULL else None)
        if method == PULL:
            self.incoming = reply.object
        return httpx.Response(reply.status, content=reply.body, request=context.request)


class FleetClient:
    """The connection of one node with the SuperLink; `serve` runs it."""

    def __init__(
        self,
        link: ExchangeLink,
        key: ec.EllipticCurvePrivateKey,
        app: ClientApp,
        *,
        on_ready: Callable[[], None] = lambda: None,
        before_pull: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is called after the sign-in, `before_pull` before each pull."""
        self._app, self._on_ready, self._before_pull = app, on_ready, before_pull
        self._clock = link.clock
        self._public = public_key_to_bytes(key.public_key())
        self._transport = RelayTransport(link)
        self._client = _RelayedFleet([RuntimeVersion(), SignedTime(key, link), self._transport])

    def serve(self, stop: threading.Event) -> None:
        """Answer messages until `stop` is set; raises LinkFault when the link is lost."""
        self._transport.stop = stop
        node = self._sign_in()
        self._on_ready()
        ended = threading.Event()
        heartbeats = threading.Thread(target=self._send_heartbeats, args=(node, ended), daemon=True)
        heartbeats.start()
        try:
            while not stop.is_set():
                self._before_pull()
                self._answer_next(node)
        finally:
            ended.set()
            heartbeats.join(HEARTBEAT_SECONDS)
            self._deactivate(node)

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
        response = _with_link_faults(lambda: self._client.ActivateNode(request))
        return Node(node_id=response.node_id)

    def _deactivate(self, node: Node) -> None:
        try:
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        except (LinkFault, httpx.HTTPError):
            return  # the SuperLink drops a silent node by itself

    def _send_heartbeats(self, node: Node, ended: threading.Event) -> None:
        request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=ONLINE_SECONDS)
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                self._client.SendNodeHeartbeat(request)
            except (LinkFault, httpx.HTTPError):
                continue  # the pull loop gets the same fault, and ends the service

    def _answer_next(self, node: Node) -> None:
        incoming = _with_link_faults(lambda: self._pull(node))
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
        _with_link_faults(lambda: self._push(node, reply))

    def _pull(self, node: Node) -> Message | None:
        response = self._client.PullMessages(PullMessagesRequest(node=node))
        self._transport.received_id = ""
        if not response.messages_list:
            return None
        metadata = metadata_from_proto(response.messages_list[0].metadata)
        self._transport.received_id = metadata.message_id
        content = _unpack(self._transport.incoming, metadata.message_id)
        return make_message(metadata=metadata, content=content)

    def _push(self, node: Node, reply: Message) -> None:
        content = _pack(reply.content)
        name = get_object_id(content)
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


def _unpack(content: bytes, name: str) -> RecordDict:
    """Return the content of a message from its object; empty for another message's object."""
    try:
        record = ConfigRecord.inflate(content) if get_object_id(content) == name else None
    except Exception:  # noqa: BLE001 - an object that Flower cannot read is no record
        record = None
    return RecordDict() if record is None else RecordDict({RECORD: record})


def _pack(content: RecordDict) -> bytes:
    """Return the one object of a reply."""
    frame = content[RECORD][FRAME]
    packed: bytes = ConfigRecord({FRAME: frame, NONCE: os.urandom(NONCE_BYTES)}).deflate()
    return packed


def _with_link_faults(call: Callable[[], T]) -> T:
    """Return the call's result. Raises LinkFault if the SuperLink answers with an error."""
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise _link_fault(error) from error


def _link_fault(error: httpx.HTTPStatusError) -> LinkFault:
    status = error.response.status_code
    if status == _STILL_ONLINE:
        return LinkFault(
            "The coordinator's SuperLink does not admit this node yet",
            why="it keeps this node's last session for up to a minute, or does not know its key",
            fix="if it lasts longer, ask the coordinator whether this node is admitted",
        )
    return LinkFault(
        "The coordinator's SuperLink refused a call",
        why=f"status {status}: {error.response.text[:200]}",
        fix="ask the coordinator whether this node is admitted",
    )
