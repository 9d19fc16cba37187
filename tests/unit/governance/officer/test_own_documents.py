"""What an officer signed last is read back by the officer's own key, expired or not."""

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
def test_what_was_signed_is_read_however_late(
    home: OfficerHome, settings: Settings, later: timedelta
) -> None:
    documents = own_documents(home, settings)
    documents.set_node(node_keys("DK"))
    documents.sign(NOW, KEY)
    own = read_own(home, settings, NOW + later)
    assert own is not None
    assert own.node == node_keys("DK")


def test_a_folder_that_another_hand_signed_is_no_source(
    home: OfficerHome, settings: Settings
) -> None:
    documents = own_documents(home, settings)
    documents.set_node(node_keys("DK"))
    documents.sign(NOW, raw_key(101))
    with pytest.raises(DocumentFault):
        read_own(home, settings, NOW)
