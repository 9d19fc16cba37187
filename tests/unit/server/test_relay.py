"""What one country's certificate can do through the relay, and what it cannot."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import flwr.proto.fleet_pb2_grpc as fleet_service
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from hypothesis import given
from hypothesis import strategies as st

from protocols.carrier import FLEET_CALLS
from server.relay import MAX_OBJECTS, Relay, RelayRefused
from tests.support.fleet import ScriptedSuperLink, incoming, tree

AT, BE = 101, 202
KEYS = {"AT": b"key of AT", "BE": b"key of BE"}
POLL = 0.2


class Wire:
    """A relay with two seats, over a scripted SuperLink."""

    def __init__(self) -> None:
        self.superlink = ScriptedSuperLink()
        self.relay = Relay(self.superlink.forward, long_poll=POLL)
        self.relay.seat("AT", AT, KEYS["AT"])
        self.relay.seat("BE", BE, KEYS["BE"])

    def call(
        self, country: str, method: str, request: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        return asyncio.run(self.relay.call(country, method, body, headers or {}))

    def refused(self, country: str, method: str, request: Any, headers: Any = None) -> str:
        before = list(self.superlink.calls)
        with pytest.raises(RelayRefused) as caught:
            self.call(country, method, request, headers)
        assert self.superlink.calls == before, "a refused call reached the SuperLink"
        return str(caught.value)

    def bring(self, country: str, node_id: int, name: str) -> None:
        """Let a message with one object arrive at a country."""
        self.superlink.will("PullMessages", incoming(tree(name, tree(f"{name}/leaf"))))
        self.call(country, "PullMessages", PullMessagesRequest(node=Node(node_id=node_id)))


@pytest.fixture
def wire() -> Wire:
    return Wire()


REQUESTS: dict[str, Callable[[int], Any]] = {
    "ActivateNode": lambda node: ActivateNodeRequest(public_key=KEYS["AT" if node == AT else "BE"]),
    "DeactivateNode": lambda node: DeactivateNodeRequest(node_id=node),
    "SendNodeHeartbeat": lambda node: SendNodeHeartbeatRequest(node=Node(node_id=node)),
    "PullMessages": lambda node: PullMessagesRequest(node=Node(node_id=node)),
    "PullObject": lambda node: PullObjectRequest(node=Node(node_id=node), object_id="m"),
    "ConfirmMessageReceived": lambda node: ConfirmMessageReceivedRequest(
        node=Node(node_id=node), message_object_id="m"
    ),
    "PushMessages": lambda node: PushMessagesRequest(
        node=Node(node_id=node), messages_list=[Message(metadata=Metadata(src_node_id=node))]
    ),
    "PushObject": lambda node: PushObjectRequest(node=Node(node_id=node), object_id="o"),
}


def test_a_request_of_every_carried_call_is_known_here() -> None:
    assert set(REQUESTS) == set(FLEET_CALLS)


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_one_country_cannot_speak_with_another_s_node_id_or_key(wire: Wire, method: str) -> None:
    wire.bring("AT", AT, "m")
    wire.bring("BE", BE, "m")
    assert "another node's" in wire.refused("BE", method, REQUESTS[method](AT))


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_country_without_a_seat_is_refused(wire: Wire, method: str) -> None:
    assert "CZ has no node registered" in wire.refused("CZ", method, REQUESTS[method](AT))


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_node_without_an_id_or_key_is_nobody(wire: Wire, method: str) -> None:
    wire.refused("AT", method, b"")


@pytest.mark.parametrize("method", sorted(set(REQUESTS) - {"PushObject"}))
def test_a_country_speaks_for_itself(wire: Wire, method: str) -> None:
    wire.bring("AT", AT, "m")
    status, _ = wire.call("AT", method, REQUESTS[method](AT))
    assert status == 200
    assert method in wire.superlink.methods


def unlisted() -> list[str]:
    """Every Fleet call that Flower has and the relay does not carry."""
    servicer = fleet_service.FleetServicer
    return sorted(name for name in vars(servicer) if name[0].isupper() and name not in FLEET_CALLS)


def test_flower_has_calls_that_are_not_carried() -> None:
    assert {"GetRun", "GetFab", "RegisterNode", "UnregisterNode"} <= set(unlisted())


@pytest.mark.parametrize(
    "method",
    [
        *unlisted(),
        "",
        "pullmessages",
        "PullMessages ",
        "../control/start-run",
        "StartRun",
        "é" * 90,
    ],
)
def test_an_unlisted_call_is_not_carried(wire: Wire, method: str) -> None:
    said = wire.refused("AT", method, PullMessagesRequest(node=Node(node_id=AT)))
    assert "is not carried" in said
    assert len(said) < 250


@given(st.text(max_size=40).filter(lambda name: name not in FLEET_CALLS), st.binary(max_size=80))
def test_no_other_name_is_carried(method: str, body: bytes) -> None:
    Wire().refused("AT", method, body)


@pytest.mark.parametrize("method", sorted(REQUESTS))
@given(body=st.binary(max_size=120))
def test_no_bytes_of_a_stranger_do_more_than_be_refused(method: str, body: bytes) -> None:
    wire = Wire()
    try:
        wire.call("BE", method, body)
    except RelayRefused:
        assert not wire.superlink.calls
    for _, carried, _ in wire.superlink.calls:
        assert carried == body


def test_only_flower_s_headers_go_on(wire: Wire) -> None:
    given_headers = {
        "flwr-signature": "s",
        "flwr-public-key": "k",
        "Flwr-x": "no",
        "authorization": "Bearer stolen",
        "host": "elsewhere",
        "cookie": "c",
        "content-length": "0",
        "x-flwr-y": "no",
    }
    wire.call("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT), given_headers)
    (_, _, sent) = wire.superlink.calls[-1]
    assert sent == {"flwr-signature": "s", "flwr-public-key": "k"}


@pytest.mark.parametrize(
    "headers",
    [
        {"flwr-a\r\nhost": "evil"},
        {"flwr-a": "x\r\nauthorization: Bearer y"},
        {"flwr-a": "naïve"},
        {"flwr-a": "x\x00"},
        {"flwr-a": "x" * 5000},
        {"flwr-A": "x"},
        {"flwr-" + "a" * 80: "x"},
        {"flwr-a:b": "x"},
    ],
)
def test_a_header_cannot_smuggle_another(wire: Wire, headers: dict[str, str]) -> None:
    wire.refused("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT), headers)


def test_objects_of_another_country_are_not_handed_out(wire: Wire) -> None:
    wire.bring("AT", AT, "secret")
    pull = PullObjectRequest(node=Node(node_id=BE), object_id="secret")
    assert "not addressed to it" in wire.refused("BE", "PullObject", pull)
    leaf = PullObjectRequest(node=Node(node_id=BE), object_id="secret/leaf")
    wire.refused("BE", "PullObject", leaf)
    confirm = ConfirmMessageReceivedRequest(node=Node(node_id=BE), message_object_id="secret")
    wire.refused("BE", "ConfirmMessageReceived", confirm)


def test_every_object_below_a_message_is_handed_to_its_country(wire: Wire) -> None:
    deep = tree("m", tree("a", tree("b", tree("c"))), tree("d"))
    wire.superlink.will("PullMessages", incoming(deep))
    wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT))
    for name in ("m", "a", "b", "c", "d"):
        pull = PullObjectRequest(node=Node(node_id=AT), object_id=name)
        assert wire.call("AT", "PullObject", pull)[0] == 200


def test_an_object_in_a_refused_pull_is_not_addressed_to_anybody(wire: Wire) -> None:
    wire.superlink.will("PullMessages", incoming(tree("m")), status=403)
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT))[0] == 403
    wire.refused("AT", "PullObject", REQUESTS["PullObject"](AT))


def asked_for(*names: str) -> bytes:
    return bytes(PushMessagesResponse(objects_to_push=names).SerializeToString())


def test_a_node_pushes_only_what_it_was_asked_for(wire: Wire) -> None:
    wire.refused("AT", "PushObject", REQUESTS["PushObject"](AT))
    wire.superlink.will("PushMessages", asked_for("o"))
    wire.call("AT", "PushMessages", REQUESTS["PushMessages"](AT))
    assert wire.call("AT", "PushObject", REQUESTS["PushObject"](AT))[0] == 200
    wire.refused("BE", "PushObject", REQUESTS["PushObject"](BE))


def test_what_a_refused_push_names_may_not_be_pushed(wire: Wire) -> None:
    wire.superlink.will("PushMessages", asked_for("o"), status=401)
    wire.call("AT", "PushMessages", REQUESTS["PushMessages"](AT))
    wire.refused("AT", "PushObject", REQUESTS["PushObject"](AT))


@pytest.mark.parametrize("sources", [[BE], [AT, BE], [0], [AT, AT, 1]])
def test_no_message_is_pushed_in_another_node_s_name(wire: Wire, sources: list[int]) -> None:
    push = PushMessagesRequest(
        node=Node(node_id=AT),
        messages_list=[Message(metadata=Metadata(src_node_id=one)) for one in sources],
    )
    assert "another node's name" in wire.refused("AT", "PushMessages", push)


def test_a_pulled_object_is_not_an_asked_one(wire: Wire) -> None:
    wire.bring("AT", AT, "o")
    wire.refused("AT", "PushObject", REQUESTS["PushObject"](AT))


def test_a_new_seat_voids_what_the_old_one_held(wire: Wire) -> None:
    wire.bring("AT", AT, "m")
    wire.relay.seat("AT", 999, b"new key")
    wire.refused("AT", "PullObject", REQUESTS["PullObject"](AT))
    pull = PullObjectRequest(node=Node(node_id=999), object_id="m")
    wire.refused("AT", "PullObject", pull)
    wire.refused("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert {c: one.node for c, one in wire.relay.presence().items()} == {"AT": 999, "BE": BE}


def test_a_seat_forgets_the_oldest_objects_first(wire: Wire) -> None:
    wire.bring("AT", AT, "first")
    confirm(wire, "first")
    children = [tree(f"o{number}") for number in range(MAX_OBJECTS)]
    wire.superlink.will("PullMessages", incoming(tree("m", *children)))
    wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT))
    assert len(wire.relay._seats["AT"].incoming) == MAX_OBJECTS
    wire.refused("AT", "PullObject", PullObjectRequest(node=Node(node_id=AT), object_id="first"))
    last = PullObjectRequest(node=Node(node_id=AT), object_id=f"o{MAX_OBJECTS - 1}")
    assert wire.call("AT", "PullObject", last)[0] == 200


def pulled(wire: Wire) -> list[str]:
    """Return the ids of the messages that AT's next look brings."""
    _, answer = wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT))
    trees = PullMessagesResponse.FromString(answer).message_object_trees
    return [one.object_id for one in trees]


