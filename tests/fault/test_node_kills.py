"""A node killed within a message: never uncharged, never charged twice, the same bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from client.node import Node
from client.state import journal
from governance.database import transaction
from protocols.private_sum.opening import CoordinatorRound, OpenedSum
from tests.support.kill import arm, killed_at
from tests.support.nodes import Federation, Run, code_of

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

STRIDE = 3
"""Every third moment; the offset differs from phase to phase."""
MOST_STEPS = 400


class Stage:
    """A federation at one moment, copied for each kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.made = Federation(folder / "origin")
        self.study = self.made.approved()

    def fresh(self) -> Federation:
        self.count += 1
        return self.made.copied(self.folder / str(self.count))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("kills"))


def kept(node: Node, phase: str) -> bytes | None:
    query = select(journal.c.reply).where(journal.c.phase == phase)
    with transaction(node._engine) as connection:
        found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def steps(offset: int) -> Iterator[int]:
    yield from range(1 + offset, MOST_STEPS, STRIDE)


def kill(federation: Federation, frame: bytes, step: int) -> bool:
    """Handle a frame in a child that dies at `step`; say whether it died."""

    def work() -> None:
        node = federation.start("DK")
        arm(node._engine, step)
        node.handle(frame)

    federation.close()
    return killed_at(step, work)


def test_killed_while_contributing(stage: Stage) -> None:
    for step in steps(0):
        federation = stage.fresh()
        run = federation.ready(stage.study, bytes(16))
        opened = run.coordinator.begin_round(1, "histogram", b"")
        frame = opened.contribute_request("DK")
        died = kill(federation, frame, step)
        node = federation.restart("DK")
        before, charged = kept(node, "contribute"), phases(node)
        assert before is None or charged == ["cohort-floor", "histogram"]
        reply = node.handle(frame)
        assert code_of(reply) is None
        assert before in (None, reply)
        assert phases(node) == ["cohort-floor", "histogram"]
        finish(federation, run, opened, reply)
        if not died:
            assert before == reply
            return
    pytest.fail("every step killed the node")


def test_killed_while_entering_a_run(stage: Stage) -> None:
    for step in steps(1):
        federation = stage.fresh()
        run = federation.run(stage.study, bytes(16))
        frame = run.request("bundle", "DK")
        died = kill(federation, frame, step)
        node = federation.restart("DK")
        before = kept(node, "bundle")
        reply = node.handle(frame)
        assert code_of(reply) is None
        assert before in (None, reply)
        assert phases(node) == ["cohort-floor"]
        federation.close()
        if not died:
            return
    pytest.fail("every step killed the node")


def test_killed_while_answering(stage: Stage) -> None:
    for step in steps(2):
        federation = stage.fresh()
        run = federation.ready(stage.study, bytes(16))
        opened = run.contributed(1, "histogram")
        frame = opened.answer_request("DK")
        died = kill(federation, frame, step)
        node = federation.restart("DK")
        before = kept(node, "answer")
        reply = node.handle(frame)
        assert code_of(reply) is None
        assert before in (None, reply)
        assert node.handle(frame) == reply
        federation.close()
        if not died:
            return
    pytest.fail("every step killed the node")


def phases(node: Node) -> list[str]:
    return sorted(entry.phase for entry in node.ledger.entries())


def finish(federation: Federation, run: Run, opened: CoordinatorRound, reply: bytes) -> None:
    opened.take_contribution("DK", reply)
    for country in ("EE", "NO", "PT"):
        asked = opened.contribute_request(country)
        opened.take_contribution(country, federation.nodes[country].handle(asked))
    for country in run.terms.roster:
        answer = federation.nodes[country].handle(opened.answer_request(country))
        opened.take_answer(country, answer)
    assert isinstance(opened.open(), OpenedSum)
    node = federation.nodes["DK"]
    found = node.log_entries()
    assert found["entries"]
    federation.close()
