from pathlib import Path

import pytest

from tests.support.documents import COUNTRIES, FederationDocuments, node_keys


@pytest.fixture
def documents(tmp_path: Path) -> FederationDocuments:
    """A published agreement, and nothing else yet."""
    return FederationDocuments(tmp_path).publish_agreement()


@pytest.fixture
def full(documents: FederationDocuments) -> FederationDocuments:
    """A published agreement with the node keys of every country."""
    for country in COUNTRIES:
        documents.folders[country].set_node(node_keys(country))
        documents.sign_and_submit(country)
    return documents
