"""Messages at the relay: announced, waited for, delivered until their receipt is confirmed."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node

from server.exchange.relay_session import CallReply
from tests.support.exchange_server import incoming, tree
from tests.support.relay_harness import (
    AT,
    BE,
    CONTENT,
    GONE,
    POLL,
    REQUESTS,
    RelayHarness,
    relayed,
    there,
)


@pytest.fixture
def wire() -> RelayHarness:
    return RelayHarness()


def pulled(wire: RelayHarness, received: str = "") -> list[str]:
    """Return the ids of the messages that AT's next pull returns."""
    look = REQUESTS["PullMessages"](AT)
    answer = wire.call("AT", "PullMessages", look, received=received).body
    trees = PullMessagesResponse.FromString(answer).message_object_trees
    return [one.object_id for one in trees]


def test_a_message_is_delivered_again_until_its_receipt_is_confirmed(wire: RelayHarness) -> None:
    """The SuperLink delivers a message once, and the answer with the message may be lost."""
    wire.bring("AT", AT, "m", b"content")
    wire.superlink.will("PullMessages", incoming(tree("next")))
    assert pulled(wire) == ["m"]
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT)).object == b"content"
    assert pulled(wire, "another") == ["m"]
    assert wire.superlink.methods.count("PullMessages") == 1
    assert "ConfirmMessageReceived" not in wire.superlink.methods
    wire.relay.announce(["AT"])
    assert pulled(wire, "m") == ["next"]
    assert pulled(wire, "m") == ["next"]  # as a late copy of the call would
    assert wire.superlink.methods.count("ConfirmMessageReceived") == 1
    assert pulled(wire, "next") == []


def test_a_received_message_is_confirmed_to_the_superlink(wire: RelayHarness) -> None:
    wire.bring("AT", AT, "m")
    pulled(wire, "m")
    confirmations = [
        body for name, body, _ in wire.superlink.calls if name == "ConfirmMessageReceived"
    ]
    (confirmed,) = map(ConfirmMessageReceivedRequest.FromString, confirmations)
    assert (confirmed.message_object_id, confirmed.node.node_id) == ("m", AT)
    assert confirmed.run_id == 7


def test_a_reply_to_a_message_confirms_it(wire: RelayHarness) -> None:
    wire.bring("AT", AT, "m")
    wire.push(CONTENT, reply_to="m")
    assert "ConfirmMessageReceived" in wire.superlink.methods
    assert pulled(wire) == []


def test_an_unconfirmed_message_is_not_delivered_to_another_country(wire: RelayHarness) -> None:
    wire.bring("AT", AT, "m")
    assert wire.call("BE", "PullMessages", REQUESTS["PullMessages"](BE)).body == b""


def test_after_a_new_sign_in_earlier_messages_are_not_sent_again(wire: RelayHarness) -> None:
    wire.bring("AT", AT, "m")
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert pulled(wire) == []


def test_a_message_that_arrives_for_a_disconnected_node_is_not_lost(wire: RelayHarness) -> None:
    """The exchange ends a call when its connection breaks, at whatever point it is."""
    pull = relayed("AT", "PullMessages", REQUESTS["PullMessages"](AT))

    async def hang_up() -> None:
        pull_started, go_on = asyncio.Event(), asyncio.Event()

        async def slow(*_: Any) -> tuple[int, bytes]:
            pull_started.set()
            await go_on.wait()
            return 200, incoming(tree("m"))

        wire.relay._forward = slow
        looking = asyncio.ensure_future(wire.relay.call("AT", pull))
        await pull_started.wait()
        looking.cancel()
        await asyncio.wait([looking])
        go_on.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(hang_up())
    wire.relay._forward = wire.superlink.forward
    assert pulled(wire) == ["m"]


async def poll(wire: RelayHarness, country: str, node_id: int) -> CallReply:
    request = PullMessagesRequest(node=Node(node_id=node_id))
    return await wire.relay.call(country, relayed(country, "PullMessages", request))


def test_a_poll_waits_and_ends_empty() -> None:
    wire = RelayHarness()

    async def act() -> float:
        started = asyncio.get_running_loop().time()
        assert await poll(wire, "AT", AT) == CallReply(200, b"")
        return asyncio.get_running_loop().time() - started

    assert POLL <= asyncio.run(act()) < POLL + 1