def confirm(wire: Wire, name: str) -> None:
    request = ConfirmMessageReceivedRequest(node=Node(node_id=AT), message_object_id=name)
    assert wire.call("AT", "ConfirmMessageReceived", request)[0] == 200


def test_a_message_is_handed_out_until_its_receipt_is_confirmed(wire: Wire) -> None:
    """The SuperLink hands it out once, and the answer that brought it may be lost."""
    wire.bring("AT", AT, "m")
    wire.superlink.will("PullMessages", incoming(tree("next")))
    assert pulled(wire) == ["m"]
    assert pulled(wire) == ["m"]
    assert wire.superlink.methods.count("PullMessages") == 1
    confirm(wire, "m")
    assert pulled(wire) == ["next"]
    confirm(wire, "m")  # once more, as a late copy of the call would
    assert pulled(wire) == ["next"]
    confirm(wire, "next")
    assert pulled(wire) == []


def test_what_one_country_has_not_confirmed_is_not_another_s(wire: Wire) -> None:
    wire.bring("AT", AT, "m")
    _, answer = wire.call("BE", "PullMessages", REQUESTS["PullMessages"](BE))
    assert answer == b""


def test_whoever_signs_in_anew_is_not_handed_what_was_before(wire: Wire) -> None:
    wire.bring("AT", AT, "m")
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert pulled(wire) == []


