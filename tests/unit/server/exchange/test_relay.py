"""What one country's certificate can do through the relay, and what it cannot."""

import pytest
from flwr.proto.fleet_pb2 import (
    DESCRIPTOR,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    Message,
    Metadata,
    PullObjectRequest,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from hypothesis import given
from hypothesis import strategies as st

from client.flower_client import CALL_SECONDS
from protocols.wire.flower_frame import (
    FLEET_CALLS,
    HEARTBEAT_SECONDS,
    NONCE_BYTES,
    SESSION_BYTES,
    SIGNED_IN_TOO_OFTEN,
    STILL_CONNECTED,
)
from protocols.wire.flower_object import pack_frame
from server.exchange.fleet_requests import RelayRefused, own_request
from server.exchange.relay import ONLINE_SECONDS
from server.exchange.relay_session import SIGN_INS_AT_ONCE, CallReply
from tests.support.exchange_server import incoming, tree
from tests.support.relay_harness import (
    AT,
    BE,
    CONTENT,
    GONE,
    LATE,
    NAME,
    REQUESTS,
    RelayHarness,
    push_of,
    there,
)


@pytest.fixture
def wire() -> RelayHarness:
    return RelayHarness()


def test_every_forwarded_call_has_a_request_in_these_tests() -> None:
    assert set(REQUESTS) == set(FLEET_CALLS)


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_country_cannot_use_the_node_id_or_key_of_another_country(
    wire: RelayHarness, method: str
) -> None:
    assert "another node's" in wire.refused("BE", method, REQUESTS[method](AT))


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_country_without_a_session_is_refused(wire: RelayHarness, method: str) -> None:
    assert "CZ has no node registered" in wire.refused("CZ", method, REQUESTS[method](AT))


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_a_request_without_an_id_or_key_is_refused(wire: RelayHarness, method: str) -> None:
    wire.refused("AT", method, b"")


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_requests_of_a_country_for_its_node_are_forwarded(wire: RelayHarness, method: str) -> None:
    wire.ask()
    assert wire.call("AT", method, REQUESTS[method](AT)).status == 200
    assert method in wire.superlink.methods


def unlisted() -> list[str]:
    """Every Fleet call that Flower has and the relay does not forward."""
    return sorted(set(DESCRIPTOR.services_by_name["Fleet"].methods_by_name) - set(FLEET_CALLS))


def test_flower_has_calls_that_are_not_forwarded() -> None:
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
def test_an_unlisted_call_is_not_forwarded(wire: RelayHarness, method: str) -> None:
    message = wire.refused("AT", method, PullMessagesRequest(node=Node(node_id=AT)))
    assert "is not forwarded" in message
    assert len(message) < 250


@given(st.text(max_size=40).filter(lambda name: name not in FLEET_CALLS), st.binary(max_size=80))
def test_no_other_name_is_forwarded(method: str, body: bytes) -> None:
    RelayHarness().refused("AT", method, body)


@pytest.mark.parametrize("method", sorted(REQUESTS))
@given(body=st.binary(max_size=120))
def test_arbitrary_bytes_are_refused(method: str, body: bytes) -> None:
    wire = RelayHarness()
    try:
        wire.call("BE", method, body)
    except RelayRefused:
        assert not wire.superlink.calls
    for _, forwarded, _ in wire.superlink.calls:
        assert forwarded == own_request(wire.relay._sessions["BE"], method)


def test_only_headers_of_flower_are_forwarded(wire: RelayHarness) -> None:
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
        {"flwr-signature": "x\r\nauthorization: Bearer y"},
        {"flwr-signature": "naïve"},
        {"flwr-signature": "x\x00"},
        {"flwr-signature": "x" * 1025},
    ],
)
def test_a_header_cannot_smuggle_another(wire: RelayHarness, headers: dict[str, str]) -> None:
    wire.refused("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT), headers)


@pytest.mark.parametrize(
    "name",
    ["flwr-a\r\nhost", "flwr-Signature", "flwr-" + "a" * 80, "flwr-a:b", "flwr-signature "],
)
def test_a_header_that_flower_does_not_check_is_dropped(wire: RelayHarness, name: str) -> None:
    wire.call("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT), {name: "x"})
    assert wire.superlink.calls[-1][2] == {}


def test_a_message_comes_with_its_object_in_one_call(wire: RelayHarness) -> None:
    wire.superlink.will("PullMessages", incoming(tree("m")))
    wire.superlink.will("PullObject", there(b"all of it"))
    came = wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT), {"flwr-signature": "b"})
    assert (came.status, came.object) == (200, b"all of it")
    method, body, headers = wire.superlink.calls[1]
    object_request = PullObjectRequest.FromString(body)
    assert (
        method,
        object_request.object_id,
        object_request.node.node_id,
        object_request.run_id,
    ) == ("PullObject", "m", AT, 7)
    assert headers == {"flwr-signature": "b"}