def test_an_announcement_wakes_every_waiting_country() -> None:
    wire = RelayHarness()
    wire.relay._long_poll = 30.0

    async def act() -> list[CallReply]:
        polls = [asyncio.ensure_future(poll(wire, *who)) for who in (("AT", AT), ("BE", BE))]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in polls)
        for _ in polls:
            wire.superlink.will("PullMessages", incoming(tree("m")))
        wire.relay.announce(["AT", "BE", "CZ"])
        return await asyncio.wait_for(asyncio.gather(*polls), 0.5)

    for came in asyncio.run(act()):
        assert came.status == 200
        assert came.body


def test_a_message_pushed_during_a_pull_is_not_missed() -> None:
    """An announcement between the pull and the wait must not be lost."""
    wire = RelayHarness()
    wire.relay._long_poll = 30.0
    looks = 0

    async def forward(method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        nonlocal looks
        looks += method == "PullMessages"
        if method == "PullMessages" and looks == 1:
            wire.relay.announce(["AT"])
            return 200, b""
        return 200, incoming(tree("m")) if method == "PullMessages" else GONE

    wire.relay._forward = forward

    async def act() -> None:
        await asyncio.wait_for(poll(wire, "AT", AT), 0.5)

    asyncio.run(act())
    assert looks == 2


def test_a_failing_superlink_ends_the_poll_at_once(wire: RelayHarness) -> None:
    wire.relay._long_poll = 30.0
    wire.superlink.will("PullMessages", status=503)
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT)) == CallReply(503, b"")


def test_without_an_announcement_nothing_is_pulled_for_a_country() -> None:
    wire = RelayHarness()

    async def act() -> None:
        await poll(wire, "AT", AT)
        waiting = asyncio.ensure_future(poll(wire, "AT", AT))
        await asyncio.sleep(0.05)
        wire.relay.announce(["BE"])
        assert (await waiting).body == b""

    asyncio.run(act())
    # for the new session, at the end of this poll, and at the end of the next one
    assert wire.superlink.methods == ["PullMessages"] * 3


def test_after_a_message_the_next_poll_waits_without_a_pull() -> None:
    wire = RelayHarness()
    wire.superlink.will("PullMessages", incoming(tree("m")))

    async def act() -> None:
        assert (await poll(wire, "AT", AT)).body
        wire.relay._sessions["AT"].unconfirmed.clear()
        waiting = asyncio.ensure_future(poll(wire, "AT", AT))
        await asyncio.sleep(0.05)
        assert wire.superlink.methods == ["PullMessages", "PullObject"]
        wire.superlink.will("PullMessages", incoming(tree("next")))
        wire.relay.announce(["AT"])
        assert (await waiting).body

    asyncio.run(act())


def test_a_second_poll_is_woken_by_the_message_for_the_first() -> None:
    """The first one's connection was cut; its message arrives nevertheless."""
    wire = RelayHarness()
    wire.relay._long_poll = 30.0
    go_on = asyncio.Event()

    async def slow(method: str, *_: Any) -> tuple[int, bytes]:
        if method == "PullMessages":
            await go_on.wait()
            return 200, incoming(tree("m"))
        return 200, there(b"content")

    wire.relay._forward = slow

    async def act() -> CallReply:
        first = asyncio.ensure_future(poll(wire, "AT", AT))
        await asyncio.sleep(0.01)
        first.cancel()
        wire.relay._sessions["AT"].expected = 0
        second = asyncio.ensure_future(poll(wire, "AT", AT))
        await asyncio.sleep(0.01)
        go_on.set()
        return await asyncio.wait_for(second, 2)

    assert asyncio.run(act()).object == b"content"


def test_repeated_disconnects_cause_only_one_pull_at_the_superlink() -> None:
    """A pull continues after its call has ended, so that calls must not start further pulls."""
    wire = RelayHarness()
    looks, go_on = [0, 0], asyncio.Event()

    async def slow(*_: Any) -> tuple[int, bytes]:
        looks[0] += 1
        looks[1] = max(looks)
        await go_on.wait()
        looks[0] -= 1
        return 200, b""

    wire.relay._forward = slow

    async def act() -> None:
        for _ in range(20):
            call = asyncio.ensure_future(poll(wire, "AT", AT))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        others = asyncio.ensure_future(poll(wire, "BE", BE))
        await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.wait_for(others, POLL + 5)

    asyncio.run(act())
    assert looks[1] == len(("AT", "BE"))
