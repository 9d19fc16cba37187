"""The app answers a frame with a frame; a message without a frame is refused."""

import time

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata

import client.app
from client.app import build_app, frame_of
from client.errors import NodeFault
from protocols.errors import ReasonCode, Refusal
from protocols.wire.flower_frame import FRAME, MAX_FRAME, RECORD


def message(content: RecordDict) -> Message:
    metadata = Metadata(
        run_id=5,
        message_id="m",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type="query",
    )
    return make_message(metadata=metadata, content=content)


def framed(frame: bytes) -> Message:
    return message(RecordDict({RECORD: ConfigRecord({FRAME: frame})}))


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def test_the_app_passes_the_frame_on_and_returns_the_reply() -> None:
    app = build_app(lambda frame: frame[::-1])
    assert frame_of(app(framed(b"abc"), context())) == b"cba"


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({RECORD: ConfigRecord({})}),
        RecordDict({RECORD: ConfigRecord({FRAME: "text"})}),
        RecordDict({RECORD: MetricRecord({FRAME: 1.0})}),
        RecordDict({"other": ConfigRecord({FRAME: b"abc"})}),
    ],
)
def test_a_message_without_a_frame_is_refused(content: RecordDict) -> None:
    with pytest.raises(Refusal) as refused:
        frame_of(message(content))
    assert refused.value.code is ReasonCode.MALFORMED


def test_a_frame_that_is_too_large_is_refused() -> None:
    assert len(frame_of(framed(bytes(MAX_FRAME)))) == MAX_FRAME
    with pytest.raises(Refusal):
        frame_of(framed(bytes(MAX_FRAME + 1)))


def test_outside_a_daemon_the_app_answers_nothing() -> None:
    with pytest.raises(NodeFault, match="only in the daemon of a node"):
        client.app.app(framed(b"abc"), context())
