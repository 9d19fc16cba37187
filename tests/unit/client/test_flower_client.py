"""The warm Flower client over a scripted exchange: what it sends, answers and ignores."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from client import flower_client
from client.app import app as installed_app
from client.app import build_app, frame_of
from client.errors import NodeFault
from client.fleet_faults import status_fault
from client.flower_client import FleetClient
from client.state.incarnation import Incarnation
from keys.certificates import new_node_auth_key
from protocols.errors import ReasonCode, Refusal
from protocols.proto.exchange_pb2 import RelayReply, RelayRequest
from protocols.wire import flower_frame
from protocols.wire.channel import LinkFault
from protocols.wire.exchange_clock import TIME_KEY, ExchangeClock
from protocols.wire.flower_frame import (
    FLEET_CALLS,
    FRAME,
    IDENTITY_IN_USE,
    LARGEST_BODY,
    MESSAGE_TYPE,
    NONCE_BYTES,
    RECORD,
    SESSION_ENDED,
)
from protocols.wire.flower_object import pack_frame
from tests.support.waiting import wait_until

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEY = load_pem_private_key(new_node_auth_key()[0], None)
NODE_ID = 77
HERE = Incarnation(3, b"session, 16 long", b"f" * 32)


class ScriptedLink:
    """An exchange that answers a node's calls from a script."""

    def __init__(self) -> None:
        self.requests: list[RelayRequest] = []
        self.clock = ExchangeClock(lambda: NOW)
        self.stops: dict[str, threading.Event | None] = {}
        self.answers: dict[str, Callable[[], RelayReply]] = {
            "ActivateNode": lambda: RelayReply(
                status=200, body=ActivateNodeResponse(node_id=NODE_ID).SerializeToString()
            ),
            "SendNodeHeartbeat": lambda: RelayReply(
                status=200, body=SendNodeHeartbeatResponse(success=True).SerializeToString()
            ),
        }

    def relay(
        self, request: RelayRequest, seconds: float, stop: threading.Event | None
    ) -> RelayReply:
        self.requests.append(request)
        assert (seconds > flower_frame.LONG_POLL_SECONDS) == (request.method != "DeactivateNode")
        self.stops[request.method] = stop
        return self.answers.get(request.method, lambda: RelayReply(status=200))()

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    @property
    def without_heartbeats(self) -> list[str]:
        return [method for method in self.methods if method != "SendNodeHeartbeat"]


def raising(fault: Exception) -> Callable[[], RelayReply]:
    def answer() -> RelayReply:
        raise fault

    return answer


@pytest.fixture
def link() -> ScriptedLink:
    return ScriptedLink()


def client_of(link: ScriptedLink, **more: Any) -> FleetClient:
    return FleetClient(link, KEY, build_app(lambda frame: frame), HERE, **more)  # type: ignore[arg-type]


def served(link: ScriptedLink, polls: int = 2) -> None:
    """Serve for this number of polls."""
    stop, left = threading.Event(), [polls]

    def poll() -> RelayReply:
        left[0] -= 1
        if not left[0]:
            stop.set()
        return RelayReply(status=200)

    link.answers["PullMessages"] = poll
    client_of(link).serve(stop)


def test_a_node_signs_in_pulls_and_signs_off(link: ScriptedLink) -> None:
    served(link)
    assert link.without_heartbeats == [
        "ActivateNode", "PullMessages", "PullMessages", "DeactivateNode",
    ]  # fmt: skip
    assert set(link.methods) <= set(FLEET_CALLS)


def test_only_held_calls_are_interrupted_when_the_node_stops(
    link: ScriptedLink,
) -> None:
    served(link)
    looking, beating = link.stops.pop("PullMessages"), link.stops.pop("SendNodeHeartbeat")
    assert looking is not None
    assert looking.is_set()
    assert beating is not None
    assert beating.is_set()
    assert set(link.stops.values()) == {None}


def test_only_headers_of_flower_are_sent_and_each_call_is_signed(link: ScriptedLink) -> None:
    served(link)
    versions = set(dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()))
    for request in link.requests:
        names = set(request.headers)
        assert all(name.startswith("flwr-") for name in names)
        assert versions <= names
        assert any("signature" in name for name in names)


