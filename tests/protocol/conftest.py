from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node_federation import NodeFederation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    """Four enrolled nodes that hold what is published; a test of other terms makes its own."""
    made = NodeFederation(tmp_path / "federation")
    made.sync()
    yield made
    made.close()
