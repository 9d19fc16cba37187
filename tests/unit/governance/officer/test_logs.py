import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from governance.audit.checkpoint import Checkpoint, sign_checkpoint
from governance.audit.events import Event, EventKind, Outcome, entry_bytes
from governance.audit.merkle import leaf_hash
from governance.audit.note import NoteKey
from governance.runtime.local_rpc import LocalRpcServer
from keys.identity import SigningKey
from protocols.errors import ReasonCode
from protocols.wire.encoding import canonical_json
from tests.support.documents import (
    COUNTRIES,
    NOW,
    agreement,
    agreement_fields,
    node_keys,
    raw_key,
)
from tests.support.officers import OfficerCommands
from tests.support.reference_merkle import reference_root

pytestmark = pytest.mark.enable_socket

NODE_KEY = raw_key(1_000 + 10 * COUNTRIES.index("DK") + 1)
ORIGIN = node_keys("DK").log_origin
STUDY = "sha256:" + "5" * 64


def refused_request(number: int) -> Event:
    return Event(
        kind=EventKind.REQUEST_REFUSED,
        at=NOW,
        round=number or None,
        actor="coordinator",
        outcome=Outcome.REFUSED,
        study=STUDY,
        code=ReasonCode.NO_PERMIT,
        reason=f"No permit, number {number}.",
        clause="permit/missing",
    )


class LogDaemon:
    """A daemon's RPC server with a log that a test can falsify."""

    def __init__(self, socket: Path, origin: str, key: SigningKey) -> None:
        self.origin, self.key = origin, key
        self.entries: list[bytes] = []
        self.lines: list[str] | None = None
        self.rpc_server = LocalRpcServer(socket, self._answer)

    def log(self, count: int = 1) -> None:
        for _ in range(count):
            index = len(self.entries)
            event = refused_request(index)
            self.entries.append(entry_bytes(event, origin=self.origin, index=index))

    def _answer(self, method: str, _params: Mapping[str, Any]) -> Any:
        assert method == "log_entries"
        root = reference_root([leaf_hash(entry) for entry in self.entries])
        checkpoint = Checkpoint(self.origin, len(self.entries), root)
        return {
            "entries": self.lines or [self._line(entry) for entry in self.entries],
            "checkpoint": sign_checkpoint(checkpoint, self.key).decode(),
            "verifier": NoteKey(self.origin, self.key.public).to_text(),
        }

    def _line(self, entry: bytes) -> str:
        return canonical_json({"entry": json.loads(entry), "leaf": leaf_hash(entry).hex()}).decode()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has to be short
        (Path(short) / "node.yaml").touch()
        yield Path(short)


@pytest.fixture
def node(folder: Path) -> Iterator[LogDaemon]:
    daemon = LogDaemon(folder / "run" / "node.sock", ORIGIN, NODE_KEY)
    daemon.log(3)
    yield daemon
    daemon.rpc_server.close()


@pytest.fixture
def coordinator(folder: Path) -> Iterator[LogDaemon]:
    socket = folder / "run" / "coordinator.sock"
    daemon = LogDaemon(socket, "pratique/nordic-heart/coordinator", raw_key(55))
    daemon.log(2)
    yield daemon
    daemon.rpc_server.close()


def agree_on(officer: OfficerCommands, log_key: SigningKey) -> None:
    """Give the officer an agreement in force that names the coordinator's log key."""
    coordinator = agreement_fields()["coordinator"] | {"log_key": log_key.public.to_text()}
    officer.home.trust.mkdir(exist_ok=True)
    path = officer.home.trust / "agreement.json"
    path.write_bytes(agreement(coordinator=coordinator).canonical())


@pytest.fixture
def trusting(officer: OfficerCommands) -> OfficerCommands:
    """An officer who has signed the node's keys."""
    file = officer.file("node-keys.json", node_keys("DK").canonical())
    officer.done("sign", file, "--yes")
    return officer