def test_readiness_is_reported_after_the_sign_in(link: ScriptedLink) -> None:
    methods_at_sign_in: list[list[str]] = []
    link.answers["PullMessages"] = raising(LinkFault("gone"))
    with pytest.raises(LinkFault):
        client_of(link, on_ready=lambda: methods_at_sign_in.append(link.methods)).serve(
            threading.Event()
        )
    assert methods_at_sign_in == [["ActivateNode"]]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 500, 503])
@pytest.mark.parametrize("method", ["ActivateNode", "PullMessages"])
def test_a_refusal_of_the_superlink_is_a_link_fault(
    link: ScriptedLink, method: str, status: int
) -> None:
    link.answers[method] = lambda: RelayReply(status=status, body=b"no")
    with pytest.raises(LinkFault) as caught:
        client_of(link).serve(threading.Event())
    assert caught.value.what
    assert caught.value.why


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 50,
        b'{"detail": "Incompatible Flower runtime versions"}',
        b'{"code": 2004, "message": "x", "public_details": "Upgrade Flower"}',
        b"incompatible flwr version; exit now",
    ],
)
def test_no_answer_of_the_coordinator_ends_the_process(link: ScriptedLink, body: bytes) -> None:
    """Flower's own interceptor would call exit on some of these."""
    link.answers["PullMessages"] = lambda: RelayReply(status=412, body=body)
    with pytest.raises(LinkFault):
        client_of(link).serve(threading.Event())


def test_the_interceptor_of_flower_that_ends_the_process_is_not_used(link: ScriptedLink) -> None:
    assert "RuntimeVersionHttpInterceptor" not in vars(flower_client)
    kinds = [type(one).__name__ for one in client_of(link)._client._interceptors]
    assert kinds == ["RuntimeVersion", "SignedTime", "RelayTransport"]


def test_a_lost_link_ends_the_service_and_the_sign_off_is_tried(link: ScriptedLink) -> None:
    fault = LinkFault("gone")
    link.answers["PullMessages"] = raising(fault)
    link.answers["DeactivateNode"] = raising(fault)
    with pytest.raises(LinkFault) as caught:
        client_of(link).serve(threading.Event())
    assert caught.value is fault
    assert link.methods[-1] == "DeactivateNode"


@pytest.mark.parametrize(
    "beat",
    [
        RelayReply(status=IDENTITY_IN_USE),
        RelayReply(status=SESSION_ENDED),
        RelayReply(status=200, body=SendNodeHeartbeatResponse(success=False).SerializeToString()),
    ],
)
def test_a_refused_heartbeat_ends_the_connection_and_says_why(
    link: ScriptedLink, beat: RelayReply
) -> None:
    """So the daemon signs in again, instead of believing that it is connected."""
    link.answers["SendNodeHeartbeat"] = lambda: beat

    def pull() -> RelayReply:
        interruption = link.stops["PullMessages"]
        wait_until(lambda: interruption is not None and interruption.is_set())
        raise LinkFault("The call was cancelled")

    link.answers["PullMessages"] = pull
    with pytest.raises(LinkFault) as caught:
        client_of(link).serve(threading.Event())
    status = IDENTITY_IN_USE if beat.status == IDENTITY_IN_USE else SESSION_ENDED
    assert caught.value.sentence == status_fault(status).sentence
    assert link.methods[-1] == "DeactivateNode"


def test_every_call_shows_the_session_and_the_sign_in_its_start(link: ScriptedLink) -> None:
    served(link)
    assert {request.session for request in link.requests} == {HERE.session}
    signs_in, *others = link.requests
    assert (signs_in.incarnation, signs_in.former) == (HERE.number, HERE.former)
    assert {(request.incarnation, request.former) for request in others} == {(0, b"")}


