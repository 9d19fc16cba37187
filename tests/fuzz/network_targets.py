"""Targets: calls that cross the network, their answers, and what decides how they cross it."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache, partial

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.supercore.inflatable.inflatable_object import get_object_id
from google.protobuf.message import DecodeError

from client.app import build_app
from client.fleet_faults import with_status_faults
from client.flower_client import FleetClient, _unpack
from client.state.incarnation import Incarnation
from keys.certificates import new_node_auth_key
from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import (
    RelayReply,
    RelayRequest,
    RequestPart,
)
from protocols.wire.channel import said
from protocols.wire.exchange_clock import TIME_KEY, TOLERATED, ExchangeClock
from protocols.wire.flower_frame import (
    FLEET_CALLS,
    LARGEST_BODY,
    MAX_FRAME,
    NONCE_BYTES,
    group_of,
    largest_reply,
)
from protocols.wire.flower_object import object_name, pack_frame, unpack_frame
from protocols.wire.proxy import VARIABLES, route_to
from protocols.wire.request_parts import PART_BYTES, joined, parts_of
from server.exchange.fleet_requests import parse_request
from server.flower.bundle import build_bundle
from server.flower.bundle_guard import ALLOWED, CONFIGURATION, check_bundle
from tests.fuzz.target import (
    SEPARATOR,
    Seeds,
    Target,
    parts,
    require_seen,
    scratch,
    text,
)
from tests.fuzz.target import joined as of_parts
from tests.support.documents import NOW
from tests.support.exchange_server import incoming, tree
from tests.support.relay_harness import AT, CONTENT, NAME, REQUESTS, RelayHarness, relayed

FLEET_REQUESTS = "server/exchange/fleet_requests.py"
FLOWER_OBJECT, FLOWER_CLIENT = "protocols/wire/flower_object.py", "client/flower_client.py"


def _relayed(data: bytes) -> None:
    """Relay a call of AT's node: the SuperLink gets nothing that is large, or in another name."""
    try:
        request = RelayRequest.FromString(data)
    except DecodeError:
        return
    harness = RelayHarness()
    harness.relay._long_poll = 0
    harness.ask()

    async def call() -> None:
        await harness.relay.call("AT", request)

    try:
        asyncio.run(call())
    finally:
        for method, body, headers in harness.superlink.calls:
            assert len(body) <= LARGEST_BODY + len(request.object)
            assert all(name.startswith("flwr-") for name in headers)
            _require_own(method, body)


def _require_own(method: str, body: bytes) -> None:
    """Require that a request to the SuperLink names no other node than AT's."""
    if method in FLEET_CALLS and method not in ("ActivateNode", "DeactivateNode"):
        assert parse_request(method, body[:LARGEST_BODY]).node.node_id == AT


def _relay_seeds() -> Seeds:
    calls = [relayed("AT", method, make(AT)) for method, make in REQUESTS.items()]
    calls.append(relayed("AT", "PushMessages", REQUESTS["PushMessages"](AT), object=CONTENT))
    return tuple(call.SerializeToString() for call in calls)


def _in_parts(data: bytes) -> None:
    """Join a request's parts: nothing is added or left out, and no more is read than was stated."""
    sent = list(_parts_in(data))
    taken: list[RequestPart] = []

    async def arrive() -> AsyncIterator[RequestPart]:
        for part in sent:
            taken.append(part)
            yield part

    async def admit(size: int) -> None:
        assert size == sent[0].size
        assert len(taken) == 1

    request = asyncio.run(joined(arrive(), admit))
    assert request == b"".join(part.content for part in taken)
    assert len(request) == sent[0].size
    assert [part.content for part in parts_of(request)] == [part.content for part in taken]


def _parts_in(data: bytes) -> Iterator[RequestPart]:
    for piece in data.split(SEPARATOR):
        try:
            yield RequestPart.FromString(piece)
        except DecodeError:
            return


def _parts_seeds() -> Seeds:
    whole = [part.SerializeToString() for part in parts_of(b"x" * 100)]
    two = [part.SerializeToString() for part in parts_of(bytes(PART_BYTES + 1))]
    return of_parts(*whole), of_parts(*two), of_parts(*whole, *whole)


class _Link:
    """An exchange that answers every call with one answer."""

    def __init__(self, reply: RelayReply) -> None:
        self.reply, self.clock = reply, ExchangeClock(lambda: NOW)

    def relay(self, *_: object) -> RelayReply:
        return self.reply


@cache
def _node_key() -> object:
    return load_pem_private_key(new_node_auth_key()[0], None)


def _answered(data: bytes) -> None:
    """Read the exchange's answer to a node's call, whichever call it is."""
    try:
        reply = RelayReply.FromString(data)
    except DecodeError:
        return
    app = build_app(lambda _: b"")
    here = Incarnation(1, bytes(16), b"")
    client = FleetClient(_Link(reply), _node_key(), app, here)  # type: ignore[arg-type]
    for call in (client._activate, partial(_pull, client, reply)):
        with suppress(PratiqueError):
            call()


