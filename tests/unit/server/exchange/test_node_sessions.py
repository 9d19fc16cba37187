"""Seats: one registration a key, given from any thread, kept while the key stays."""

import threading
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from server.errors import CoordinatorFault
from server.exchange.node_sessions import NodeSessions
from server.exchange.relay import Relay
from server.flower.presence import PresenceUpdate
from tests.support.enrolling import node_statement
from tests.support.exchange_server import LoopThread, ScriptedSuperLink


class Register:
    """A SuperLink that hands out node ids and knows each key once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def register(self, line: str) -> int:
        if line in self.lines:
            raise CoordinatorFault("Flower refused `flwr supernode`", why="registered already")
        self.lines.append(line)
        return 100 + len(self.lines)


class Room:
    def __init__(self) -> None:
        self.register, self.thread = Register(), LoopThread()
        self.relay = Relay(ScriptedSuperLink().forward)
        self.sessions = NodeSessions(self.relay, self.register)  # type: ignore[arg-type]

    def settle(self) -> None:
        async def nothing() -> None:
            return

        self.thread.run(nothing())


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    made.sessions.start(made.thread.loop)
    yield made
    made.thread.close()


def node_ids(room: Room) -> dict[str, int]:
    return {country: one.node for country, one in room.sessions.presence().items()}


def test_every_admitted_node_gets_a_session_with_its_key(room: Room) -> None:
    nodes = [node_statement(country) for country in ("AT", "BE", "CZ")]
    room.sessions.open_all(nodes)
    room.settle()
    assert set(node_ids(room)) == {"AT", "BE", "CZ"}
    assert len(set(node_ids(room).values())) == 3
    key = load_ssh_public_key(str(nodes[0].node_auth).encode())
    assert room.relay._sessions["AT"].public_key == public_key_to_bytes(key)
    assert room.sessions.online() == dict.fromkeys(("AT", "BE", "CZ"), False)


def test_a_node_with_the_same_key_keeps_its_session(room: Room) -> None:
    node = node_statement()
    room.sessions.open_session(node)
    room.settle()
    room.relay._sessions["AT"].online = True
    room.sessions.open_session(node)
    room.sessions.open_session(node.model_copy(update={"node_auth": f"{node.node_auth} comment"}))
    room.settle()
    assert len(room.register.lines) == 1
    assert room.sessions.online() == {"AT": True}


def test_a_node_with_a_new_key_gets_a_new_seat(room: Room) -> None:
    room.sessions.open_session(node_statement())
    room.settle()
    before = node_ids(room)
    room.sessions.open_session(node_statement())
    room.settle()
    assert node_ids(room) != before
    assert len(room.register.lines) == 2


def test_a_registration_that_failed_is_tried_again(room: Room) -> None:
    node = node_statement()
    room.register.lines.append(" ".join(str(node.node_auth).split()[:2]))
    with pytest.raises(CoordinatorFault):
        room.sessions.open_session(node)
    room.register.lines.clear()
    room.sessions.open_session(node)
    room.settle()
    assert set(node_ids(room)) == {"AT"}


def test_a_revoked_node_is_no_more_online(room: Room) -> None:
    room.sessions.open_session(node_statement("AT"))
    room.settle()
    room.relay._sessions["AT"].online = True
    for country in ("BE", "AT"):
        room.sessions.mark_offline(country)
    room.settle()
    assert room.sessions.online() == {"AT": False}


def test_an_announcement_reaches_the_relay_in_its_own_loop(room: Room) -> None:
    room.sessions.open_session(node_statement())
    room.settle()
    before = room.relay._sessions["AT"].expected
    room.sessions.announce(["AT", "BE"])
    room.settle()
    assert room.relay._sessions["AT"].expected == before + 1


def test_a_presence_update_comes_as_soon_as_there_is_a_change(room: Room) -> None:
    room.sessions.open_session(node_statement())
    room.settle()
    quiet = room.sessions.presence_update(0, 0.01)
    assert (quiet.count, quiet.present["AT"].replies) == (0, 0)
    threading.Timer(0.05, room.relay.changes.note).start()
    started = time.monotonic()
    assert room.sessions.presence_update(0, 30).count == 1
    assert time.monotonic() - started < 10
    assert PresenceUpdate.from_json(
        room.sessions.presence_update(0, 0).to_json()
    ).present.keys() == {"AT"}
