"""The coordinator's verified view of its published documents, checked as every party does it."""

from datetime import datetime
from functools import cache
from pathlib import Path

from governance.trust.layout import FIRST_ROOT
from governance.trust.repository import Repository
from governance.trust.view import TrustedView
from governance.trust.view_cache import ViewCache
from server.errors import CoordinatorFault
from server.home import CoordinatorHome


def read_published_view(home: CoordinatorHome, now: datetime) -> TrustedView:
    """Return the verified view. Raises CoordinatorFault before the first agreement is signed."""
    repository = Repository(home.repository)
    root = repository.read(FIRST_ROOT)
    if root is None:
        raise CoordinatorFault(
            "There is no agreement yet",
            why="the countries have not signed one, or too few have signed",
            fix="run `pratique-coordinator agreement propose FILE`, then ask the officers to sign; "
            "`agreement status` shows who has not signed",
        )
    return _view_cache(home.repository).view(repository.read, root, now)


@cache
def _view_cache(folder: Path) -> ViewCache:  # noqa: ARG001 (one cache for each folder)
    return ViewCache()