def test_each_answer_says_whether_another_machine_has_the_identity(link: ScriptedLink) -> None:
    standings: list[bool] = []
    signed_in = link.answers["ActivateNode"]()
    link.answers["ActivateNode"] = lambda: RelayReply(
        status=200, body=signed_in.body, disputed=True
    )
    stop = threading.Event()
    stop.set()
    client_of(link, on_standing=standings.append).serve(stop)
    assert standings[0] is True


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("PullMessages", RelayReply(status=200, body=bytes(LARGEST_BODY + 1))),
        ("ActivateNode", RelayReply(status=200, body=bytes(LARGEST_BODY + 1))),
        ("ActivateNode", RelayReply(status=200, object=b"x")),
    ],
)
def test_an_answer_that_no_superlink_gives_is_not_read(
    link: ScriptedLink, method: str, reply: RelayReply
) -> None:
    link.answers[method] = lambda: reply
    with pytest.raises(LinkFault, match="cannot be one of its SuperLink"):
        client_of(link).serve(threading.Event())


def test_a_lost_heartbeat_alone_ends_nothing(
    link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_client, "HEARTBEAT_SECONDS", 0.02)
    stop, beats = threading.Event(), []

    def beat() -> RelayReply:
        beats.append(1)
        if len(beats) == 3:
            stop.set()
        raise LinkFault("gone")

    link.answers["SendNodeHeartbeat"] = beat
    link.answers["PullMessages"] = lambda: RelayReply(status=200, body=_later(stop))
    client_of(link).serve(stop)
    assert len(beats) >= 3


def _later(stop: threading.Event) -> bytes:
    stop.wait(0.05)
    return b""


def incoming(client: FleetClient, monkeypatch: pytest.MonkeyPatch, app: Any) -> list[Any]:
    """Deliver one message; return what the client pushes in reply."""
    pushed: list[Any] = []
    client._app = app
    monkeypatch.setattr(client, "_pull", lambda _: arrival(b"x"))
    monkeypatch.setattr(client, "_push", lambda *given: pushed.append(given))
    client._answer_next(Node(node_id=NODE_ID))
    return pushed


def arrival(frame: bytes) -> Message:
    metadata = Metadata(
        run_id=5,
        message_id="m",
        src_node_id=1,
        dst_node_id=NODE_ID,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=MESSAGE_TYPE,
    )
    content = RecordDict({RECORD: ConfigRecord({FRAME: frame})})
    return make_message(metadata=metadata, content=content)


def test_a_reply_is_pushed(link: ScriptedLink, monkeypatch: pytest.MonkeyPatch) -> None:
    ((node, reply),) = incoming(client_of(link), monkeypatch, lambda *_: "reply")
    assert (node.node_id, reply) == (NODE_ID, "reply")


VALUELESS = b"ConfigRecord  9\x00\n\x07\n\x05frame"
"""A record that names a frame without a value, at which Flower's reader fails."""


def framed(frame: bytes) -> bytes:
    return pack_frame(frame, b"\1" * NONCE_BYTES)


def brought(record: ConfigRecord | bytes, **changes: Any) -> RelayReply:
    """Return a relay's answer with a message in one object; `changes` alter the message."""
    content = record if isinstance(record, bytes) else record.deflate()
    head = arrival(b"")
    name = head.metadata.__dict__["_message_id"] = changes.pop("name", get_object_id(content))
    message = message_to_proto(make_message(metadata=head.metadata, content=RecordDict()))
    message.metadata.message_type = changes.pop("message_type", MESSAGE_TYPE)
    trees = changes.pop("trees", [ObjectTree(object_id=name)])
    body = PullMessagesResponse(
        messages_list=[message] * changes.pop("times", 1), message_object_trees=trees
    ).SerializeToString()
    return RelayReply(status=200, body=body, object=changes.pop("object", content))


def pulls(link: ScriptedLink, first: RelayReply, count: int = 2) -> list[RelayRequest]:
    """Serve until `count` pulls were made, the first of which gets `first`; return them."""
    stop, answers = threading.Event(), iter([first])

    def pull() -> RelayReply:
        if link.methods.count("PullMessages") >= count:
            stop.set()
        return next(answers, RelayReply(status=200))

    link.answers["PullMessages"] = pull
    client_of(link).serve(stop)
    return [request for request in link.requests if request.method == "PullMessages"]


