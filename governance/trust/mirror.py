"""A folder with copies of published files, so that only what has changed is fetched again.

Nothing here is trusted: a copy is used only if verified metadata name its bytes (see `client.py`).
So copies need not survive a crash whole, and a folder that cannot be written does no harm.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from governance.trust.published_files import read_published
from keys.errors import reason_of
from keys.permissions import OWNER_FILE

_log = logging.getLogger("pratique.documents")


class Mirror:
    """Copies of the files that a reader was made from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return a copy; None if there is none, or if it cannot be read."""
        try:
            return read_published(self._directory, name)
        except OSError:
            return None

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Keep copies of exactly these files."""
        try:
            self._remove_others(files)
            for name, data in files.items():
                self._write(name, data)
        except OSError as error:
            _log.warning("copies of documents are not stored", extra={"why": reason_of(error)})

    def _remove_others(self, files: Mapping[str, bytes]) -> None:
        for file in [each for each in self._directory.rglob("*") if each.is_file()]:
            if file.relative_to(self._directory).as_posix() not in files:
                file.unlink()

    def _write(self, name: str, data: bytes) -> None:
        path = self._directory / name
        if self.read(name) != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(OWNER_FILE)
            path.write_bytes(data)
