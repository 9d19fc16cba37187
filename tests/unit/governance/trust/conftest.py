from pathlib import Path

import pytest

from tests.support.documents import COUNTRIES, Papers, node_keys


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    """A published agreement, and nothing else yet."""
    return Papers(tmp_path).begin()


@pytest.fixture
def full(papers: Papers) -> Papers:
    """A published agreement with the node keys of every country."""
    for country in COUNTRIES:
        papers.folders[country].set_node(node_keys(country))
        papers.give(country)
    return papers