def test_a_frame_is_answered_in_two_calls(link: ScriptedLink) -> None:
    first, second = pulls(link, brought(framed(b"hello")))
    assert link.without_heartbeats[1:-1] == ["PullMessages", "PushMessages", "PullMessages"]
    pushed = next(request for request in link.requests if request.method == "PushMessages")
    (said,) = PushMessagesRequest.FromString(pushed.body).messages_list
    assert said.metadata.message_id == get_object_id(pushed.object)
    assert said.metadata.reply_to_message_id == second.received
    assert ConfigRecord.inflate(pushed.object)[FRAME] == b"hello"
    assert first.received == ""
    assert not any(one.object for one in link.requests if one is not pushed)


def test_the_same_reply_twice_is_two_messages(link: ScriptedLink) -> None:
    """Flower would treat the second as the first, which may be deleted by then."""
    message = brought(framed(b"hello"))
    pulls(link, message, 2)
    pulls(link, message, 4)
    objects = [one.object for one in link.requests if one.method == "PushMessages"]
    assert len(set(objects)) == 2


def test_the_receipt_of_a_message_is_reported_once(link: ScriptedLink) -> None:
    received = [one.received for one in pulls(link, brought(framed(b"x")), 3)]
    assert [bool(one) for one in received] == [False, True, False]


@pytest.mark.parametrize(
    "first",
    [
        brought(framed(b"x"), object=b""),
        brought(framed(b"x"), object=b"\xff" * 40),
        brought(framed(b"x"), object=framed(b"y")),
        brought(framed(b"x"), name="0" * 64),
        brought(framed(b"x"), trees=[]),
        brought(framed(b"x"), trees=[ObjectTree(object_id="0" * 64)]),
        brought(framed(b"x"), trees=[ObjectTree(object_id="0" * 64)] * 2),
        brought(framed(b"x"), times=2),
        brought(framed(b"x"), message_type="no-such-type"),
        brought(ConfigRecord({"other": b"x"})),
        brought(ConfigRecord({FRAME: b"x"})),
        brought(ConfigRecord({FRAME: "text"})),
        brought(framed(b"x"), object=VALUELESS, name=get_object_id(VALUELESS)),
    ],
)
def test_an_object_that_is_no_frame_of_its_message_is_received_and_not_answered(
    link: ScriptedLink, first: RelayReply
) -> None:
    _, second = pulls(link, first)
    assert second.received
    assert "PushMessages" not in link.methods