def test_an_object_that_follows_late_is_waited_for(wire: RelayHarness) -> None:
    wire.superlink.will("PullMessages", incoming(tree("m")))
    for answer in (LATE, LATE, there(b"late")):
        wire.superlink.will("PullObject", answer)
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT)).object == b"late"


@pytest.mark.parametrize(("answer", "status"), [(GONE, 200), (b"", 403), (b"", 503)])
def test_a_message_whose_object_does_not_arrive_is_delivered_without_it(
    wire: RelayHarness, answer: bytes, status: int
) -> None:
    wire.superlink.will("PullMessages", incoming(tree("m")))
    wire.superlink.will("PullObject", answer, status=status)
    came = wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT))
    assert (came.status, came.object) == (200, b"")


def test_an_object_that_never_arrives_is_not_waited_for_for_ever(
    wire: RelayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.exchange.relay.OBJECT_SECONDS", 0.05)
    wire.superlink.will("PullMessages", incoming(tree("m")))
    for _ in range(50):
        wire.superlink.will("PullObject", LATE)
    assert wire.call("AT", "PullMessages", REQUESTS["PullMessages"](AT)).object == b""


@pytest.mark.parametrize("method", ["PullObject", "PushObject", "ConfirmMessageReceived"])
def test_no_object_can_be_requested_by_name_from_outside(wire: RelayHarness, method: str) -> None:
    wire.bring("AT", AT, "m")
    named = PullObjectRequest(node=Node(node_id=AT), object_id="m")
    assert "is not forwarded" in wire.refused("AT", method, named)


def asked_for(*names: str) -> bytes:
    answer = PushMessagesResponse(objects_to_push=names, session_id="s")
    return bytes(answer.SerializeToString())


def stored(*, well: bool) -> bytes:
    return bytes(PushObjectResponse(stored=well).SerializeToString())


def refused_push(wire: RelayHarness, content: bytes, push: object) -> str:
    with pytest.raises(RelayRefused) as caught:
        wire.call("AT", "PushMessages", push, object=content)
    assert not wire.superlink.calls
    return str(caught.value)


def replies(wire: RelayHarness) -> int:
    return wire.relay.presence()["AT"].replies


def test_a_reply_is_accepted_with_its_object_in_one_call(wire: RelayHarness) -> None:
    wire.ask()
    wire.superlink.will("PushMessages", asked_for(NAME, "another"))
    wire.superlink.will("PushObject", stored(well=True))
    assert wire.push(CONTENT).status == 200
    assert wire.superlink.methods == ["PushMessages", "PushObject"]
    pushed = PushObjectRequest.FromString(wire.superlink.calls[1][1])
    assert (pushed.object_id, pushed.object_content) == (NAME, CONTENT)
    assert (pushed.session_id, pushed.node.node_id) == ("s", AT)
    assert replies(wire) == 1


@pytest.mark.parametrize("content", [b"", b"another", CONTENT + b"."])
def test_an_object_that_is_not_one_frame_is_not_pushed(wire: RelayHarness, content: bytes) -> None:
    wire.ask()
    assert "not one frame" in refused_push(wire, content, push_of(content))


def test_an_object_that_does_not_match_the_name_of_the_message_is_not_pushed(
    wire: RelayHarness,
) -> None:
    wire.ask()
    other = pack_frame(b"another", bytes(NONCE_BYTES))
    assert "not named by its object" in refused_push(wire, other, push_of(CONTENT))


def test_a_reply_that_the_superlink_has_already_counts_when_it_is_repeated(
    wire: RelayHarness,
) -> None:
    """The answer to the first call was lost, and the node repeats the call."""
    wire.ask()
    wire.superlink.will("PushMessages", asked_for())
    assert wire.push(CONTENT).status == 200
    assert wire.superlink.methods == ["PushMessages"]
    assert replies(wire) == 1


@pytest.mark.parametrize(
    ("pushed", "status"), [((401, b""), 401), ((200, stored(well=False)), 503), ((503, b""), 503)]
)
def test_a_reply_whose_object_is_not_stored_does_not_count(
    wire: RelayHarness, pushed: tuple[int, bytes], status: int
) -> None:
    wire.ask()
    wire.superlink.will("PushMessages", asked_for(NAME))
    wire.superlink.will("PushObject", pushed[1], status=pushed[0])
    assert wire.push(CONTENT) == CallReply(status, b"")
    assert replies(wire) == 0


def test_a_refused_message_does_not_count_and_its_object_is_not_pushed(
    wire: RelayHarness,
) -> None:
    wire.ask()
    wire.superlink.will("PushMessages", asked_for(NAME), status=401)
    assert wire.push(CONTENT).status == 401
    assert wire.superlink.methods == ["PushMessages"]
    assert replies(wire) == 0


def test_replies_and_sign_ins_wake_the_waiting_callers(wire: RelayHarness) -> None:
    wire.ask()
    assert wire.relay.changes.after(-1, 5) == 0
    wire.push(CONTENT)
    assert wire.relay.changes.after(0, 5) == 1
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert wire.relay.changes.after(1, 5) == 2
    assert wire.relay.changes.after(2, 0.01) == 2


@pytest.mark.parametrize("sources", [[BE], [AT, BE], [0], [AT, AT, 1]])
def test_no_message_is_pushed_in_the_name_of_another_node(
    wire: RelayHarness, sources: list[int]
) -> None:
    push = PushMessagesRequest(
        node=Node(node_id=AT),
        messages_list=[Message(metadata=Metadata(src_node_id=one)) for one in sources],
    )
    assert "another node's name" in wire.refused("AT", "PushMessages", push)


@pytest.mark.parametrize("count", [0, 2])
def test_a_push_must_contain_exactly_one_message(wire: RelayHarness, count: int) -> None:
    message = Message(metadata=Metadata(src_node_id=AT))
    push = PushMessagesRequest(node=Node(node_id=AT), messages_list=[message] * count)
    assert "one message" in wire.refused("AT", "PushMessages", push)


def test_a_new_session_ends_the_old_one_with_its_messages(wire: RelayHarness) -> None:
    wire.bring("AT", AT, "m")
    wire.relay.open_session("AT", 999, b"new key")
    look = PullMessagesRequest(node=Node(node_id=999))
    assert wire.call("AT", "PullMessages", look).body == b""
    wire.refused("AT", "PullMessages", REQUESTS["PullMessages"](AT))
    wire.refused("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert {c: one.node for c, one in wire.relay.presence().items()} == {"AT": 999, "BE": BE}


def test_a_node_is_online_from_its_activation_to_its_deactivation(wire: RelayHarness) -> None:
    assert wire.relay.online() == {"AT": False, "BE": False}
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    assert wire.relay.online() == {"AT": True, "BE": False}
    wire.call("AT", "DeactivateNode", REQUESTS["DeactivateNode"](AT))
    assert wire.relay.online()["AT"] is False


def test_a_silent_node_counts_as_offline_until_it_calls_again(wire: RelayHarness) -> None:
    wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))
    session = wire.relay._sessions["AT"]
    session.last_call -= ONLINE_SECONDS - 5
    assert wire.relay.online()["AT"] is True
    session.last_call -= 5
    assert wire.relay.online()["AT"] is False
    wire.call("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT))
    assert wire.relay.online()["AT"] is True


def test_a_node_calls_often_enough_to_count_as_online() -> None:
    """A heartbeat that is lost, or takes as long as a call may, does not make a node offline."""
    assert 4 * HEARTBEAT_SECONDS < ONLINE_SECONDS
    assert HEARTBEAT_SECONDS + CALL_SECONDS <= ONLINE_SECONDS


def test_a_refused_activation_is_not_online(wire: RelayHarness) -> None:
    wire.superlink.will("ActivateNode", status=401)
    assert wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))[0] == 401
    assert wire.relay.online()["AT"] is False


