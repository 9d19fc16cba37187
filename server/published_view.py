"""The coordinator's own look at what it has published, verified like anybody else's."""

from datetime import datetime
from functools import cache
from pathlib import Path

from governance.trust.repository import Repository
from governance.trust.view import TrustedView
from governance.trust.view_cache import ViewCache
from server.errors import OperationFault
from server.home import CoordinatorHome

FIRST_ROOT = "metadata/1.root.json"


def published(home: CoordinatorHome, now: datetime) -> TrustedView:
    """Return the verified view. Raises OperationFault before the first agreement is signed."""
    repository = Repository(home.repository)
    root = repository.read(FIRST_ROOT)
    if root is None:
        raise OperationFault(
            "There is no agreement yet",
            why="the countries have not signed one, or not enough of them",
            fix="run `pratique-coordinator agreement propose FILE`, then let the officers sign; "
            "`agreement status` says who has not",
        )
    return _memory(home.repository).view(repository.read, root, now)


@cache
def _memory(folder: Path) -> ViewCache:  # noqa: ARG001 (each folder has its own)
    return ViewCache()
