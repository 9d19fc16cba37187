import base64
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from governance.errors import DocumentFault
from governance.officer.delivery import Delivered, read_delivered
from governance.officer.own_documents import read_own
from governance.runtime.local_rpc import LocalRpcFault, LocalRpcServer
from governance.trust.bundle import own_country
from tests.support.documents import node_keys
from tests.support.officers import OfficerCommands, bundle_version

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def node(agreed: OfficerCommands) -> Iterator[Path]:
    """A node's folder with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="node-", dir="/tmp"))
    (folder / "node.yaml").write_text("country: DK\n")
    yield folder
    shutil.rmtree(folder)


class NodeDaemon:
    """A node's RPC server that verifies its officer's documents by the officer's key."""

    def __init__(self, node: Path, officer: OfficerCommands) -> None:
        self.versions: list[int] = []
        self._officer = officer
        self.rpc_server = LocalRpcServer(node / "run" / "node.sock", self._answer)

    def _answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != "deliver":
            raise DocumentFault(f"This server has no method {method}")
        bundle = base64.b64decode(params["bundle"])
        key = self._officer.home.settings().verify_key
        known = max(self.versions, default=0)
        documents = own_country(bundle, "DK", key, self._officer.now, at_least=known)
        self.versions.append(documents.version)
        return {"version": documents.version}


@pytest.fixture
def daemon(node: Path, agreed: OfficerCommands) -> Iterator[NodeDaemon]:
    running = NodeDaemon(node, agreed)
    yield running
    running.rpc_server.close()


def sign_keys(officer: OfficerCommands, *options: str | Path) -> Result:
    file = officer.file("node-keys.json", node_keys("DK").canonical())
    return officer.run("sign", file, "--yes", *options)


