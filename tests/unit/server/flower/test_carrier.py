"""Frames as Flower messages: late, invalid and repeated replies; nodes that leave and return."""

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.proto.error_pb2 import Error
from flwr.proto.message_pb2 import Message, Metadata, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.task_identity import TaskIdentity

from protocols.wire import flower_object as object_module
from protocols.wire.flower_frame import (
    FRAME,
    MAX_FRAME,
    MESSAGE_TYPE,
    NONCE,
    NONCE_BYTES,
    group_of,
)
from protocols.wire.flower_object import pack_frame, unpack_frame
from server.flower import carrier as carrier_module
from server.flower import message_queue as queue_module
from server.flower.carrier import FlowerCarrier
from server.flower.presence import Presence, PresenceChanges, PresenceUpdate
from tests.support.waiting import wait_until

NODES = {"AT": 11, "BE": 22}
RUN = 7


class FakeSuperLink:
    """A fake SuperLink and relay."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.objects: dict[str, bytes] = {}
        self.refused_nodes: set[int] = set()
        self.answer: Callable[[Message], list[tuple[Message, bytes]]] = lambda m: [reply(m, b"yes")]
        self.replies: dict[str, Message] = {}
        self.methods: list[str] = []
        self.pulls_without_object = 0
        self.changes = PresenceChanges()
        self.present = {c: Presence(node, 1, 0.0) for c, node in NODES.items()}
        self.announced: list[Sequence[str]] = []

    @property
    def grid(self) -> Any:
        node, run = Node(node_id=1), SimpleNamespace(run_id=RUN)
        return SimpleNamespace(_runtime_client=self, node=node, run=run)

    # what the SuperLink answers

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: N802
        self.methods.append("PushMessages")
        names, ids_to_push = [], []
        for message, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            name = message.metadata.message_id
            assert tree.object_id == name
            assert not tree.children
            accepted = message.metadata.dst_node_id not in self.refused_nodes
            names.append(name if accepted else "")
            ids_to_push += [name] if accepted else []
            self.sent += [message] if accepted else []
        return PushAppMessagesResponse(
            message_ids=names, objects_to_push=ids_to_push, session_id="s"
        )

    def PushObject(self, request: Any) -> None:  # noqa: N802
        self.methods.append("PushObject")
        assert get_object_id(request.object_content) == request.object_id
        assert (request.session_id, request.run_id) == ("s", RUN)
        self.objects[request.object_id] = request.object_content

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802
        self.methods.append("PullMessages")
        arrived = [
            m
            for m in self.replies.values()
            if m.metadata.reply_to_message_id in set(request.message_ids)
            or m.metadata.group_id == "stray"
        ]
        for message in arrived:
            del self.replies[message.metadata.message_id]
        return PullAppMessagesResponse(messages_list=arrived)

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        self.methods.append("PullObject")
        if self.pulls_without_object:
            self.pulls_without_object -= 1
            return PullObjectResponse(object_found=True)
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.methods.append("ConfirmMessageReceived")
        self.objects.pop(request.message_object_id, None)

    # the requests to the relay

    def announce(self, countries: Sequence[str]) -> None:
        self.announced.append(list(countries))
        for message in self.sent[-len(countries) :]:
            for answer, content in self.answer(message):
                self.reply_arrives(answer, content)

    def reply_arrives(self, message: Message, content: bytes) -> None:
        """Let a node's reply arrive."""
        name = message.metadata.message_id
        self.replies[name], self.objects[name] = message, content
        for country, node in NODES.items():
            if node == message.metadata.src_node_id:
                self.change(country, replies=self.present[country].replies + 1)

    def change(self, country: str, **fields: Any) -> None:
        old = vars(self.present[country])
        self.present = {**self.present, country: Presence(**{**old, **fields})}
        self.changes.note()

    def presence_update(self, count: int, seconds: float) -> PresenceUpdate:
        return PresenceUpdate(self.changes.after(count, seconds), self.present)


def reply(message: Message, frame: Any, record: Any = None) -> tuple[Message, bytes]:
    """Return a node's reply, and the object from which its id is computed."""
    packed = pack_frame(frame, bytes(NONCE_BYTES)) if record is None else record
    content = packed if isinstance(packed, bytes) else packed.deflate()
    metadata = Metadata(
        message_id=get_object_id(content + message.metadata.message_id.encode()),
        reply_to_message_id=message.metadata.message_id,
        src_node_id=message.metadata.dst_node_id,
    )
    return Message(metadata=metadata), content


def failed(message: Message) -> tuple[Message, bytes]:
    answer, _ = reply(message, b"")
    answer.error.CopyFrom(Error(code=1, reason="away"))
    return answer, b""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeSuperLink:
    for name in ("_run_id", "_node_id", "_task_id"):  # as in Flower's ServerApp process
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(carrier_module, "RECHECK_SECONDS", 0.1)
    return FakeSuperLink()


