"""The published files in one folder: they are verified before they are written."""

import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Root

from governance.errors import DocumentFault
from governance.runtime.files import write_atomic
from governance.trust.client import PUBLISHED_NAME, ROOT_NAME
from governance.trust.high_water import TrustHighWater
from governance.trust.layout import role_of
from governance.trust.state import Files, metadata_name
from governance.trust.verification import VerifiedDocuments, load

UNUSED_SECONDS = 3600.0


def read_published(directory: Path, name: str) -> bytes | None:
    """Return a file; None if there is none, or if no file may have this name. Raises OSError."""
    try:
        return (directory / name).read_bytes() if PUBLISHED_NAME.fullmatch(name) else None
    except FileNotFoundError:
        return None


class PublishedFiles:
    """A folder of published files. The caller holds the lock for `commit` and `remove_unused`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return a file; None if there is none with this name, or no file may have it."""
        return read_published(self._directory, name)

    def commit(self, files: Files, now: datetime, *, only: Collection[str] | None = None) -> None:
        """Verify the new state as a node would, then write its new files in this order.

        `only` are the roles of the parties that have changed; None means that all are verified.
        Raises DocumentFault if something does not verify, and then changes nothing.
        """
        self._load(files, now, only)
        for name, data in files.items():
            write_atomic(self._directory / name, data)

    def verify_country(self, files: Files, now: datetime, country: str) -> None:
        """Verify a country's documents in the new state. Raises DocumentFault if they are unfit."""
        verified = self._load(files, now, (role_of(country),))
        if country in verified.absent:
            raise _unfit(country, verified.absent[country], "sign and send them again")
        if country not in verified.countries:
            why = "the country is not a party to the agreement in force"
            raise _unfit(country, why, "wait until an agreement that names it is published")

    def _load(self, files: Files, now: datetime, only: Collection[str] | None) -> VerifiedDocuments:
        def read(name: str) -> bytes | None:
            return files.get(name) or self.read(name)

        first = metadata_name(Root.type, 1)
        return load(read, self.read(first) or files[first], now, TrustHighWater(), only=only)

    def write_missing(self, files: Files) -> None:
        """Write each of the files that is not there yet; no reader asks for it before it is listed.

        No lock is needed, because a file's name says what it contains.
        """
        for name, data in files.items():
            if self.read(name) != data:
                write_atomic(self._directory / name, data)

    def remove_unused(self, used: Collection[str]) -> None:
        """Delete each file that is neither used nor a root, and was written over an hour ago.

        A reader that read the former timestamp finds the former files until then.
        """
        oldest = time.time() - UNUSED_SECONDS
        for file in [each for each in self._directory.rglob("*") if each.is_file()]:
            name = file.relative_to(self._directory).as_posix()
            kept = name in used or ROOT_NAME.fullmatch(name)
            if not kept and file.stat().st_mtime < oldest:
                file.unlink()


def _unfit(country: str, why: str, fix: str) -> DocumentFault:
    return DocumentFault(
        f"The documents of {country} are not published",
        why=why,
        fix=f"ask the privacy officer of {country} to {fix}",
    )
