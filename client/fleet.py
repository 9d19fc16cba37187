"""The warm Flower client: speaks the Fleet API from the daemon, over the exchange's channel.

It uses Flower's own client and object classes; each call leaves through the interceptor seam and
crosses the border as one `Relay` call. It pulls a message, hands it to the installed ClientApp
and pushes the reply. It never asks for a run's bundle, and so never executes one.

This is the only file of the node that touches Flower's internals. Pinned: flwr 1.41.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from keys.errors import PratiqueError
from protocols.carrier import HEADER_PREFIX, LONG_POLL_SECONDS
from protocols.channel import ExchangeLink, LinkFault
from protocols.proto.exchange_pb2 import RelayRequest

T = TypeVar("T")

HEARTBEAT_SECONDS = 10.0
ONLINE_SECONDS = 40.0
"""How long the SuperLink thinks the node online after a heartbeat."""
CALL_SECONDS = LONG_POLL_SECONDS + 15.0
LONGER_OR_SHORTER = {"PullObject": 300.0, "PushObject": 300.0, "DeactivateNode": 2.0}
"""How long calls may take that carry a payload over a slow link, or that nobody waits for."""
PULL_BACKOFF_SECONDS = 0.02
LOOK = "PullMessages"
_log = logging.getLogger("pratique.fleet")
_STILL_ONLINE = httpx.codes.PRECONDITION_FAILED


class RuntimeVersion:
    """Interceptor that says which Flower this is.

    Flower's own also ends the process when the other side asks for it.
    """

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the version's headers and pass the call on."""
        context.request.headers.update(self._headers)
        response: httpx.Response = call_next(context)
        return response


class RelayTransport:
    """Interceptor that carries a call over the exchange and never reaches HTTP."""

    def __init__(self, link: ExchangeLink) -> None:
        self._link = link
        self.stop = threading.Event()
        """Breaks off a look for messages; what else is under way is finished."""

    def intercept(
        self,
        context: ProtobufRequestContext,
        call_next: ProtobufCall,  # noqa: ARG002 (nothing goes out any other way)
    ) -> httpx.Response:
        """Return the SuperLink's answer as the exchange handed it back."""
        headers, method = context.request.headers.items(), context.rpc_method.rsplit("/", 1)[-1]
        request = RelayRequest(
            method=method,
            body=context.request.content,
            headers={name: value for name, value in headers if name.startswith(HEADER_PREFIX)},
        )
        seconds = LONGER_OR_SHORTER.get(method, CALL_SECONDS)
        reply = self._link.relay(request, seconds, self.stop if method == LOOK else None)
        return httpx.Response(reply.status, content=reply.body, request=context.request)


@dataclass
class _Incoming:
    message: Message
    run_id: int
    object_id: str


class FleetClient:
    """One node's conversation with the SuperLink. `serve` until told to stop, or the link fails."""

    def __init__(
        self,
        link: ExchangeLink,
        key: ec.EllipticCurvePrivateKey,
        app: ClientApp,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ready` is called once signed in, `on_turn` before each look for a message."""
        self._app, self._on_ready, self._on_turn = app, on_ready, on_turn
        self._public = public_key_to_bytes(key.public_key())
        self._transport = RelayTransport(link)
        self._client = FleetHttpClient.from_server_address(
            "exchange",
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersion(),
                NodeAuthHttpInterceptor(key, key.public_key()),
                self._transport,
            ],
        )

    def serve(self, stop: threading.Event) -> None:
        """Answer messages until `stop` is set; raises LinkFault when the link is lost."""
        self._transport.stop = stop
        node = self._activate()
        self._on_ready()
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(node, ended), daemon=True)
        beat.start()
        try:
            while not stop.is_set():
                self._on_turn()
                self._answer_next(node)
        finally:
            ended.set()
            beat.join(HEARTBEAT_SECONDS)
            self._deactivate(node)

    def _activate(self) -> Node:
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=ONLINE_SECONDS)
        response = _translated(lambda: self._client.ActivateNode(request))
        return Node(node_id=response.node_id)

    def _deactivate(self, node: Node) -> None:
        try:
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        except (LinkFault, httpx.HTTPError):
            return  # the SuperLink forgets a silent node by itself

    def _beat(self, node: Node, ended: threading.Event) -> None:
        request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=ONLINE_SECONDS)
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                self._client.SendNodeHeartbeat(request)
            except (LinkFault, httpx.HTTPError):
                continue  # the pull loop meets the same fault and ends the service

    def _answer_next(self, node: Node) -> None:
        incoming = _translated(lambda: self._pull(node))
        if incoming is None:
            return
        context = Context(
            run_id=incoming.run_id,
            node_id=node.node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        try:
            reply = self._app(incoming.message, context)
        except (PratiqueError, ValueError) as error:  # no message of ours: it gets no answer
            _log.warning("message ignored", extra={"what": type(error).__name__})
            return
        _translated(lambda: self._push(node, incoming.run_id, reply))

    def _pull(self, node: Node) -> _Incoming | None:
        response = self._client.PullMessages(PullMessagesRequest(node=node))
        if not response.messages_list:
            return None
        head = message_from_proto(response.messages_list[0])
        run_id, object_id = head.metadata.run_id, head.metadata.message_id
        message = self._pull_content(node, run_id, object_id, response.message_object_trees[0])
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=object_id)
        )
        return _Incoming(message, run_id, object_id)

    def _pull_content(self, node: Node, run_id: int, object_id: str, tree: ObjectTree) -> Message:
        contents = pull_objects(
            [branch.object_id for branch in iterate_object_tree(tree)],
            make_pull_object_fn_protobuf(self._client.PullObject, node, run_id),
            initial_backoff=PULL_BACKOFF_SECONDS,
        )
        message: Any = inflate_object_from_contents(object_id, contents)
        message.metadata.__dict__["_message_id"] = object_id
        return message

    def _push(self, node: Node, run_id: int, reply: Message) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree, objects = get_object_tree(reply), get_all_nested_objects(reply)
            response = self._client.PushMessages(
                PushMessagesRequest(
                    node=node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[tree],
                    clientapp_runtime_list=[0.0],
                )
            )
            push_objects(
                objects,
                make_push_object_fn_protobuf(
                    self._client.PushObject, node, run_id, response.session_id
                ),
                object_ids_to_push=set(response.objects_to_push),
            )


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise _link_fault(error) from error


def _link_fault(error: httpx.HTTPStatusError) -> LinkFault:
    status = error.response.status_code
    if status == _STILL_ONLINE:
        return LinkFault(
            "The coordinator's SuperLink does not take this node in yet",
            why="it holds this node's last session, for a minute at most, or does not know its key",
            fix="if it lasts longer, ask the coordinator whether this node is admitted",
            passing=True,
        )
    return LinkFault(
        "The coordinator's SuperLink refused a call",
        why=f"status {status}: {error.response.text[:200]}",
        fix="ask the coordinator whether this node is admitted",
        passing=status >= httpx.codes.INTERNAL_SERVER_ERROR
        or status in (httpx.codes.UNAUTHORIZED, httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN),
    )
