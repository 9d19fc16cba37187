"""Observe one node: the shape of every message, log line, reply slot and metric."""

import logging
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import generate_latest

from client.border.reply_timing import ReplySlots
from client.node import Node
from client.status.health import NodeHealth
from protocols.proto.round_pb2 import Phase, Reply
from protocols.proto.round_pb2 import Request as Envelope
from tests.support.node_federation import NodeFederation, code_of, log_lines


@dataclass
class ObservedNode:
    """A node, and everything that can be observed of it, in order."""

    node: Node
    vitals: NodeHealth
    observations: list[Any] = field(default_factory=list)

    def handle(self, frame: bytes) -> bytes:
        reply = self.node.handle(frame)
        self.vitals.count_reply(frame, reply, 0.0)
        self.observations.append(("sent", *shape_of(frame), content_of(reply), len(reply)))
        return reply


def shape_of(frame: bytes) -> tuple[str, int]:
    try:
        return Phase.Name(Envelope.FromString(frame).signed.phase), len(frame)
    except Exception:  # noqa: BLE001 - whatever is not a message
        return "unreadable", len(frame)


def content_of(reply: bytes) -> str:
    return f"{Reply.FromString(reply).WhichOneof('content')} {code_of(reply)}"


class Shapes(logging.Handler):
    """Notes the shape of every log line: logger, level, message, and the sizes of its fields."""

    def __init__(self, observations: list[Any]) -> None:
        super().__init__(logging.DEBUG)
        self._observations = observations

    def emit(self, record: logging.LogRecord) -> None:
        plain = vars(logging.makeLogRecord({}))
        extra = {name: value for name, value in vars(record).items() if name not in plain}
        shapes = sorted((name, len(str(value))) for name, value in extra.items())
        self._observations.append(("log", record.name, record.levelname, record.msg, shapes))


def observe(federation: NodeFederation, country: str, observations: list[Any]) -> ObservedNode:
    """Restart one country's node so that it is observed, its waits for reply slots too."""

    def sleep(seconds: float) -> None:
        observations.append(("slot", seconds))

    slots = ReplySlots(sleep=sleep, monotonic=lambda: 0.0)
    node = federation.restart(country, slots=slots)
    observed = ObservedNode(
        node, NodeHealth(federation.home(country), federation.clock), observations
    )
    federation.nodes[country] = observed  # type: ignore[assignment]
    return observed


def observe_at_rest(observed: ObservedNode) -> list[Any]:
    """Return what can be observed afterwards: metrics, and the sizes of the audit log's entries."""
    entries = log_lines(observed.node)
    metrics = generate_latest(observed.vitals.metrics.registry).decode()
    timeless = [line for line in metrics.splitlines() if "_created" not in line]
    return [("entries", [len(str(entry)) for entry in entries]), ("metrics", timeless)]
