"""The Flower ClientApp of a node: receives a frame and returns the reply frame.

The daemon builds its app around its gate and door. A Flower bundle names `client.app:app`; in every
other process, that app has no records and answers nothing.
"""

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.errors import NodeFault
from protocols.errors import ReasonCode, Refusal
from protocols.wire.flower_frame import FRAME, MAX_FRAME, RECORD

FrameHandler = Callable[[bytes], bytes]


def build_app(handle: FrameHandler) -> ClientApp:
    """Return a ClientApp that passes each frame to `handle` and returns its reply."""
    app = ClientApp()

    @app.query()  # type: ignore[untyped-decorator]
    def query(message: Message, context: Context) -> Message:  # noqa: ARG001 (Flower requires this parameter)
        reply = ConfigRecord({FRAME: handle(frame_of(message))})
        return Message(RecordDict({RECORD: reply}), reply_to=message)

    return app


def frame_of(message: Message) -> bytes:
    """Return the frame in a message. Raises Refusal if there is none, or if it is too large."""
    record = message.content.get(RECORD) if message.has_content() else None
    frame = record.get(FRAME) if isinstance(record, ConfigRecord) else None
    if not isinstance(frame, bytes) or len(frame) > MAX_FRAME:
        raise Refusal(
            ReasonCode.MALFORMED,
            "A message arrived without a frame, or with a frame that is too large",
        )
    return frame


def _refuse_frame(frame: bytes) -> bytes:  # noqa: ARG001 (it answers no frame)
    raise NodeFault(
        "This app answers only in the daemon of a node",
        why="the bundle of a study is configuration only, and the daemon runs the tasks",
        fix="start the node with `pratique-node up`",
    )


app = build_app(_refuse_frame)
