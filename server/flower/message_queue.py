"""Pushes and pulls Flower messages of one object each, through the client inside Flower's grid.

The content of a message is one ConfigRecord, whose hash is the message's name. This uses Flower's
internals (the grid's client); flwr is pinned to 1.42.
"""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest

from protocols.wire.flower_frame import MESSAGE_TYPE, NONCE_BYTES, group_of
from protocols.wire.flower_object import object_name, pack_frame, unpack_frame

OBJECT_SECONDS, OBJECT_PAUSE = 10.0, 0.02
"""How long after a reply its object may arrive, and the pause between two requests for it."""
AT_ONCE = 2
"""Objects in transfer at once; the SuperLink serves one call at a time, so more would only wait."""
MESSAGE_LIFETIME = 3600.0


@dataclass(frozen=True)
class Received:
    """A reply to a message, with its frame; `failed` if it is an error message by Flower."""

    reply_to: str
    frame: bytes | None = None
    failed: bool = False


class MessageQueue:
    """The messages of one server app."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._pool, self._background = ThreadPoolExecutor(AT_ONCE), ThreadPoolExecutor(1)
        self._read = SimpleQueue[str]()

    def push(self, frames: Sequence[tuple[int, bytes]], largest_reply: int) -> list[str]:
        """Push each frame to its node; return the messages' names, empty if Flower refused one.

        The relay accepts no reply with a frame of more than `largest_reply` bytes.
        """
        packed = [_packed(node, frame, largest_reply) for node, frame in frames]
        answer = self._client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message for message, _ in packed],
                message_object_trees=[
                    ObjectTree(object_id=message.metadata.message_id) for message, _ in packed
                ],
            )
        )
        contents = {message.metadata.message_id: content for message, content in packed}
        objects = [(answer.session_id, name, contents[name]) for name in answer.objects_to_push]
        list(self._pool.map(self._push_object, objects))
        self._confirm_read()
        return list(answer.message_ids)

    def pull(self, names: Sequence[str]) -> list[Received]:
        """Return the replies to these messages that have arrived."""
        answer = self._client.PullMessages(PullAppMessagesRequest(message_ids=names))
        return list(self._pool.map(self._received, answer.messages_list))

    @property
    def _client(self) -> Any:
        return self._grid._runtime_client  # noqa: SLF001 (the pinned grid has no other way)

    @property
    def _run_fields(self) -> dict[str, Any]:
        return {"node": self._grid.node, "run_id": self._grid.run.run_id}

    def _push_object(self, item: tuple[str, str, bytes]) -> None:
        session, name, content = item
        request = PushObjectRequest(
            **self._run_fields, object_id=name, object_content=content, session_id=session
        )
        self._client.PushObject(request)

    def _received(self, message: ProtoMessage) -> Received:
        reply_to, name = message.metadata.reply_to_message_id, message.metadata.message_id
        failed = message.HasField("error")
        frame = None if failed else unpack_frame(self._object(name))
        self._read.put(name)
        return Received(reply_to, frame, failed)

    def delete(self, names: Iterable[str]) -> None:
        """Have the SuperLink delete the objects of these messages, in the background.

        A node that has its message already may still answer it.
        """
        for name in names:
            confirm = ConfirmMessageReceivedRequest(**self._run_fields, message_object_id=name)
            self._background.submit(self._client.ConfirmMessageReceived, confirm)

    def _confirm_read(self) -> None:
        """Have the SuperLink delete the replies that were read."""
        self.delete([self._read.get() for _ in range(self._read.qsize())])

    def _object(self, name: str) -> bytes:
        """Return an object's content; empty if it does not arrive in time."""
        request = PullObjectRequest(**self._run_fields, object_id=name)
        answer = self._client.PullObject(request)
        deadline = time.monotonic() + OBJECT_SECONDS
        while answer.object_found and not answer.object_available:
            if time.monotonic() > deadline:
                break
            time.sleep(OBJECT_PAUSE)
            answer = self._client.PullObject(request)
        content: bytes = answer.object_content
        return content


def _packed(node: int, frame: bytes, largest_reply: int) -> tuple[ProtoMessage, bytes]:
    """Return a message that is named by its only object, and that object."""
    content, group = pack_frame(frame, os.urandom(NONCE_BYTES)), group_of(largest_reply)
    message = Message(RecordDict(), node, MESSAGE_TYPE, ttl=MESSAGE_LIFETIME, group_id=group)
    message.metadata.__dict__["_message_id"] = object_name(content)
    return message_to_proto(message), content
