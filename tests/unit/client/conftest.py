import logging
from collections.abc import Iterator

import pytest

from governance.documents.study import Study
from tests.support.node_federation import NodeFederation


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
