"""`accept` imports the country's documents from a file, with or without a running daemon."""

import base64
from pathlib import Path
from typing import Any

import pytest

from client.commands.accept import accept_file
from client.errors import NodeFault
from client.home import NodeHome
from governance.errors import DocumentFault
from governance.runtime.local_rpc import LocalRpcFault, LocalRpcServer
from tests.support.node_federation import NodeFederation


@pytest.fixture
def home(federation: NodeFederation) -> NodeHome:
    new_home = federation.home("DK")
    assert federation.nodes["DK"]
    new_home.write_settings(federation.settings("DK"))
    return new_home


@pytest.fixture
def bundle(federation: NodeFederation, tmp_path: Path) -> Path:
    file = tmp_path / "bundle.json"
    file.write_bytes(federation.documents.sign_and_submit("DK"))
    return file


def test_the_documents_wait_for_the_daemon_to_start(
    federation: NodeFederation, home: NodeHome, bundle: Path
) -> None:
    sentence = accept_file(home, bundle, federation.clock())
    assert "waits" in sentence
    node = federation.restart("DK")
    before = node.parts.documents.own(federation.clock()).version
    node.do_upkeep()
    assert node.parts.documents.own(federation.clock()).version == before + 1


def test_a_running_daemon_imports_the_documents_at_once(
    federation: NodeFederation, home: NodeHome, bundle: Path
) -> None:
    requests: list[tuple[str, Any]] = []
    rpc_server = LocalRpcServer(
        home.socket, lambda method, params: requests.append((method, dict(params)))
    )
    try:
        assert "running node now has" in accept_file(home, bundle, federation.clock())
    finally:
        rpc_server.close()
    assert requests == [("deliver", {"bundle": base64.b64encode(bundle.read_bytes()).decode()})]
    assert list(home.officer.iterdir()) == []


def test_a_refusal_of_the_daemon_is_shown(
    federation: NodeFederation, home: NodeHome, bundle: Path
) -> None:
    def refuse(_method: str, _params: object) -> None:
        raise DocumentFault("It is older than what this node has")

    rpc_server = LocalRpcServer(home.socket, refuse)
    try:
        with pytest.raises(LocalRpcFault, match="older"):
            accept_file(home, bundle, federation.clock())
    finally:
        rpc_server.close()
    assert list(home.officer.iterdir()) == []


def test_a_socket_left_by_a_killed_daemon_counts_as_no_daemon(
    federation: NodeFederation, home: NodeHome, bundle: Path
) -> None:
    home.socket.parent.mkdir(mode=0o700)
    home.socket.write_bytes(b"")
    assert "waits" in accept_file(home, bundle, federation.clock())


def test_a_bundle_of_another_country_is_refused(
    federation: NodeFederation, home: NodeHome, tmp_path: Path
) -> None:
    file = tmp_path / "ee.json"
    file.write_bytes(federation.documents.folders["EE"].bundle() or b"")
    with pytest.raises(DocumentFault):
        accept_file(home, file, federation.clock())
    assert list(home.officer.iterdir()) == []


def test_a_missing_file_is_named(
    federation: NodeFederation, home: NodeHome, tmp_path: Path
) -> None:
    with pytest.raises(NodeFault, match=r"none\.json"):
        accept_file(home, tmp_path / "none.json", federation.clock())
