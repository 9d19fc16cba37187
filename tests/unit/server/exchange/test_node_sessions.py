"""Node sessions: one registration for each key, from any thread, kept for the same key."""

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
    """A SuperLink that assigns node ids and registers each key once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def register(self, line: str) -> int:
        if line in self.lines:
            raise CoordinatorFault("Flower refused `flwr supernode`", why="registered already")
        self.lines.append(line)
        return 100 + len(self.lines)


class SessionsInLoop:
    def __init__(self) -> None:
        self.register, self.thread = Register(), LoopThread()
        self.relay = Relay(ScriptedSuperLink().forward)
        self.sessions = NodeSessions(self.relay, self.register)  # type: ignore[arg-type]

    def settle(self) -> None:
        async def nothing() -> None:
            return

        self.thread.run(nothing())


@pytest.fixture
def harness() -> Iterator[SessionsInLoop]:
    new_harness = SessionsInLoop()
    new_harness.sessions.start(new_harness.thread.loop)
    yield new_harness
    new_harness.thread.close()


def node_ids(harness: SessionsInLoop) -> dict[str, int]:
    return {country: one.node for country, one in harness.sessions.presence().items()}


def test_every_admitted_node_gets_a_session_with_its_key(harness: SessionsInLoop) -> None:
    nodes = [node_statement(country) for country in ("AT", "BE", "CZ")]
    harness.sessions.open_all(nodes)
    harness.settle()
    assert set(node_ids(harness)) == {"AT", "BE", "CZ"}
    assert len(set(node_ids(harness).values())) == 3
    key = load_ssh_public_key(str(nodes[0].node_auth).encode())
    assert harness.relay._sessions["AT"].public_key == public_key_to_bytes(key)
    assert harness.sessions.online() == dict.fromkeys(("AT", "BE", "CZ"), False)


def test_a_node_whose_key_cannot_be_read_stays_away_alone(
    harness: SessionsInLoop, caplog: pytest.LogCaptureFixture
) -> None:
    odd = node_statement("BE").model_copy(update={"node_auth": "ssh-ed25519 AAAA"})
    harness.sessions.open_all([odd, node_statement("AT")])
    harness.settle()
    assert set(node_ids(harness)) == {"AT"}
    assert "an admitted node is not registered" in caplog.text


def test_a_node_with_the_same_key_keeps_its_session(harness: SessionsInLoop) -> None:
    node = node_statement()
    harness.sessions.open_session(node)
    harness.settle()
    harness.relay._sessions["AT"].online = True
    harness.sessions.open_session(node)
    harness.sessions.open_session(
        node.model_copy(update={"node_auth": f"{node.node_auth} comment"})
    )
    harness.settle()
    assert len(harness.register.lines) == 1
    assert harness.sessions.online() == {"AT": True}


def test_a_node_with_a_new_key_gets_a_new_session(harness: SessionsInLoop) -> None:
    harness.sessions.open_session(node_statement())
    harness.settle()
    before = node_ids(harness)
    harness.sessions.open_session(node_statement())
    harness.settle()
    assert node_ids(harness) != before
    assert len(harness.register.lines) == 2


def test_a_registration_that_failed_is_tried_again(harness: SessionsInLoop) -> None:
    node = node_statement()
    harness.register.lines.append(" ".join(str(node.node_auth).split()[:2]))
    with pytest.raises(CoordinatorFault):
        harness.sessions.open_session(node)
    harness.register.lines.clear()
    harness.sessions.open_session(node)
    harness.settle()
    assert set(node_ids(harness)) == {"AT"}


def test_a_revoked_node_is_offline(harness: SessionsInLoop) -> None:
    harness.sessions.open_session(node_statement("AT"))
    harness.settle()
    harness.relay._sessions["AT"].online = True
    for country in ("BE", "AT"):
        harness.sessions.mark_offline(country)
    harness.settle()
    assert harness.sessions.online() == {"AT": False}


def test_an_announcement_reaches_the_relay_in_its_event_loop(harness: SessionsInLoop) -> None:
    harness.sessions.open_session(node_statement())
    harness.settle()
    before = harness.relay._sessions["AT"].expected
    harness.sessions.announce(["AT", "BE"])
    harness.settle()
    assert harness.relay._sessions["AT"].expected == before + 1


def test_a_presence_update_is_returned_at_the_first_change(harness: SessionsInLoop) -> None:
    harness.sessions.open_session(node_statement())
    harness.settle()
    quiet = harness.sessions.presence_update(0, 0.01)
    assert (quiet.count, quiet.present["AT"].replies) == (0, 0)
    threading.Timer(0.05, harness.relay.changes.note).start()
    started = time.monotonic()
    assert harness.sessions.presence_update(0, 30).count == 1
    assert time.monotonic() - started < 10
    assert PresenceUpdate.from_json(
        harness.sessions.presence_update(0, 0).to_json()
    ).present.keys() == {"AT"}