def test_a_node_that_crashed_is_activated_again(wire: RelayHarness) -> None:
    wire.superlink.will("ActivateNode", status=412)
    headers = {"flwr-signature": "s"}
    came = wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT), headers)
    assert came.status == 200
    assert wire.superlink.methods == ["ActivateNode", "DeactivateNode", "ActivateNode"]
    leave = DeactivateNodeRequest.FromString(wire.superlink.calls[1][1])
    assert leave.node_id == AT
    assert wire.superlink.calls[1][2] == headers
    assert wire.relay.online()["AT"] is True


def test_a_second_refusal_to_activate_is_passed_on(wire: RelayHarness) -> None:
    wire.superlink.will("ActivateNode", status=412)
    wire.superlink.will("ActivateNode", status=412)
    assert wire.call("AT", "ActivateNode", REQUESTS["ActivateNode"](AT))[0] == 412
    assert wire.relay.online()["AT"] is False


def test_sign_ins_of_a_copy_use_up_none_of_the_node_s(wire: RelayHarness) -> None:
    wire.call("AT", "SendNodeHeartbeat", REQUESTS["SendNodeHeartbeat"](AT))
    copy = bytes(SESSION_BYTES)
    request = REQUESTS["ActivateNode"](AT)
    statuses = [
        wire.call("AT", "ActivateNode", request, session=copy).status
        for _ in range(SIGN_INS_AT_ONCE + 1)
    ]
    assert statuses == [STILL_CONNECTED] * SIGN_INS_AT_ONCE + [SIGNED_IN_TOO_OFTEN]
    assert wire.call("AT", "ActivateNode", request).status == 200
