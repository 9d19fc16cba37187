"""The log-head file moves before a reply is sent; only a log that continues from it is used."""

import os
from pathlib import Path
from threading import Thread

import pytest

from client.errors import NodeFault
from client.node import Node
from client.parts import NodeParts
from client.state.key_value import get_value, set_value
from client.state.log_head import NEVER_KEPT
from governance.audit.checkpoint import Checkpoint
from governance.audit.events import Event, EventKind
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.database import transaction
from protocols.errors import ReasonCode
from tests.support.backups import Backup
from tests.support.documents import NOW
from tests.support.joining_node import create_joining_node
from tests.support.node_federation import NodeFederation, code_of


def covered(federation: NodeFederation, country: str = "DK") -> int:
    """Return how many entries the file covers; they must be the log's first."""
    log = federation.nodes[country].parts.log
    head = log.open_head(federation.home(country).log_head.read_bytes())
    log.require_head(Checkpoint("any", head.size, head.root))
    return head.size


def grown(node: Node) -> None:
    node.parts.log.append(Event(kind=EventKind.NODE_PAUSED, at=NOW, actor="DK"))


def refused(federation: NodeFederation) -> str:
    with pytest.raises(NodeFault) as refusal:
        federation.restart("DK")
    assert "pratique-node restored" in refusal.value.fix
    return str(refusal.value)


def test_the_file_covers_every_entry_before_a_reply_is_sent(
    federation: NodeFederation, study: Study
) -> None:
    """In a whole run, the file covers the log entries of each reply when it is sent."""
    run, node = federation.ready(study), federation.nodes["DK"]
    assert covered(federation) == node.parts.log.size()
    coordinator_round = run.contributed(1, "histogram")
    assert covered(federation) == node.parts.log.size()
    node.handle(coordinator_round.answer_request("DK"))
    assert covered(federation) == node.parts.log.size()


def test_the_file_covers_a_refusal_too(federation: NodeFederation, study: Study) -> None:
    """The refusal of a cohort that is too small depends on noise that was drawn."""
    federation.put_records("DK", "id,age,sex,disease\np1,50,M,0\n")
    node = federation.restart("DK")
    before = covered(federation)
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.DECLINED
    assert covered(federation) == node.parts.log.size() > before


def test_the_file_covers_a_reply_that_is_repeated_after_a_crash(
    federation: NodeFederation, study: Study
) -> None:
    """The node dies between its commit and the file; the journalled reply is sent later."""
    node, frame = federation.nodes["DK"], federation.run(study).request("bundle", "DK")
    before = federation.home("DK").log_head.read_bytes()
    node.handle(frame)
    federation.home("DK").log_head.write_bytes(before)
    again = federation.restart("DK")
    assert code_of(again.handle(frame)) is None
    assert covered(federation) == again.parts.log.size()


