"""An officer's last signed documents are read back by the officer's own key, even if expired."""

from datetime import timedelta
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.officer.home import OfficerHome, Settings
from governance.officer.own_documents import own_documents, read_own
from tests.support.documents import NOW, node_keys, raw_key

KEY = raw_key(100)


@pytest.fixture
def settings() -> Settings:
    return Settings(country="DK", authority="Health Authority", document_key=KEY.public.to_text())


@pytest.fixture
def home(tmp_path: Path) -> OfficerHome:
    return OfficerHome(tmp_path)


def test_nothing_is_there_before_the_first_signature(home: OfficerHome, settings: Settings) -> None:
    own_documents(home, settings).set_node(node_keys("DK"))
    assert read_own(home, settings, NOW) is None


@pytest.mark.parametrize("later", [timedelta(0), timedelta(days=300)])
def test_signed_documents_are_read_at_any_later_time(
    home: OfficerHome, settings: Settings, later: timedelta
) -> None:
    documents = own_documents(home, settings)
    documents.set_node(node_keys("DK"))
    documents.sign(NOW, KEY)
    own = read_own(home, settings, NOW + later)
    assert own is not None
    assert own.node == node_keys("DK")


def test_a_folder_signed_by_another_key_is_refused(home: OfficerHome, settings: Settings) -> None:
    documents = own_documents(home, settings)
    documents.set_node(node_keys("DK"))
    documents.sign(NOW, raw_key(101))
    with pytest.raises(DocumentFault):
        read_own(home, settings, NOW)
