from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node_federation import NodeFederation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    """Four enrolled nodes with all published documents; a test of other terms makes its own."""
    nodes = NodeFederation(tmp_path / "federation")
    nodes.sync()
    yield nodes
    nodes.close()
