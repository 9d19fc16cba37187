"""Copy a node's database, as a backup does, and restore it later."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.node_federation import NodeFederation


class Backup:
    """A copy of one node's database: made now, while the node runs, or `made` before."""

    def __init__(
        self,
        federation: NodeFederation,
        country: str,
        name: str = "backup.db",
        *,
        made: bool = False,
    ) -> None:
        self.federation, self.country = federation, country
        self.file: Path = federation.folder / name
        if not made:
            self._copy()

    def _copy(self) -> None:
        with (
            closing(sqlite3.connect(self.federation.home(self.country).database)) as running,
            closing(sqlite3.connect(self.file)) as copy,
        ):
            running.backup(copy)

    def restore(self, *, head: bool = True) -> None:
        """Replace the node's database by the copy; unless `head`, delete the log-head file."""
        home = self.federation.home(self.country)
        self.federation.nodes[self.country].parts.engine.dispose()
        for file in home.path.glob("state.db*"):
            file.unlink()
        shutil.copy(self.file, home.database)
        home.database.chmod(0o600)
        if not head:
            home.log_head.unlink()
