from pathlib import Path

import pytest

from keys.certificates import TransportAuthority
from keys.store import KeyStore
from tests.support.certificates import NOW
from tests.support.keystore import fast_store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(directory: Path) -> KeyStore:
    return fast_store(directory)


@pytest.fixture(scope="module")
def authority() -> TransportAuthority:
    return TransportAuthority.create("danube", NOW)
