"""Frames as Flower messages: late, strange, failed and repeated replies of a scripted grid."""

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import http_grid

from protocols.carrier import FRAME, MAX_FRAME, MESSAGE_TYPE, RECORD
from server import carrier as carriers
from server.carrier import FlowerCarrier, quick_pulls

NODES = {"AT": 11, "BE": 22}


class ScriptedGrid:
    """Flower's grid as far as the carrier knows it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.refuse: set[int] = set()
        self.answer: Callable[[Message], list[Any]] = lambda message: [reply(message, b"yes")]
        self.looks = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:
        names: list[str | None] = []
        for message in messages:
            taken = message.metadata.dst_node_id not in self.refuse
            names.append(f"m{len(self.sent)}" if taken else None)
            message.metadata.__dict__["_message_id"] = names[-1] or ""
            self.sent.append(message)
        return names

    def pull_messages(self, names: list[str]) -> list[Any]:
        self.looks += 1
        return [r for m in self.sent if m.metadata.message_id in names for r in self.answer(m)]


class Reply:
    """A reply as Flower hands it over."""

    def __init__(self, to: str, content: RecordDict | None, *, error: Error | None = None) -> None:
        self.metadata = type("M", (), {"reply_to_message_id": to})
        self.content, self._error = content, error

    def has_error(self) -> bool:
        return self._error is not None

    def has_content(self) -> bool:
        return self.content is not None


def content(frame: Any) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord({FRAME: frame})})


def reply(message: Message, frame: Any) -> Reply:
    return Reply(message.metadata.message_id, content(frame))


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> ScriptedGrid:
    for name in ("_run_id", "_node_id", "_task_id"):  # as Flower's process of a server app has them
        monkeypatch.setattr(TaskIdentity, name, 1)
    return ScriptedGrid()


def exchanged(grid: ScriptedGrid, seconds: float = 0.2) -> dict[str, bytes]:
    carrier = FlowerCarrier(grid, NODES, lambda: None)  # type: ignore[arg-type]
    return dict(carrier.exchange({"AT": b"to AT", "BE": b"to BE"}, seconds))


def test_each_country_gets_its_own_frame_and_is_heard(grid: ScriptedGrid) -> None:
    assert exchanged(grid) == {"AT": b"yes", "BE": b"yes"}
    sent = {m.metadata.dst_node_id: m.content[RECORD][FRAME] for m in grid.sent}
    assert sent == {11: b"to AT", 22: b"to BE"}
    assert {m.metadata.message_type for m in grid.sent} == {MESSAGE_TYPE}
    assert grid.looks == 1


def test_the_relay_is_told_after_everything_was_pushed(grid: ScriptedGrid) -> None:
    told: list[int] = []
    FlowerCarrier(grid, NODES, lambda: told.append(len(grid.sent))).exchange(  # type: ignore[arg-type]
        {"AT": b"x", "BE": b"y"}, 1
    )
    assert told == [2]


def only(country: str, *answers: Callable[[Message], Any]) -> Callable[[Message], list[Any]]:
    def answer(message: Message) -> list[Any]:
        if message.metadata.dst_node_id == NODES[country]:
            return [one(message) for one in answers]
        return [reply(message, b"yes")]

    return answer


@pytest.mark.parametrize(
    "odd",
    [
        lambda m: Reply(m.metadata.message_id, None, error=Error(1, "failed")),
        lambda m: Reply(m.metadata.message_id, None),
        lambda m: Reply(m.metadata.message_id, RecordDict()),
        lambda m: Reply(m.metadata.message_id, RecordDict({RECORD: ConfigRecord({"x": b"y"})})),
        lambda m: Reply(m.metadata.message_id, RecordDict({"other": ConfigRecord({FRAME: b"y"})})),
        lambda m: reply(m, "text"),
        lambda m: reply(m, 5),
        lambda m: reply(m, [b"a", b"b"]),
    ],
)
def test_a_reply_without_a_frame_is_no_reply_and_is_not_waited_for(
    grid: ScriptedGrid, odd: Callable[[Message], Any]
) -> None:
    grid.answer = only("BE", odd)
    started = time.monotonic()
    assert exchanged(grid, 30) == {"AT": b"yes"}
    assert time.monotonic() - started < 5


def test_a_frame_over_the_limit_is_no_reply(
    grid: ScriptedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_FRAME == carriers.MAX_FRAME
    monkeypatch.setattr(carriers, "MAX_FRAME", 10)
    grid.answer = only("BE", lambda m: reply(m, bytes(11)))
    assert exchanged(grid) == {"AT": b"yes"}
    grid.answer = only("BE", lambda m: reply(m, bytes(10)))
    assert exchanged(grid)["BE"] == bytes(10)


def test_a_silent_country_is_waited_for_as_long_as_said(grid: ScriptedGrid) -> None:
    grid.answer = only("BE")
    started = time.monotonic()
    assert exchanged(grid, 0.3) == {"AT": b"yes"}
    assert 0.3 <= time.monotonic() - started < 2


def test_the_first_of_two_replies_counts(grid: ScriptedGrid) -> None:
    grid.answer = only("BE", lambda m: reply(m, b"first"), lambda m: reply(m, b"second"))
    assert exchanged(grid)["BE"] == b"first"


def test_a_reply_to_a_message_that_nobody_waits_for_is_left(grid: ScriptedGrid) -> None:
    stale = Reply("m999", content(b"stale"))
    grid.answer = only("BE", lambda _: stale, lambda m: reply(m, b"fresh"))
    assert exchanged(grid) == {"AT": b"yes", "BE": b"fresh"}


def test_a_reply_of_the_last_exchange_is_not_one_of_this(grid: ScriptedGrid) -> None:
    carrier = FlowerCarrier(grid, NODES, lambda: None)  # type: ignore[arg-type]
    grid.answer = lambda _: []
    assert carrier.exchange({"AT": b"1"}, 0.05) == {}
    late = Reply("m0", content(b"late"))
    grid.answer = lambda _: [late]
    assert carrier.exchange({"AT": b"2"}, 0.1) == {}


def test_a_message_that_flower_did_not_take_has_no_reply(grid: ScriptedGrid) -> None:
    grid.refuse = {22}
    assert exchanged(grid) == {"AT": b"yes"}


def test_nothing_to_send_ends_at_once(grid: ScriptedGrid) -> None:
    carrier = FlowerCarrier(grid, NODES, lambda: None)  # type: ignore[arg-type]
    assert carrier.exchange({}, 30) == {}


def test_objects_that_are_not_there_yet_are_asked_for_again_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pull_objects(*_: Any, initial_backoff: float = 1.0) -> float:
        return initial_backoff

    monkeypatch.setattr(http_grid, "pull_objects", pull_objects)
    quick_pulls()
    assert isinstance(http_grid.pull_objects, functools.partial)
    assert http_grid.pull_objects() == carriers.PULL_BACKOFF_SECONDS
