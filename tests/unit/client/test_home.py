"""The node's folder: private, one node in it, one daemon on it."""

from pathlib import Path

import pytest

from client.errors import NodeFault
from client.home import NodeHome, read_public
from client.settings import NodeSettings
from keys.errors import KeyFault
from tests.support.joining_node import OFFICER

SETTINGS = NodeSettings(
    country="NO", data=Path("/r.csv"), dictionary=Path("/d.yaml"), officer_key=OFFICER
)


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    new_home = NodeHome(tmp_path / "node")
    new_home.path.mkdir(mode=0o700)
    new_home.write_settings(SETTINGS)
    return new_home


def test_settings_are_read_back_unchanged(home: NodeHome) -> None:
    """Norway's code NO stays a text, although YAML 1.1 reads it as false."""
    assert home.settings() == SETTINGS
    assert home.settings().country == "NO"


def test_a_folder_without_settings_is_no_node(tmp_path: Path) -> None:
    with pytest.raises(NodeFault) as fault:
        NodeHome(tmp_path).settings()
    assert "pratique-node init" in fault.value.fix


def test_a_missing_folder_is_no_node(tmp_path: Path) -> None:
    with pytest.raises(NodeFault):
        NodeHome(tmp_path / "none").settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("country: [", "node.yaml"),
        ("country: NO\nmodules: [a\n", "line 3, column 1: the yaml is not well formed: while"),
        ("country: NO\nobserve: here\n", "line 2, column 1, observe: expected a loopback"),
        ("country: NO\ncolour: red\n", "line 2, column 1, colour: there is no such field here"),
        ("country: NO\n", "officer_key: this field is missing"),
        ("country: 'XX1'\n", "country"),
        ("- a\n", "expected fields, each written `name: value`, found a list"),
        ("", "expected fields, each written `name: value`, found nothing"),
    ],
)
def test_invalid_settings_are_reported_by_name(home: NodeHome, text: str, named: str) -> None:
    home.settings_file.write_text(text)
    with pytest.raises(NodeFault) as fault:
        home.settings()
    assert named in str(fault.value).lower()


def test_an_unknown_setting_is_refused(home: NodeHome) -> None:
    home.settings_file.write_text(home.settings_file.read_text() + "noise: zero\n")
    with pytest.raises(NodeFault, match=r"node\.yaml"):
        home.settings()


def test_a_folder_that_others_may_enter_is_refused(home: NodeHome) -> None:
    home.path.chmod(0o755)
    with pytest.raises(KeyFault) as fault:
        home.settings()
    assert fault.value.fix == f"chmod 0700 {home.path}"


def test_only_the_owner_may_enter_a_new_folder(home: NodeHome) -> None:
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert home.settings_file.stat().st_mode & 0o077 == 0


def test_a_second_node_in_a_folder_is_refused(home: NodeHome) -> None:
    with pytest.raises(NodeFault, match="already"):
        home.require_free()


def test_keys_without_settings_are_kept(tmp_path: Path) -> None:
    home = NodeHome(tmp_path / "node")
    home.keys.mkdir(parents=True)
    with pytest.raises(NodeFault, match="the keys of a node, and no settings") as caught:
        home.require_free()
    assert "backup" in caught.value.fix


def test_two_daemons_do_not_run_on_one_home(home: NodeHome) -> None:
    with (
        home.locked(),
        pytest.raises(NodeFault, match="is running"),
        NodeHome(home.path).locked(),
    ):
        pass
    with home.locked():
        pass


def test_a_missing_public_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeFault) as fault:
        read_public(tmp_path / "root.json", "The root", "enrol again")
    assert "root.json" in fault.value.why
    assert fault.value.fix == "enrol again"