def test_the_file_is_on_disk_before_the_reply_is_returned(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, node = os.fsync, federation.nodes["DK"]

    def noted(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr("keys.files.os.fsync", noted)
    node.handle(federation.run(study).request("bundle", "DK"))
    assert synced[0].startswith(".log-head.")
    assert synced[1:] == ["DK"]


def test_no_reply_is_sent_if_the_file_cannot_be_written(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DocumentFault("The file cannot be written", why="No space left on device")

    node, frame = federation.nodes["DK"], federation.run(study).request("bundle", "DK")
    with monkeypatch.context() as patched:
        patched.setattr("client.state.log_head.write_atomic", full)
        assert code_of(node.handle(frame)) is ReasonCode.DECLINED
        assert code_of(node.handle(frame)) is ReasonCode.DECLINED
    assert code_of(node.handle(frame)) is None
    assert covered(federation) == node.parts.log.size()


def test_the_file_is_not_written_if_the_log_has_not_grown(federation: NodeFederation) -> None:
    node, file = federation.nodes["DK"], federation.home("DK").log_head
    before = file.stat().st_ino, file.stat().st_mtime_ns
    node.parts.log_head.move()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before


def test_the_file_covers_the_documents_of_the_officer(federation: NodeFederation) -> None:
    """A copy from before a withdrawal must not pass for the newest."""
    backup = Backup(federation, "DK")
    federation.withdraw("DK", federation.study())
    backup.restore()
    refused(federation)


@pytest.mark.parametrize("until", ["bundle", "encapsulation", "confirmation", None])
def test_a_restored_copy_does_not_start(
    federation: NodeFederation, study: Study, until: str | None
) -> None:
    run = federation.run(study)
    run.set_up(until=until)
    backup = Backup(federation, "DK")
    grown(federation.nodes["DK"])
    federation.nodes["DK"].parts.log_head.move()
    backup.restore()
    assert "older than what this node has already sent" in refused(federation)


def test_a_copy_that_continued_differently_does_not_start(
    federation: NodeFederation, study: Study
) -> None:
    """Its log is as long as the one that was sent from, with other entries."""
    backup = Backup(federation, "DK")
    federation.nodes["DK"].handle(federation.run(study).request("bundle", "DK"))
    backup.restore()
    other = federation.made("DK")
    while other.parts.log.size() < 40:
        grown(other)
    other.parts.engine.dispose()
    assert "are not those signed before" in refused(federation)


def test_a_log_without_the_file_does_not_start(federation: NodeFederation) -> None:
    federation.nodes["DK"].parts.engine.dispose()
    federation.home("DK").log_head.unlink()
    assert "log-head is missing" in refused(federation)


@pytest.mark.parametrize("content", [b"", b"pratique/dk/node\n", b"\xff" * 80, b"0" * 5_000])
def test_an_unreadable_file_does_not_count(federation: NodeFederation, content: bytes) -> None:
    federation.nodes["DK"].parts.engine.dispose()
    federation.home("DK").log_head.write_bytes(content)
    refused(federation)


def test_a_lost_database_does_not_start(federation: NodeFederation) -> None:
    federation.nodes["DK"].parts.engine.dispose()
    for file in federation.home("DK").path.glob("state.db*"):
        file.unlink()
    assert "The log has 0 entries" in refused(federation)


def test_the_file_never_moves_to_a_copy_restored_under_a_running_node(
    federation: NodeFederation,
) -> None:
    """The check comes before the first move of a process, whichever call causes it."""
    backup = Backup(federation, "DK")
    federation.withdraw("DK", federation.study())
    backup.restore()
    before = federation.home("DK").log_head.read_bytes()
    other = federation.made("DK")
    with pytest.raises(NodeFault):
        other.note_start()
    with pytest.raises(NodeFault):
        other.deliver(federation.documents.sign_and_submit("DK"))
    assert code_of(other.handle(b"anything")) is ReasonCode.DECLINED
    assert federation.home("DK").log_head.read_bytes() == before
    other.parts.engine.dispose()


def mark(federation: NodeFederation, value: str | None) -> None:
    with transaction(federation.nodes["DK"].parts.engine) as connection:
        set_value(connection, NEVER_KEPT, value)


def test_a_database_of_an_earlier_release_starts_once_without_the_file(
    federation: NodeFederation,
) -> None:
    mark(federation, "upgraded")
    federation.home("DK").log_head.unlink()
    node = federation.restart("DK")
    assert covered(federation) == node.parts.log.size()
    with transaction(node.parts.engine) as connection:
        assert get_value(connection, NEVER_KEPT) is None
    federation.home("DK").log_head.unlink()
    refused(federation)


def test_the_mark_of_an_upgrade_does_not_outweigh_an_existing_file(
    federation: NodeFederation,
) -> None:
    mark(federation, "upgraded")
    backup = Backup(federation, "DK")
    federation.withdraw("DK", federation.study())
    backup.restore()
    refused(federation)


def test_a_new_node_has_the_file(tmp_path: Path) -> None:
    origin, size, *_ = create_joining_node(tmp_path).log_head.read_text().splitlines()
    assert (origin, size) == ("pratique/dk/node/state", "1")


def test_threads_never_move_the_file_back(federation: NodeFederation) -> None:
    """Upkeep and replies run in two threads; each covers the entries that it appended."""
    node, short = federation.nodes["DK"], []

    def work() -> None:
        for _ in range(15):
            grown(node)
            appended = node.parts.log.size()
            node.parts.log_head.move()
            if covered(federation) < appended:
                short.append(appended)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert short == []
    assert covered(federation) == node.parts.log.size()


def test_two_states_of_one_number_are_refused(federation: NodeFederation) -> None:
    """A copy goes on by itself as far as the node: its head has the number of the node's own."""
    backup = Backup(federation, "DK")
    node, file = federation.nodes["DK"], federation.home("DK").log_head
    known = file.read_bytes()
    for _ in range(9):
        node.parts.pause.set("audit week", NOW)
    grown(node)
    node.parts.log_head.move()
    ours = file.read_bytes()
    backup.restore()
    file.write_bytes(known)
    parts = federation.restart("DK").parts
    while number_of(parts) < parts.log.open_head(ours).counter - 1:
        parts.pause.set("another week", NOW)
    grown(federation.nodes["DK"])
    file.write_bytes(ours)
    with pytest.raises(NodeFault, match="Two states were signed with the number"):
        federation.nodes["DK"].parts.log_head.require_newest()


def number_of(parts: NodeParts) -> int:
    with transaction(parts.engine) as connection:
        head = parts.log.signed_head(connection)
    assert head is not None
    return head.counter


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_the_file_covers_a_command_of_the_operator(
    federation: NodeFederation, command: str
) -> None:
    """Otherwise an earlier state, in which the node is not paused, would count as the newest."""
    node = federation.nodes["DK"]
    node.pause("audit week") if command == "pause" else node.resume()
    assert covered(federation) == node.parts.log.size()
