import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.records.store import RecordStore
from client.settings import NodeSettings
from governance.documents.study import Study
from tests.support import documents
from tests.support.documents import raw_key
from tests.support.node_federation import DICTIONARY, NodeFederation, records


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> NodeFederation:
    """Four enrolled nodes and one study that every country approved."""
    logging.getLogger("tuf").setLevel(logging.WARNING)
    nodes = NodeFederation(tmp_path_factory.mktemp("template") / "federation")
    nodes.approved()
    nodes.close()
    return nodes


@pytest.fixture
def federation(
    template: NodeFederation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeFederation]:
    """A new copy of the template for each test."""
    copy = template.copied(tmp_path_factory.mktemp("one") / "federation")
    yield copy
    copy.close()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    """The study that every country approved: a histogram of disease by sex, in one round."""
    return federation.study()


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    """The settings of a node with eighty patients, of whom one has opted out."""
    (tmp_path / "records.csv").write_text(records())
    (tmp_path / "dictionary.yaml").write_text(DICTIONARY)
    (tmp_path / "opt-out.txt").write_text("p1\n")
    return NodeSettings(
        country="DK",
        data=tmp_path / "records.csv",
        dictionary=tmp_path / "dictionary.yaml",
        opt_out=tmp_path / "opt-out.txt",
        officer_key=raw_key(5).public.to_text(),
    )


@pytest.fixture
def record_store(settings: NodeSettings) -> RecordStore:
    """The records of these settings, read."""
    store = RecordStore(settings)
    store.refresh()
    return store


@pytest.fixture
def asked_study() -> Study:
    """A study that no document signs: a histogram that these records can answer."""
    return documents.study(documents.agreement())