def _pull(client: FleetClient, reply: RelayReply) -> None:
    message: Message | None = with_status_faults(lambda: client._pull(NODE))
    if message is not None:
        assert unpack_frame(reply.object) is not None
        assert message.metadata.message_id == object_name(reply.object)


NODE = REQUESTS["PullMessages"](AT).node


def _answered_seeds() -> Seeds:
    replies = (
        RelayReply(status=200, body=ActivateNodeResponse(node_id=1).SerializeToString()),
        RelayReply(status=200, body=incoming(tree(NAME)), object=CONTENT),
        RelayReply(status=409, disputed=True),
        RelayReply(status=500, body=b"not now"),
    )
    return tuple(reply.SerializeToString() for reply in replies)


def _object(data: bytes) -> None:
    """Read the one object of a message: it is byte for byte what writes its frame."""
    frame = unpack_frame(data)
    assert (_unpack(data, get_object_id(data)) is None) == (frame is None)
    if frame is not None:
        assert pack_frame(frame, data[-NONCE_BYTES:]) == data


def _largest(group: str) -> None:
    assert 0 <= largest_reply(group) <= MAX_FRAME


def _clock(stated: str) -> None:
    """Note the time that an exchange states: it can be used and shown, however wrong it is."""
    clock = ExchangeClock(lambda: NOW)
    clock.note(((TIME_KEY, stated),), timedelta())
    require_seen(clock.difference())
    if clock.is_tolerated:
        assert abs(clock.now() - NOW) <= TOLERATED
    clock.now().isoformat()


def _proxy(address: bytes, url: bytes, exceptions: bytes) -> None:
    """Find the route to an exchange: nothing that is shown has the password of a proxy."""
    named = [each.decode(errors="surrogateescape") for each in (address, url, exceptions)]
    for variable in VARIABLES:
        route = route_to(named[0], {variable: named[1], "no_proxy": named[2]})
        assert (route.proxy is None) == (route.options == [("grpc.enable_http_proxy", 0)])
        password = named[1].rpartition("@")[0].rpartition(":")[2]
        assert len(password) < 8 or password not in route.says


def _said(words: str) -> None:
    require_seen(said(words))


def _fleet_calls() -> Iterator[tuple[str, Target]]:
    for method in sorted(FLEET_CALLS):
        seeds = (REQUESTS[method](AT).SerializeToString(),)
        yield (
            f"Fleet call {method}",
            Target(partial(parse_request, method), seeds, (FLEET_REQUESTS,)),
        )


def _flower_bundle(data: bytes) -> None:
    """Check a Flower bundle: one that is allowed has nothing but configuration for our apps."""
    check_bundle(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert set(archive.namelist()) <= ALLOWED


def _bundle_seeds() -> Seeds:
    built = build_bundle(scratch() / "bundle", "c" * 32, 1) / CONFIGURATION
    return _zipped(built.read_text()), _zipped("[project]\n")


def _zipped(content: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr(CONFIGURATION, content)
    return archive.getvalue()


TIMES = tuple(
    f"{NOW + ahead:%Y-%m-%dT%H:%M:%S}{zone}".encode()
    for ahead in (timedelta(), timedelta(seconds=90))
    for zone in ("+00:00", "Z", "-23:59", "")
)
NETWORK_TARGETS: dict[str, Target] = {
    **dict(_fleet_calls()),
    "call of a node": Target(
        _relayed, _relay_seeds, (FLEET_REQUESTS, "server/exchange/relay.py", FLOWER_OBJECT)
    ),
    "request in parts": Target(_in_parts, _parts_seeds, ("protocols/wire/request_parts.py",)),
    "answer to a node's call": Target(_answered, _answered_seeds, (FLOWER_CLIENT, FLOWER_OBJECT)),
    "object of Flower": Target(_object, (CONTENT,), (FLOWER_OBJECT, FLOWER_CLIENT)),
    "group of a message": Target(
        text(_largest), (group_of(100).encode(),), ("protocols/wire/flower_frame.py",)
    ),
    "time of the exchange": Target(text(_clock), TIMES, ("protocols/wire/exchange_clock.py",)),
    "proxy in the environment": Target(
        parts(_proxy, 3),
        (
            of_parts(b"exchange.example.org:7443", b"http://u:password@proxy:3128", b".org,10.0/8"),
            of_parts(b"[2001:db8::1]:7443", b"proxy.example.org:3128", b"2001:db8::/32"),
        ),
        ("protocols/wire/proxy.py",),
    ),
    "refusal of the exchange": Target(
        text(_said), (b"It is full",), ("protocols/wire/channel.py",)
    ),
    "Flower bundle": Target(_flower_bundle, _bundle_seeds, ("server/flower/bundle_guard.py",)),
}
