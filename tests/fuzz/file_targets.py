"""Targets: the settings, passphrases and key stores of the programs' folders."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from client.home import NodeHome
from client.settings import Enrolment, NodeSettings
from governance.documents.yaml_text import dump_yaml
from governance.officer.home import OfficerHome
from governance.officer.home import Settings as OfficerSettings
from governance.officer.node_link import require_node_of
from keys.passphrase import PASSPHRASE_LIMIT_BYTES, read_passphrase
from keys.store import HEADER_NAME, KeyStore
from server.home import CoordinatorHome
from server.home import Settings as CoordinatorSettings
from tests.fuzz.target import (
    Parse,
    Seeds,
    Target,
    file,
    scratch,
)
from tests.support.documents import raw_key
from tests.support.keystore import PASSPHRASE, fast_store

READING, KEY = "governance/documents/reading.py", raw_key(5)


def _settings_file(name: str, read: Callable[[Path], object]) -> Parse:
    """Read the settings of a folder, which only its owner may enter."""

    def parse(data: bytes) -> None:
        folder = scratch() / "home"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_bytes(data)
        read(folder)

    return parse


def _passphrase(path: Path) -> None:
    passphrase = read_passphrase(file=path, fd=None, prompt=None, purpose="the key store")
    assert 0 < len(passphrase) <= PASSPHRASE_LIMIT_BYTES


@cache
def _store() -> Path:
    fast_store(scratch() / "keys").put("document-key", b"secret")
    return scratch() / "keys"


def _key_store(name: str) -> Parse:
    """Read a file of the key store: what is returned is what was stored under this name."""

    def parse(data: bytes) -> None:
        path = _store() / name
        whole = path.read_bytes()
        if name == HEADER_NAME and data[len(b"pratique/keystore/v1") :][:1] > b"\x0c":
            return  # a header of a higher cost is read, and needs up to a gigabyte
        try:
            path.write_bytes(data)
            assert KeyStore.open(_store(), PASSPHRASE).get("document-key") == b"secret"
            assert data == whole
        finally:
            path.write_bytes(whole)

    return parse


def _settings_seeds(kind: str) -> Seeds:
    key = KEY.public.to_text()
    node = NodeSettings(
        country="DK",
        data=Path("/srv/records.csv"),
        dictionary=Path("/srv/dictionary.yaml"),
        officer_key=key,
        observe="127.0.0.1:9100",
        enrolment=Enrolment(
            federation="danube",
            exchange="exchange.example.org:7443",
            authority_digest="sha256:" + "a" * 64,
            root_digest="sha256:" + "b" * 64,
        ),
    )
    exchange = CoordinatorSettings(
        federation="danube", listen="0.0.0.0:7443", address="[2001:db8::1]:7443"
    )
    officer = OfficerSettings(country="DK", authority="Authority of DK", document_key=key)
    chosen = {"node": node, "coordinator": exchange, "officer": officer}[kind]
    return (dump_yaml(chosen.model_dump(mode="json", exclude_none=True)),)


FILE_TARGETS: dict[str, Target] = {
    "node.yaml": Target(
        _settings_file("node.yaml", lambda folder: NodeHome(folder).settings()),
        partial(_settings_seeds, "node"),
        (READING, "client/home.py", "governance/runtime/loopback.py"),
    ),
    "node.yaml, for the officer": Target(
        _settings_file("node.yaml", lambda folder: require_node_of(folder, "DK")),
        partial(_settings_seeds, "node"),
        ("governance/officer/node_link.py",),
    ),
    "coordinator.yaml": Target(
        _settings_file("coordinator.yaml", lambda folder: CoordinatorHome(folder).settings()),
        partial(_settings_seeds, "coordinator"),
        (READING, "server/home.py"),
    ),
    "officer.yaml": Target(
        _settings_file("officer.yaml", lambda folder: OfficerHome(folder).settings()),
        partial(_settings_seeds, "officer"),
        (READING, "governance/officer/home.py"),
    ),
    "passphrase file": Target(file(_passphrase), (b"four words\n",), ("keys/passphrase.py",)),
    "header of a key store": Target(
        _key_store(HEADER_NAME),
        lambda: ((_store() / HEADER_NAME).read_bytes(),),
        ("keys/store.py",),
    ),
    "secret of a key store": Target(
        _key_store("document-key.sealed"),
        lambda: ((_store() / "document-key.sealed").read_bytes(),),
        ("keys/store.py", "keys/sealing.py"),
    ),
}