def exchanged(runtime: FakeSuperLink, seconds: float = 0.3) -> dict[str, bytes]:
    carrier = FlowerCarrier(runtime.grid, runtime)
    return dict(carrier.exchange({"AT": b"to AT", "BE": b"to BE"}, seconds, MAX_FRAME))


def test_each_country_gets_its_frame_and_its_reply_is_returned(runtime: FakeSuperLink) -> None:
    pushed: dict[int, bytes] = {}

    def answer(message: Message) -> list[tuple[Message, bytes]]:
        content = runtime.objects[message.metadata.message_id]
        pushed[message.metadata.dst_node_id] = ConfigRecord.inflate(content)[FRAME]
        return [reply(message, b"yes")]

    runtime.answer = answer
    assert exchanged(runtime) == {"AT": b"yes", "BE": b"yes"}
    assert pushed == {11: b"to AT", 22: b"to BE"}
    assert {m.metadata.message_type for m in runtime.sent} == {MESSAGE_TYPE}


def test_one_exchange_needs_few_calls(runtime: FakeSuperLink) -> None:
    """Each call costs milliseconds: one call for all messages, three for each country."""
    exchanged(runtime)
    assert runtime.methods.count("PushMessages") == runtime.methods.count("PullMessages") == 1
    for method in ("PushObject", "PullObject"):
        assert runtime.methods.count(method) == len(NODES)


def test_replies_that_were_read_are_deleted_while_the_next_messages_are_delivered(
    runtime: FakeSuperLink,
) -> None:
    carrier = FlowerCarrier(runtime.grid, runtime)
    for _ in range(3):
        carrier.exchange({"AT": b"x", "BE": b"y"}, 5, MAX_FRAME)
    carrier._queue._background.shutdown()
    calls = [name for name in runtime.methods if name in {"PushMessages", "ConfirmMessageReceived"}]
    assert calls.count("ConfirmMessageReceived") == 2 * len(NODES)
    assert calls[:2] == ["PushMessages", "PushMessages"]
    assert len(runtime.replies) == 0
    assert len([name for name in runtime.objects if name not in sent(runtime)]) == len(NODES)


def sent(runtime: FakeSuperLink) -> set[str]:
    return {message.metadata.message_id for message in runtime.sent}


def test_the_relay_is_notified_after_everything_was_pushed(runtime: FakeSuperLink) -> None:
    seen: list[list[str]] = []
    runtime.answer = lambda m: seen.append(list(runtime.methods)) or [reply(m, b"yes")]  # type: ignore[func-returns-value]
    exchanged(runtime)
    assert runtime.announced == [["AT", "BE"]]
    assert seen[0] == ["PushMessages", "PushObject", "PushObject"]


def test_nothing_is_pulled_until_every_country_has_replied(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "RECHECK_SECONDS", 30.0)
    runtime.answer = answering("BE")
    threading.Timer(0.1, lambda: runtime.reply_arrives(*reply(runtime.sent[1], b"late"))).start()
    assert exchanged(runtime, 30) == {"AT": b"yes", "BE": b"late"}
    assert runtime.methods.count("PullMessages") == 1


def test_a_reply_without_a_notification_is_pulled_nevertheless(runtime: FakeSuperLink) -> None:
    carrier = FlowerCarrier(runtime.grid, runtime)
    runtime.answer = lambda _: []

    def arrive() -> None:
        message, content = reply(runtime.sent[0], b"unannounced")
        name = message.metadata.message_id
        runtime.replies[name], runtime.objects[name] = message, content

    threading.Timer(0.05, arrive).start()
    assert carrier.exchange({"AT": b"x"}, 10, MAX_FRAME) == {"AT": b"unannounced"}


RECORD_WITHOUT_VALUE = b"ConfigRecord  9\x00\n\x07\n\x05frame"
"""A record that names a frame without a value, which Flower cannot read."""


def answering(
    country: str, *answers: Callable[[Message], Any]
) -> Callable[[Message], list[tuple[Message, bytes]]]:
    def answer(message: Message) -> list[tuple[Message, bytes]]:
        if message.metadata.dst_node_id == NODES[country]:
            return [make_reply(message) for make_reply in answers]
        return [reply(message, b"yes")]

    return answer


