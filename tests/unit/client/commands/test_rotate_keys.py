"""`pratique-node rotate-keys`, and the doctor's result until the new keys are signed."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.commands.check_result import CheckState
from client.commands.doctor import Doctor
from client.commands.rotate_keys import rotate_keys
from client.credentials.identity_keys import IdentityKeys
from client.home import NodeHome
from governance.documents.permit import NodeKeys
from keys.composite import read_identity
from keys.errors import PratiqueError
from keys.store import KeyStore
from tests.support.documents import FederationDocuments, node_keys
from tests.support.joining_node import NOW, create_joining_node
from tests.support.keystore import PASSPHRASE, reopen


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return create_joining_node(tmp_path)


def keys_of(home: NodeHome) -> NodeKeys:
    return NodeKeys.from_canonical(home.node_keys.read_bytes())


def test_the_command_prints_the_fingerprint_that_the_officer_compares(
    home: NodeHome, tmp_path: Path
) -> None:
    file, before = tmp_path / "passphrase", keys_of(home)
    file.touch(0o600)
    file.write_bytes(PASSPHRASE)
    result = CliRunner().invoke(
        app, ["rotate-keys", "--home", str(home.path), "--passphrase-file", str(file)]
    )
    assert result.exit_code == 0, result.output
    after = keys_of(home)
    assert read_identity(after.identity_key).fingerprint in result.output
    assert str(home.node_keys) in result.output
    assert after.succession is not None
    assert after.succession.former == before.identity_key
    assert after.log_key == before.log_key


def test_a_rotation_does_not_change_the_key_in_use_yet(home: NodeHome) -> None:
    before = keys_of(home).identity_key
    rotate_keys(home, reopen(home.keys), datetime.now(UTC))
    assert IdentityKeys(reopen(home.keys)).current.public.to_text() == before


def test_public_keys_without_a_former_key_keep_their_format() -> None:
    assert b"succession" not in node_keys("DK").canonical()


def test_a_store_that_cannot_be_written_leaves_the_file_unchanged(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PratiqueError("The disk is full")

    before = home.node_keys.read_bytes()
    monkeypatch.setattr(KeyStore, "put", full)
    with pytest.raises(PratiqueError, match="full"):
        rotate_keys(home, reopen(home.keys), NOW)
    assert home.node_keys.read_bytes() == before


def test_the_doctor_reports_no_fault_while_the_officer_has_not_signed(
    home: NodeHome, tmp_path: Path
) -> None:
    documents = FederationDocuments(tmp_path / "documents")
    documents.folders["DK"].set_node(keys_of(home))
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    (home.officer / "country-DK.json").write_bytes(bundle)
    rotate_keys(home, reopen(home.keys), NOW)
    doctor = Doctor(home=home, passphrase=lambda: PASSPHRASE, dial=None, clock=lambda: NOW)  # type: ignore[arg-type]
    results = {finding.name: finding for finding in doctor.results()}
    assert results["keys"].state is CheckState.GOOD
    assert results["officer"].state is CheckState.SOON
    assert "new keys" in results["officer"].says
