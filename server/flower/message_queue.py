"""Messages of one object each, over the own client of Flower's grid.

What a message carries is one ConfigRecord, whose hash is the message's name. Works on Flower's
internals (the grid's client, how an object is written down); flwr is pinned to 1.42.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_object_id

from protocols.wire.flower_frame import (
    FRAME,
    MAX_FRAME,
    MESSAGE_TYPE,
    NONCE,
    NONCE_BYTES,
)

OBJECT_SECONDS, OBJECT_PAUSE = 10.0, 0.02
"""How long a reply's object may follow after the reply, and how soon it is asked for again."""
AT_ONCE = 2
"""Objects under way; the SuperLink takes one call at a time, and more only wait in it."""
MESSAGE_LIFETIME = 3600.0


@dataclass(frozen=True)
class Received:
    """A reply: to which message, the frame it brings, or that it is an error of Flower's."""

    reply_to: str
    frame: bytes | None = None
    failed: bool = False


class MessageQueue:
    """The letter box of one server app."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._pool, self._background = ThreadPoolExecutor(AT_ONCE), ThreadPoolExecutor(1)
        self._read = SimpleQueue[str]()

    def push(self, letters: Sequence[tuple[int, bytes]]) -> list[str]:
        """Push a frame to each node; return names of messages, empty where Flower took none."""
        packed = [_packed(node, frame) for node, frame in letters]
        answer = self._client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message for message, _ in packed],
                message_object_trees=[
                    ObjectTree(object_id=message.metadata.message_id) for message, _ in packed
                ],
            )
        )
        contents = {message.metadata.message_id: content for message, content in packed}
        due = [(answer.session_id, name, contents[name]) for name in answer.objects_to_push]
        list(self._pool.map(self._push_object, due))
        self._forget_read()
        return list(answer.message_ids)

    def pull(self, names: Sequence[str]) -> list[Received]:
        """Return the replies that are there."""
        answer = self._client.PullMessages(PullAppMessagesRequest(message_ids=names))
        return list(self._pool.map(self._received, answer.messages_list))

    @property
    def _client(self) -> Any:
        return self._grid._runtime_client  # noqa: SLF001 (the pinned grid has no other way)

    @property
    def _place(self) -> dict[str, Any]:
        return {"node": self._grid.node, "run_id": self._grid.run.run_id}

    def _push_object(self, due: tuple[str, str, bytes]) -> None:
        session, name, content = due
        request = PushObjectRequest(
            **self._place, object_id=name, object_content=content, session_id=session
        )
        self._client.PushObject(request)

    def _received(self, message: ProtoMessage) -> Received:
        reply_to, name = message.metadata.reply_to_message_id, message.metadata.message_id
        failed = message.HasField("error")
        frame = None if failed else _frame(self._object(name))
        self._read.put(name)
        return Received(reply_to, frame, failed)

    def _forget_read(self) -> None:
        """Let the SuperLink forget what was read, while the nodes work on the next messages."""
        for _ in range(self._read.qsize()):
            confirm = ConfirmMessageReceivedRequest(
                **self._place, message_object_id=self._read.get()
            )
            self._background.submit(self._client.ConfirmMessageReceived, confirm)

    def _object(self, name: str) -> bytes:
        """Return an object's bytes; none where it does not come."""
        request = PullObjectRequest(**self._place, object_id=name)
        answer = self._client.PullObject(request)
        deadline = time.monotonic() + OBJECT_SECONDS
        while answer.object_found and not answer.object_available:
            if time.monotonic() > deadline:
                break
            time.sleep(OBJECT_PAUSE)
            answer = self._client.PullObject(request)
        content: bytes = answer.object_content
        return content


def _packed(node: int, frame: bytes) -> tuple[ProtoMessage, bytes]:
    """Return a message that is named by its one object, and that object."""
    content = ConfigRecord({FRAME: frame, NONCE: os.urandom(NONCE_BYTES)}).deflate()
    message = Message(RecordDict(), node, MESSAGE_TYPE, ttl=MESSAGE_LIFETIME)
    message.metadata.__dict__["_message_id"] = get_object_id(content)
    return message_to_proto(message), content


def _frame(content: bytes) -> bytes | None:
    """Return the frame in an object; None where it is another one, or holds none."""
    try:
        frame = ConfigRecord.inflate(content).get(FRAME)
    except Exception:  # noqa: BLE001 - whatever an object can do to Flower's reader: no frame
        return None
    return frame if isinstance(frame, bytes) and len(frame) <= MAX_FRAME else None