class TestList:
    def test_log_shows_every_entry_and_its_reason(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        output = trusting.done("log", "list", "--node", folder, unlock=False)
        assert '"No permit, number 2." (permit/missing)' in output
        assert output.count("request-refused") == 3
        assert "555555555555, round 2" in output
        assert output.count(", round") == 2  # the first entry concerns no request
        assert "3 of 3 entries" in output

    def test_log_shows_the_newest_entries(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        output = trusting.done("log", "list", "--node", folder, "--last", "1", unlock=False)
        assert "number 2." in output
        assert "number 1." not in output
        assert "1 of 3 entries" in output

    def test_log_prints_json_on_request(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        result = trusting.run("log", "list", "--node", folder, "--json", unlock=False)
        entries = json.loads(result.stdout)
        assert [entry["index"] for entry in entries] == [0, 1, 2]
        assert entries[0]["study"] == STUDY

    def test_log_reads_the_log_of_a_coordinator_too(
        self, trusting: OfficerCommands, folder: Path, coordinator: LogDaemon
    ) -> None:
        output = trusting.done("log", "list", "--coordinator", folder, unlock=False)
        assert "2 of 2 entries" in output

    def test_log_says_that_a_log_is_empty(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        node.entries.clear()
        output = trusting.done("log", "list", "--node", folder, unlock=False)
        assert "0 of 0 entries" in output

    def test_log_finds_the_node_of_the_officer_s_country_without_an_option(
        self, officer: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        settings = officer.home.settings()
        officer.home.save(settings.model_copy(update={"node": str(folder)}))
        assert "3 of 3" in officer.done("log", "list", unlock=False)

    def test_log_needs_a_daemon(self, trusting: OfficerCommands, folder: Path) -> None:
        output = trusting.refused("log", "list", "--node", folder, unlock=False)
        assert "Nothing answers" in output
        assert "ask its operator to start it" in output
        assert "--node" in output
        assert "--home" not in output

    def test_log_must_know_whose_log_to_read(self, trusting: OfficerCommands) -> None:
        output = trusting.refused("log", "list", unlock=False)
        assert "--node FOLDER or --coordinator FOLDER" in output

    def test_log_reads_one_log_at_a_time(self, trusting: OfficerCommands, folder: Path) -> None:
        words = ("log", "list", "--node", folder, "--coordinator", folder)
        assert "exclude each other" in trusting.refused(*words, unlock=False)

    @pytest.mark.parametrize("lines", [["not json"], ["{}"], ['{"entry": {}}'], ["[]"], ["1"]])
    def test_log_refuses_a_malformed_log(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon, lines: list[str]
    ) -> None:
        node.lines = lines
        output = trusting.refused("log", "list", "--node", folder, unlock=False)
        assert "sent no readable log" in output
        assert trusting.refused("log", "verify", "--node", folder, unlock=False)


class TestVerify:
    def verify(self, officer: OfficerCommands, folder: Path, which: str = "--node") -> str:
        return officer.done("log", "verify", which, folder, unlock=False)

    def refused(self, officer: OfficerCommands, folder: Path, which: str = "--node") -> str:
        return officer.refused("log", "verify", which, folder, unlock=False)

    def test_verify_accepts_a_complete_log(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        output = self.verify(trusting, folder)
        assert f"The log {ORIGIN} is whole: 3 entries" in output
        assert NODE_KEY.public.fingerprint in output

    def test_verify_accepts_the_log_again_after_it_has_grown(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        assert "for the first time" in self.verify(trusting, folder)
        node.log(40)
        output = self.verify(trusting, folder)
        assert "43 entries" in output
        assert "It continues what you verified before." in output

    def test_verify_prints_json_on_request(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        options = ("log", "verify", "--node", folder, "--json")
        answer = json.loads(trusting.run(*options, unlock=False).stdout)
        root = reference_root([leaf_hash(entry) for entry in node.entries])
        assert answer == {"origin": ORIGIN, "size": 3, "root": root.hex(), "whole": True}

    def test_verify_finds_a_changed_entry(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        node.lines = [node._line(entry) for entry in node.entries]
        node.lines[1] = node.lines[1].replace("number 1", "number 7")
        assert "Entry 1 does not verify" in self.refused(trusting, folder)

    @pytest.mark.parametrize("gone", [0, 1, 2])
    def test_verify_finds_a_missing_entry(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon, gone: int
    ) -> None:
        node.lines = [node._line(entry) for entry in node.entries]
        del node.lines[gone]
        assert self.refused(trusting, folder)

    def test_verify_finds_a_log_that_was_rolled_back(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        self.verify(trusting, folder)
        node.entries.pop()
        output = self.refused(trusting, folder)
        assert "rolled back: 3 entries were signed before, 2 now" in output

    def test_verify_finds_a_log_that_was_forked(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        self.verify(trusting, folder)
        other = refused_request(99)
        node.entries[2] = entry_bytes(other, origin=ORIGIN, index=2)
        node.log(2)
        assert "forked" in self.refused(trusting, folder)

    def restored(self, node: LogDaemon, size: int) -> None:
        """Restore a copy of so many entries, as the node's operator could."""
        del node.entries[size:]
        index = len(node.entries)
        restored_event = Event(
            kind=EventKind.STATE_RESTORED, at=NOW, actor="DK", reason=f"A copy of {size} entries"
        )
        node.entries.append(entry_bytes(restored_event, origin=ORIGIN, index=index))

    def accept(self, officer: OfficerCommands, folder: Path) -> str:
        return officer.done("log", "verify", "--node", folder, "--accept-restored", unlock=False)

    @pytest.mark.parametrize("grown", [0, 1, 7])
    def test_verify_accepts_a_restored_log_only_with_the_option(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon, grown: int
    ) -> None:
        node.log(3)
        self.verify(trusting, folder)
        self.restored(node, 2)
        node.log(grown)
        output = self.refused(trusting, folder)
        assert "A copy of 2 entries" in output
        assert "--accept-restored" in output
        assert "by voice" in output
        output = self.accept(trusting, folder)
        assert "You accepted that it does not continue" in output
        assert "none gone" not in output
        assert "It continues what you verified before." in self.verify(trusting, folder)
        (recorded_file,) = trusting.home.seen.glob("*.gone-*")
        assert b"\n6\n" in recorded_file.read_bytes()

    def test_verify_accepts_one_restoration_once(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        """An accepted restoration does not explain entries that are missing later."""
        node.log(3)
        self.verify(trusting, folder)
        self.restored(node, 2)
        self.accept(trusting, folder)
        node.log(5)
        self.verify(trusting, folder)
        del node.entries[5:]
        options = ("log", "verify", "--node", folder, "--accept-restored")
        assert "rolled back" in trusting.refused(*options, unlock=False)
        self.restored(node, 4)
        assert "A copy of 4 entries" in self.accept(trusting, folder)

    def test_verify_accepts_no_gap_without_a_restoration_entry_in_the_log(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        self.verify(trusting, folder)
        node.entries.pop()
        options = ("log", "verify", "--node", folder, "--accept-restored")
        assert "rolled back" in trusting.refused(*options, unlock=False)

    def test_verify_accepts_no_changed_entry_with_a_restoration(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        self.verify(trusting, folder)
        self.restored(node, 2)
        node.lines = [node._line(entry) for entry in node.entries]
        node.lines[1] = node.lines[1].replace("number 1", "number 7")
        options = ("log", "verify", "--node", folder, "--accept-restored")
        assert "Entry 1 does not verify" in trusting.refused(*options, unlock=False)

    def test_verify_reports_a_restoration_that_lost_no_entry(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        self.verify(trusting, folder)
        self.restored(node, 3)
        result = trusting.run("log", "verify", "--node", folder, unlock=False)
        assert "It continues what you verified before." in result.stdout
        assert "A copy of 3 entries" in result.stderr

    def test_the_log_of_a_coordinator_cannot_be_accepted_as_restored(
        self, trusting: OfficerCommands, folder: Path, coordinator: LogDaemon
    ) -> None:
        self.verify(trusting, folder, "--coordinator")
        del coordinator.entries[1:]
        restored_event = Event(kind=EventKind.STATE_RESTORED, at=NOW, actor="coordinator")
        entry = entry_bytes(restored_event, origin=coordinator.origin, index=1)
        coordinator.entries.append(entry)
        options = ("log", "verify", "--coordinator", folder, "--accept-restored")
        assert "are not those" in trusting.refused(*options, unlock=False)

    def test_verify_finds_a_log_signed_by_another_key(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        """The key in the signed documents counts, whatever the daemon states."""
        node.key = raw_key(77)
        assert self.refused(trusting, folder)

    def test_verify_finds_the_log_of_another_node(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        node.origin = "nordic-heart/ee"
        node.entries.clear()
        node.log(3)
        assert self.refused(trusting, folder)

    def test_verify_needs_signed_keys_of_the_node(
        self, officer: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        assert "have not signed your node's keys" in self.refused(officer, folder)

    def test_verify_works_with_expired_documents(
        self, trusting: OfficerCommands, folder: Path, node: LogDaemon
    ) -> None:
        """A log is read years later; documents are valid for a week."""
        assert trusting.own().expires.year == NOW.year
        assert "is whole" in self.verify(trusting, folder)

    def test_verify_remembers_the_key_of_a_coordinator(
        self, trusting: OfficerCommands, folder: Path, coordinator: LogDaemon
    ) -> None:
        assert "2 entries" in self.verify(trusting, folder, "--coordinator")
        coordinator.log(5)
        assert "7 entries" in self.verify(trusting, folder, "--coordinator")
        coordinator.key = raw_key(56)
        output = self.refused(trusting, folder, "--coordinator")
        assert "signed by another key than before" in output
        assert raw_key(55).public.fingerprint in output

    def test_verify_uses_the_key_of_the_coordinator_in_the_agreement(
        self, trusting: OfficerCommands, folder: Path, coordinator: LogDaemon
    ) -> None:
        agree_on(trusting, coordinator.key)
        assert "2 entries" in self.verify(trusting, folder, "--coordinator")
        coordinator.key = raw_key(56)
        output = self.refused(trusting, folder, "--coordinator")
        assert "another key than the agreement names" in output
        assert raw_key(55).public.fingerprint in output
        agree_on(trusting, raw_key(56))
        coordinator.key = raw_key(55)
        assert "another key than" in self.refused(trusting, folder, "--coordinator")

    def test_verify_trusts_no_first_key_of_a_coordinator_if_the_agreement_names_one(
        self, trusting: OfficerCommands, folder: Path, coordinator: LogDaemon
    ) -> None:
        agree_on(trusting, raw_key(56))
        assert "another key than" in self.refused(trusting, folder, "--coordinator")

    def test_verify_keeps_checkpoints_of_two_logs_separate(
        self,
        trusting: OfficerCommands,
        folder: Path,
        node: LogDaemon,
        coordinator: LogDaemon,
    ) -> None:
        for _ in range(2):
            self.verify(trusting, folder)
            self.verify(trusting, folder, "--coordinator")
