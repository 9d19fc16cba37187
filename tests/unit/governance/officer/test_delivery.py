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
from governance.runtime.local_rpc import LocalRpcServer
from governance.trust.bundle import own_country
from tests.support.documents import node_keys
from tests.support.officers import Keyboard, bundle_version

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def node(agreed: Keyboard) -> Iterator[Path]:
    """A node's folder with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="node-", dir="/tmp"))
    (folder / "node.yaml").write_text("country: DK\n")
    yield folder
    shutil.rmtree(folder)


class NodeDaemon:
    """A node's RPC server that verifies its officer's documents by the officer's key."""

    def __init__(self, node: Path, officer: Keyboard) -> None:
        self.versions: list[int] = []
        self._officer = officer
        self.rpc_server = LocalRpcServer(node / "run" / "node.sock", self._answer)

    def _answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != "deliver":
            raise DocumentFault(f"There is no {method} here")
        bundle = base64.b64decode(params["bundle"])
        key = self._officer.home.settings().verify_key
        known = max(self.versions, default=0)
        own = own_country(bundle, "DK", key, self._officer.now, at_least=known)
        self.versions.append(own.version)
        return {"version": own.version}


@pytest.fixture
def daemon(node: Path, agreed: Keyboard) -> Iterator[NodeDaemon]:
    running = NodeDaemon(node, agreed)
    yield running
    running.rpc_server.close()


def sign_keys(officer: Keyboard, *words: str | Path) -> Result:
    file = officer.file("node-keys.json", node_keys("DK").canonical())
    return officer.run("sign", file, "--yes", *words)


class TestNode:
    def test_that_runs_gets_the_documents_at_once(
        self, agreed: Keyboard, node: Path, daemon: NodeDaemon
    ) -> None:
        result = sign_keys(agreed, "--node", node)
        assert result.exit_code == 0
        assert "Your node is running and has them" in result.stdout
        assert daemon.versions == [1]
        assert read_delivered(agreed.home.handed_file) == Delivered(node=1, exchange=1)

    def test_is_remembered(self, agreed: Keyboard, node: Path, daemon: NodeDaemon) -> None:
        sign_keys(agreed, "--node", node)
        agreed.done("renew")
        assert daemon.versions == [1, 2]
        assert agreed.home.settings().node == str(node)

    def test_that_is_down_finds_them_in_its_folder(self, agreed: Keyboard, node: Path) -> None:
        assert "reads them when it starts" in sign_keys(agreed, "--node", node).stdout
        bundle = (node / "officer" / "country-DK.json").read_bytes()
        key = agreed.home.settings().verify_key
        assert own_country(bundle, "DK", key, agreed.now).node == node_keys("DK")

    def test_that_was_killed_and_left_its_socket_is_handled(
        self, agreed: Keyboard, node: Path
    ) -> None:
        (node / "run").mkdir()
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.bind(str(node / "run" / "node.sock"))
        assert sign_keys(agreed, "--node", node).exit_code == 0
        assert (node / "officer" / "country-DK.json").exists()

    def test_that_refuses_is_reported_and_gets_the_documents_later(
        self, agreed: Keyboard, node: Path, daemon: NodeDaemon
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

    def test_that_does_not_exist_is_refused_before_anything_is_signed(
        self, agreed: Keyboard
    ) -> None:
        file = agreed.file("node-keys.json", node_keys("DK").canonical())
        output = agreed.refused("sign", file, "--yes", "--node", agreed.folder / "nowhere")
        assert "There is no node in" in output
        assert read_own(agreed.home, agreed.home.settings(), agreed.now) is None

    def test_that_is_unknown_must_be_named(self, agreed: Keyboard) -> None:
        assert "--node" in sign_keys(agreed).stderr


class TestFile:
    def test_has_the_same_bundle(self, agreed: Keyboard) -> None:
        out = agreed.folder / "carried.json"
        sign_keys(agreed, "--bundle-out", out)
        [(_, submitted)] = agreed.exchange.submitted[-1:]
        assert out.read_bytes() == submitted
        assert bundle_version(submitted) == 1

    def test_is_to_be_given_to_the_node_s_operator(self, agreed: Keyboard) -> None:
        out = agreed.folder / "carried.json"
        note = sign_keys(agreed, "--bundle-out", out).stderr
        assert f"give {out} to your node's operator: `pratique-node accept {out}`" in note
        assert "--bundle-out" not in note

    def test_that_cannot_be_written_is_reported(self, agreed: Keyboard) -> None:
        blocked = agreed.file("blocked", "a file, no folder") / "carried.json"
        result = sign_keys(agreed, "--bundle-out", blocked)
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr
        assert "Traceback" not in result.output


class TestExchange:
    def test_that_refuses_is_quoted(self, agreed: Keyboard) -> None:
        """The clock of the exchange is a month ahead: documents signed now have expired there."""
        agreed.exchange.submit_down = True
        result = sign_keys(agreed)
        assert result.exit_code == 1
        assert "does not answer" in result.stderr
        assert "pratique-officer renew" in result.stderr
        assert result.stderr.count("To do:") == 1
        agreed.exchange.submit_down = False
        agreed.done("renew")
        assert agreed.published().version == 2

    def test_prints_as_json_which_versions_are_where(self, agreed: Keyboard) -> None:
        answer = json.loads(sign_keys(agreed, "--json").stdout)
        assert answer["version"] == 1
        assert (answer["node_has"], answer["exchange_has"]) == (0, 1)


class TestHanded:
    @pytest.mark.parametrize("content", ["", "{", '{"node": -1}', '{"extra": 1}'])
    def test_an_unreadable_record_counts_as_nothing_delivered(
        self, tmp_path: Path, content: str
    ) -> None:
        file = tmp_path / "handed.json"
        file.write_text(content)
        assert read_delivered(file) == Delivered(node=0, exchange=0)
        assert read_delivered(tmp_path / "none") == Delivered()