@pytest.mark.parametrize(
    "bad_reply",
    [
        lambda m: reply(m, None, ConfigRecord({"x": b"y"})),
        lambda m: reply(m, None, ArrayRecord()),
        lambda m: reply(m, None, b""),
        lambda m: reply(m, None, b"\xff" * 30),
        lambda m: reply(m, None, RECORD_WITHOUT_VALUE),
        lambda m: reply(m, None, ConfigRecord({FRAME: "text", NONCE: bytes(NONCE_BYTES)})),
        lambda m: reply(m, None, ConfigRecord({FRAME: b"x"})),
    ],
)
def test_a_reply_without_a_frame_is_no_reply_and_is_not_waited_for(
    runtime: FakeSuperLink, bad_reply: Callable[[Message], Any]
) -> None:
    runtime.answer = answering("BE", bad_reply)
    started = time.monotonic()
    assert exchanged(runtime, 30) == {"AT": b"yes"}
    assert time.monotonic() - started < 5


def test_a_frame_over_the_limit_is_no_reply(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vars(object_module)["MAX_FRAME"] == MAX_FRAME
    monkeypatch.setattr(object_module, "MAX_FRAME", 10)
    runtime.answer = answering("BE", lambda m: reply(m, bytes(11)))
    assert exchanged(runtime) == {"AT": b"yes"}
    runtime.answer = answering("BE", lambda m: reply(m, bytes(10)))
    assert exchanged(runtime)["BE"] == bytes(10)


def test_a_late_object_is_requested_again(runtime: FakeSuperLink) -> None:
    runtime.pulls_without_object = 3
    assert exchanged(runtime, 10) == {"AT": b"yes", "BE": b"yes"}


def test_an_object_that_never_comes_is_no_reply(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "OBJECT_SECONDS", 0.05)
    runtime.pulls_without_object = 10**6
    assert exchanged(runtime, 10) == {}


def test_a_silent_country_is_waited_for_the_given_time(runtime: FakeSuperLink) -> None:
    runtime.answer = answering("BE")
    started = time.monotonic()
    assert exchanged(runtime, 0.3) == {"AT": b"yes"}
    assert 0.3 <= time.monotonic() - started < 5


def test_the_first_of_two_replies_counts(runtime: FakeSuperLink) -> None:
    runtime.answer = answering("BE", lambda m: reply(m, b"first"), lambda m: reply(m, b"second"))
    assert exchanged(runtime)["BE"] == b"first"


def test_a_reply_to_a_message_that_nobody_waits_for_is_ignored(runtime: FakeSuperLink) -> None:
    def stray(message: Message) -> tuple[Message, bytes]:
        answer, content = reply(message, b"stale")
        answer.metadata.reply_to_message_id, answer.metadata.group_id = "m999", "stray"
        return answer, content

    runtime.answer = answering("BE", stray, lambda m: reply(m, b"fresh"))
    assert exchanged(runtime) == {"AT": b"yes", "BE": b"fresh"}


def test_a_reply_to_the_last_exchange_does_not_count_in_the_next(runtime: FakeSuperLink) -> None:
    carrier = FlowerCarrier(runtime.grid, runtime)
    runtime.answer = lambda _: []
    assert carrier.exchange({"AT": b"1"}, 0.05, MAX_FRAME) == {}
    runtime.reply_arrives(*reply(runtime.sent[0], b"late"))
    assert carrier.exchange({"AT": b"2"}, 0.2, MAX_FRAME) == {}


def test_a_message_that_flower_refused_has_no_reply(runtime: FakeSuperLink) -> None:
    runtime.refused_nodes = {22}
    assert exchanged(runtime) == {"AT": b"yes"}


def test_an_exchange_without_frames_ends_at_once(runtime: FakeSuperLink) -> None:
    assert FlowerCarrier(runtime.grid, runtime).exchange({}, 30, MAX_FRAME) == {}
    assert runtime.methods == []


def test_a_node_that_signs_in_again_gets_the_same_bytes_again(runtime: FakeSuperLink) -> None:
    runtime.answer = lambda m: [] if len(runtime.sent) <= 2 else [reply(m, b"again")]
    threading.Timer(0.05, lambda: runtime.change("BE", sign_ins=2)).start()
    carrier = FlowerCarrier(runtime.grid, runtime)
    started = time.monotonic()
    assert carrier.exchange({"BE": b"frame", "AT": b"other"}, 1, MAX_FRAME) == {"BE": b"again"}
    assert time.monotonic() - started < 10
    assert runtime.announced[1] == ["BE"]
    first, again = (m.metadata for m in runtime.sent if m.metadata.dst_node_id == NODES["BE"])
    assert first.message_id != again.message_id
    wait_until(lambda: first.message_id not in runtime.objects)  # its node gets the new copy
    assert unpack_frame(runtime.objects[again.message_id]) == b"frame"


def test_each_message_states_how_large_its_reply_may_be(runtime: FakeSuperLink) -> None:
    exchanged(runtime)
    assert {message.metadata.group_id for message in runtime.sent} == {group_of(MAX_FRAME)}


def test_the_nodes_of_a_new_superlink_are_asked_under_their_new_ids(runtime: FakeSuperLink) -> None:
    runtime.answer = lambda m: [reply(m, b"new")] if m.metadata.dst_node_id == 99 else []
    fields = {"node": 99, "sign_ins": 1}
    threading.Timer(0.05, lambda: runtime.change("AT", **fields)).start()
    assert FlowerCarrier(runtime.grid, runtime).exchange({"AT": b"x"}, 10, MAX_FRAME) == {
        "AT": b"new"
    }


def test_a_country_that_is_gone_is_not_waited_for(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.answer = answering("BE")
    runtime.change("BE", silent=carrier_module.ABSENT_SECONDS + 1)
    started = time.monotonic()
    assert exchanged(runtime, 30) == {"AT": b"yes"}
    assert time.monotonic() - started < 10


def test_a_country_known_to_be_gone_gets_no_message_and_no_further_wait(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "RECHECK_SECONDS", 30.0)
    runtime.change("BE", silent=carrier_module.ABSENT_SECONDS + 1)
    carrier = FlowerCarrier(runtime.grid, runtime)
    started = time.monotonic()
    assert carrier.exchange({"AT": b"x", "BE": b"y"}, 60, MAX_FRAME) == {"AT": b"yes"}
    assert carrier.exchange({"BE": b"y"}, 60, MAX_FRAME) == {}
    assert time.monotonic() - started < 10
    assert {message.metadata.dst_node_id for message in runtime.sent} == {11}


def test_a_country_that_was_gone_is_asked_when_it_calls_again(runtime: FakeSuperLink) -> None:
    """Only the link was broken and the node kept running, so it does not sign in again."""
    runtime.answer = lambda m: [reply(m, b"back")] if m.metadata.dst_node_id == 22 else []
    runtime.change("BE", silent=carrier_module.ABSENT_SECONDS + 1)
    carrier = FlowerCarrier(runtime.grid, runtime)
    assert carrier.exchange({"BE": b"y"}, 10, MAX_FRAME) == {}
    runtime.change("BE", silent=0.1)
    assert carrier.exchange({"BE": b"y"}, 10, MAX_FRAME) == {"BE": b"back"}


def test_a_country_without_a_session_is_waited_for_once_and_not_each_time(
    runtime: FakeSuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "ABSENT_SECONDS", 0.5)
    carrier = FlowerCarrier(runtime.grid, runtime)
    assert carrier.exchange({"AT": b"x", "ZZ": b"y"}, 60, MAX_FRAME) == {"AT": b"yes"}
    pulls = runtime.methods.count("PullMessages")
    assert pulls > 1
    assert carrier.exchange({"AT": b"x", "ZZ": b"y"}, 60, MAX_FRAME) == {"AT": b"yes"}
    assert runtime.methods.count("PullMessages") == pulls + 1


def test_a_late_reply_is_dropped_and_logged(
    runtime: FakeSuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pratique.run")
    carrier = FlowerCarrier(runtime.grid, runtime)
    runtime.answer = answering("BE")
    assert carrier.exchange({"AT": b"x", "BE": b"y"}, 0.2, MAX_FRAME) == {"AT": b"yes"}
    runtime.reply_arrives(*reply(runtime.sent[1], b"late"))
    runtime.answer = lambda m: [reply(m, b"yes")]
    assert carrier.exchange({"AT": b"x"}, 10, MAX_FRAME) == {"AT": b"yes"}
    assert [(r.message, r.country) for r in caplog.records] == [  # type: ignore[attr-defined]
        ("reply not used, for it came too late", "BE")
    ]
    assert not runtime.replies
    assert not carrier._late


def test_an_error_from_flower_is_not_a_reply_of_the_country(runtime: FakeSuperLink) -> None:
    """Flower sends this error for a node that was away; the node is asked again."""
    answers: dict[int, list[bytes | None]] = {11: [b"yes"], 22: [None, b"back"]}

    def answer(message: Message) -> list[tuple[Message, bytes]]:
        reply_to_send = answers[message.metadata.dst_node_id].pop(0)
        return [failed(message) if reply_to_send is None else reply(message, reply_to_send)]

    runtime.answer = answer
    assert exchanged(runtime, 10) == {"AT": b"yes", "BE": b"back"}


def test_after_an_error_reply_there_is_a_pause_before_the_next_request(
    runtime: FakeSuperLink,
) -> None:
    """Otherwise a node that sends this error would be sent the model without pause."""
    runtime.answer = answering("BE", failed)
    assert exchanged(runtime, 1.0) == {"AT": b"yes"}
    assert len(runtime.sent) <= len(NODES) + 1.0 / carrier_module.RETRY_SECONDS
