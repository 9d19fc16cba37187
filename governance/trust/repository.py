"""The coordinator's store of signed documents. It publishes only what verifies."""

from datetime import datetime
from pathlib import Path

from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.trust.ceremony import DraftStatus
from governance.trust.versions import Versions
from keys.identity import SigningKey


class Repository:
    """One TUF repository in a directory. Safe among threads and processes.

    Raises DocumentFault for whatever does not verify, and changes nothing then.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def draft(self, agreement: Agreement, now: datetime) -> bytes:
        """Begin a signing ceremony, replacing one under way; return the draft for the officers.

        Version 1 where nothing is published yet, else the next one (an amendment).
        """
        raise NotImplementedError

    def add_signatures(self, signatures: bytes) -> DraftStatus:
        """Take one officer's signatures over the draft; return who has signed."""
        raise NotImplementedError

    def draft_status(self) -> DraftStatus | None:
        """Return how far the ceremony under way is; None where there is none."""
        raise NotImplementedError

    def publish(self, now: datetime, *, documents: SigningKey, online: SigningKey) -> Versions:
        """Publish the draft once its thresholds are met (the old ones too, in an amendment)."""
        raise NotImplementedError

    def accept_country(self, bundle: bytes, now: datetime, *, online: SigningKey) -> Versions:
        """Publish a country's signed bundle. The same bundle again changes nothing."""
        raise NotImplementedError

    def add_study(
        self, study: Study, now: datetime, *, documents: SigningKey, online: SigningKey
    ) -> Versions:
        """Publish `studies/<id>.json` under the coordinator's document key."""
        raise NotImplementedError

    def add_release(
        self, name: str, data: bytes, now: datetime, *, documents: SigningKey, online: SigningKey
    ) -> Versions:
        """Publish `releases/<name>.json` under the coordinator's document key."""
        raise NotImplementedError

    def refresh(self, now: datetime, *, online: SigningKey) -> Versions:
        """Sign a new timestamp (24 h), and a new snapshot where the old one nears its end."""
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        """Return a published file for the fetch service; None where there is none such.

        Names: `metadata/1.root.json`, `metadata/timestamp.json`, `targets/<dir>/<hash>.<file>`.
        """
        raise NotImplementedError