def test_a_message_that_arrives_for_a_node_that_hung_up_is_not_lost(wire: Wire) -> None:
    """The exchange ends a call when its connection breaks, at whatever point it is."""
    body = REQUESTS["PullMessages"](AT).SerializeToString()

    async def hang_up() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(*_: Any) -> tuple[int, bytes]:
            asked.set()
            await go_on.wait()
            return 200, incoming(tree("m"))

        wire.relay._forward = slow
        looking = asyncio.ensure_future(wire.relay.call("AT", "PullMessages", body, {}))
        await asked.wait()
        looking.cancel()
        await asyncio.wait([looking])
        go_on.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(hang_up())
    wire.relay._forward = wire.superlink.forward
    assert pulled(wire) == ["m"]


def test_who_is_online_follows_activation(wire: Wire) -> None:
    assert wire.relay.online() == {"AT": False, "BE": False}
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert wire.relay.online() == {"AT": True, "BE": False}
    wire.call("AT", "DeactivateNode", REQUESTS["DeactivateNode"](AT))
    assert wire.relay.online()["AT"] is False


def test_a_refused_activation_is_not_online(wire: Wire) -> None:
    wire.superlink.will("ActivateNode", status=401)
    assert wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))[0] == 401
    assert wire.relay.online()["AT"] is False