@pytest.mark.parametrize(
    "fault", [Refusal(ReasonCode.MALFORMED, "no frame"), ValueError("CANARY of a record")]
)
def test_a_message_of_another_program_is_not_answered_and_not_logged(
    link: ScriptedLink,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    def app(*_: object) -> None:
        raise fault

    with caplog.at_level(logging.WARNING, "pratique.fleet"):
        assert incoming(client_of(link), monkeypatch, app) == []
    (record,) = caplog.records
    assert record.what == type(fault).__name__  # type: ignore[attr-defined]
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("method", ["ActivateNode", "PullMessages"])
def test_an_answer_that_is_no_message_of_flower_is_a_fault_of_the_link(
    link: ScriptedLink, method: str
) -> None:
    link.answers[method] = lambda: RelayReply(status=200, body=b"\xff\xff")
    with pytest.raises(LinkFault, match="cannot be one of its SuperLink"):
        client_of(link).serve(threading.Event())


# client.app


class ReceivedMessage:
    """A message as an app receives it."""

    def __init__(self, content: RecordDict | None) -> None:
        self.content = content

    def has_content(self) -> bool:
        return self.content is not None


def message(frame: Any) -> Message:
    return ReceivedMessage(RecordDict({RECORD: ConfigRecord({FRAME: frame})}))


def test_the_frame_of_a_message_is_its_bytes() -> None:
    assert frame_of(message(b"frame")) == b"frame"
    assert frame_of(message(b"")) == b""


@pytest.mark.parametrize(
    "came",
    [
        ReceivedMessage(None),
        ReceivedMessage(RecordDict()),
        ReceivedMessage(RecordDict({"other": ConfigRecord({FRAME: b"x"})})),
        ReceivedMessage(RecordDict({RECORD: ConfigRecord({"other": b"x"})})),
        message("text"),
        message(1),
        message([b"x"]),
    ],
)
def test_a_message_without_a_frame_is_refused(came: Any) -> None:
    with pytest.raises(Refusal) as caught:
        frame_of(came)
    assert caught.value.code is ReasonCode.MALFORMED


def test_a_frame_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.app.MAX_FRAME", 10)
    assert frame_of(message(bytes(10))) == bytes(10)
    with pytest.raises(Refusal):
        frame_of(message(bytes(11)))


def test_the_app_answers_queries_and_nothing_else() -> None:
    assert set(build_app(lambda frame: frame)._registered_funcs) == {f"{MESSAGE_TYPE}.default"}


def test_the_app_that_a_bundle_names_has_no_records() -> None:
    query = installed_app._registered_funcs[f"{MESSAGE_TYPE}.default"]
    with pytest.raises(NodeFault, match="only in the daemon of a node") as caught:
        query(message(b"x"), None)
    assert caught.value.fix


def stated(link: ScriptedLink, offset: timedelta) -> None:
    link.clock.note([(TIME_KEY, (NOW + offset).isoformat())], timedelta())


@pytest.mark.parametrize("offset", [timedelta(seconds=-10), timedelta(minutes=4), timedelta()])
def test_the_signed_time_is_the_exchange_s(link: ScriptedLink, offset: timedelta) -> None:
    stated(link, offset)
    served(link)
    times = {request.headers[TIMESTAMP_HEADER] for request in link.requests}
    assert times == {(NOW + offset).isoformat()}


def test_a_sign_in_is_repeated_once_the_answer_shows_the_difference(link: ScriptedLink) -> None:
    admitted = link.answers["ActivateNode"]

    def refuse() -> RelayReply:
        stated(link, timedelta(seconds=-10))
        link.answers["ActivateNode"] = admitted
        return RelayReply(status=401)

    link.answers["ActivateNode"] = refuse
    served(link)
    assert link.methods[:2] == ["ActivateNode", "ActivateNode"]
    assert "PullMessages" in link.methods


@pytest.mark.parametrize("offset", [timedelta(), timedelta(seconds=-10)])
def test_another_refusal_is_not_repeated(link: ScriptedLink, offset: timedelta) -> None:
    stated(link, offset)
    link.answers["ActivateNode"] = lambda: RelayReply(status=401)
    with pytest.raises(LinkFault, match="refused a call"):
        client_of(link).serve(threading.Event())
    assert link.methods == ["ActivateNode"]


@pytest.mark.parametrize(("minutes", "words"), [(26, "behind"), (-26, "ahead of")])
def test_a_clock_beyond_the_tolerance_is_named_and_nothing_is_sent(
    link: ScriptedLink, minutes: int, words: str
) -> None:
    stated(link, timedelta(minutes=minutes))
    with pytest.raises(LinkFault) as caught:
        client_of(link).serve(threading.Event())
    assert f"about 26 minutes {words} the exchange's" in caught.value.what
    assert "about 5 minutes" in caught.value.why
    assert "NTP" in caught.value.fix
    assert link.methods == []


@pytest.mark.parametrize("variable", ["ALL_PROXY", "https_proxy", "HTTP_PROXY"])
def test_no_proxy_of_the_environment_reaches_flower(
    link: ScriptedLink, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Flower's own client ends with ImportError at a SOCKS proxy."""
    monkeypatch.setenv(variable, "socks5://127.0.0.1:9")
    served(link)
    assert link.methods[-1] == "DeactivateNode"


def test_every_call_over_the_link_states_the_session_of_this_process() -> None:
    """Otherwise the node's renewals are refused, and its calls count as those of a copy."""
    link = ScriptedLink()
    client_of(link)
    assert link.session == HERE.session  # type: ignore[attr-defined]