class TestNode:
    def test_a_running_node_gets_the_documents_at_once(
        self, agreed: OfficerCommands, node: Path, daemon: NodeDaemon
    ) -> None:
        result = sign_keys(agreed, "--node", node)
        assert result.exit_code == 0
        assert "Your node is running and has them" in result.stdout
        assert daemon.versions == [1]
        assert read_delivered(agreed.home.handed_file) == Delivered(node=1, exchange=1)

    def test_a_node_given_once_is_remembered(
        self, agreed: OfficerCommands, node: Path, daemon: NodeDaemon
    ) -> None:
        sign_keys(agreed, "--node", node)
        agreed.done("renew")
        assert daemon.versions == [1, 2]
        assert agreed.home.settings().node == str(node)

    def test_a_stopped_node_finds_the_documents_in_its_folder(
        self, agreed: OfficerCommands, node: Path
    ) -> None:
        assert "reads them when it starts" in sign_keys(agreed, "--node", node).stdout
        bundle = (node / "officer" / "country-DK.json").read_bytes()
        key = agreed.home.settings().verify_key
        assert own_country(bundle, "DK", key, agreed.now).node == node_keys("DK")

    def test_a_killed_node_s_old_socket_counts_as_a_stopped_node(
        self, agreed: OfficerCommands, node: Path
    ) -> None:
        (node / "run").mkdir()
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.bind(str(node / "run" / "node.sock"))
        assert sign_keys(agreed, "--node", node).exit_code == 0
        assert (node / "officer" / "country-DK.json").exists()

    def test_a_node_that_refuses_is_reported_and_gets_the_documents_later(
        self, agreed: OfficerCommands, node: Path, daemon: NodeDaemon
    ) -> None:
        daemon.versions.append(9)
        result = sign_keys(agreed, "--node", node)
        assert result.exit_code == 1
        assert "Version 1 is signed and kept, but has not reached everyone" in result.stderr
        assert "It is version 1, but 9 was seen before" in result.stderr
        assert agreed.published().version == 1
        assert "have not reached the node" in agreed.done("inbox")
        daemon.versions.clear()
        agreed.done("renew")
        assert "have not reached" not in agreed.done("inbox")

    def test_a_node_that_does_not_exist_is_refused_before_anything_is_signed(
        self, agreed: OfficerCommands
    ) -> None:
        file = agreed.file("node-keys.json", node_keys("DK").canonical())
        output = agreed.refused("sign", file, "--yes", "--node", agreed.folder / "nowhere")
        assert "There is no node in" in output
        assert read_own(agreed.home, agreed.home.settings(), agreed.now) is None

    def test_the_node_of_another_country_is_refused_before_anything_is_signed(
        self, agreed: OfficerCommands
    ) -> None:
        other = agreed.folder / "other"
        other.mkdir()
        (other / "node.yaml").write_text("country: EE\ndata: /x\n")
        file = agreed.file("node-keys.json", node_keys("DK").canonical())
        output = agreed.refused("sign", file, "--yes", "--node", other)
        assert "It is the node of EE, and you sign for DK" in output
        assert agreed.home.settings().node is None
        assert read_own(agreed.home, agreed.home.settings(), agreed.now) is None

    def test_a_node_that_did_not_answer_is_not_remembered(
        self, agreed: OfficerCommands, node: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def silent(*_: object) -> None:
            raise LocalRpcFault("The daemon did not answer") from TimeoutError()

        with monkeypatch.context() as patch:
            patch.setattr("governance.officer.delivery.deliver", silent)
            assert "did not answer" in sign_keys(agreed, "--node", node).stderr
        assert agreed.home.settings().node is None
        agreed.done("renew", "--node", node)
        assert agreed.home.settings().node == str(node)

    def test_without_a_known_node_the_option_node_is_required(
        self, agreed: OfficerCommands
    ) -> None:
        assert "--node" in sign_keys(agreed).stderr


class TestBundleFile:
    def test_the_file_has_the_bundle_that_was_submitted(self, agreed: OfficerCommands) -> None:
        out = agreed.folder / "bundle.json"
        sign_keys(agreed, "--bundle-out", out)
        [(_, submitted)] = agreed.exchange.submitted[-1:]
        assert out.read_bytes() == submitted
        assert bundle_version(submitted) == 1

    def test_the_officer_is_asked_to_give_the_file_to_the_node_s_operator(
        self, agreed: OfficerCommands
    ) -> None:
        out = agreed.folder / "bundle.json"
        note = sign_keys(agreed, "--bundle-out", out).stderr
        assert f"give {out} to your node's operator: `pratique-node accept {out}`" in note
        assert "--bundle-out" not in note

    def test_a_file_that_cannot_be_written_is_reported(self, agreed: OfficerCommands) -> None:
        blocked = agreed.file("blocked", "a file, not a folder") / "bundle.json"
        result = sign_keys(agreed, "--bundle-out", blocked)
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr
        assert "Traceback" not in result.output


class TestExchange:
    def test_an_exchange_that_does_not_answer_is_reported_and_renewing_helps(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.exchange.submit_down = True
        result = sign_keys(agreed)
        assert result.exit_code == 1
        assert "does not answer" in result.stderr
        assert "pratique-officer renew" in result.stderr
        assert result.stderr.count("To do:") == 1
        agreed.exchange.submit_down = False
        agreed.done("renew")
        assert agreed.published().version == 2

    def test_json_output_states_the_versions_of_node_and_exchange(
        self, agreed: OfficerCommands
    ) -> None:
        answer = json.loads(sign_keys(agreed, "--json").stdout)
        assert answer["version"] == 1
        assert (answer["node_has"], answer["exchange_has"]) == (0, 1)


class TestDeliveredRecord:
    @pytest.mark.parametrize("content", ["", "{", '{"node": -1}', '{"extra": 1}'])
    def test_an_unreadable_record_counts_as_nothing_delivered(
        self, tmp_path: Path, content: str
    ) -> None:
        file = tmp_path / "handed.json"
        file.write_text(content)
        assert read_delivered(file) == Delivered(node=0, exchange=0)
        assert read_delivered(tmp_path / "none") == Delivered()