def test_a_node_that_crashed_is_activated_again(wire: Wire) -> None:
    wire.superlink.will("ActivateNode", status=412)
    headers = {"flwr-signature": "s"}
    status, _ = wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT), headers)
    assert status == 200
    assert wire.superlink.methods == ["ActivateNode", "DeactivateNode", "ActivateNode"]
    leave = DeactivateNodeRequest.FromString(wire.superlink.calls[1][1])
    assert leave.node_id == AT
    assert wire.superlink.calls[1][2] == headers
    assert wire.relay.online()["AT"] is True


def test_a_second_refusal_to_activate_is_passed_on(wire: Wire) -> None:
    wire.superlink.will("ActivateNode", status=412)
    wire.superlink.will("ActivateNode", status=412)
    assert wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))[0] == 412
    assert wire.relay.online()["AT"] is False


async def poll(wire: Wire, country: str, node_id: int) -> tuple[int, bytes]:
    body = PullMessagesRequest(node=Node(node_id=node_id)).SerializeToString()
    return await wire.relay.call(country, "PullMessages", body, {})


def test_a_poll_waits_and_ends_empty() -> None:
    wire = Wire()

    async def act() -> float:
        started = asyncio.get_running_loop().time()
        status, answer = await poll(wire, "AT", AT)
        assert (status, answer) == (200, b"")
        return asyncio.get_running_loop().time() - started

    assert POLL <= asyncio.run(act()) < POLL + 1


def test_an_announcement_wakes_every_waiting_country() -> None:
    wire = Wire()
    wire.relay._long_poll = 30.0

    async def act() -> list[tuple[int, bytes]]:
        polls = [asyncio.ensure_future(poll(wire, *who)) for who in (("AT", AT), ("BE", BE))]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in polls)
        for _ in polls:
            wire.superlink.will("PullMessages", incoming(tree("m")))
        wire.relay.announce()
        return await asyncio.wait_for(asyncio.gather(*polls), 0.5)

    for status, answer in asyncio.run(act()):
        assert status == 200
        assert answer


def test_a_message_pushed_while_the_queue_is_looked_at_is_not_slept_over() -> None:
    """The announcement between the look and the wait must not be lost."""
    wire = Wire()
    wire.relay._long_poll = 30.0
    looks = 0

    async def forward(method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        nonlocal looks
        looks += 1
        if looks == 1:
            wire.relay.announce()
            return 200, b""
        return 200, incoming(tree("m"))

    wire.relay._forward = forward

    async def act() -> None:
        await asyncio.wait_for(poll(wire, "AT", AT), 0.5)

    asyncio.run(act())
    assert looks == 2


def test_a_failing_superlink_ends_the_poll_at_once(wire: Wire) -> None:
    wire.relay._long_poll = 30.0
    wire.superlink.will("PullMessages", status=503)
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT)) == (503, b"")


def test_an_announcement_for_somebody_else_is_one_look_and_no_more() -> None:
    wire = Wire()

    async def act() -> None:
        waiting = asyncio.ensure_future(poll(wire, "AT", AT))
        await asyncio.sleep(0.05)
        wire.relay.announce()
        assert (await waiting)[1] == b""

    asyncio.run(act())
    assert wire.superlink.methods == ["PullMessages"] * 3  # at first, when woken, at the end
