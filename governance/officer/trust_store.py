"""Store the root that the officer trusts, and verify the published documents from it.

The root is that of the draft that this officer signed, or the one whose digest came with the
invitation and was compared by voice. Nothing else that an exchange shows can replace it.
"""

from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.officer.errors import OfficerFault
from governance.officer.home import Settings
from governance.runtime.files import write_atomic
from governance.trust.ceremony import Draft
from governance.trust.layout import FIRST_ROOT
from governance.trust.mirror import Mirror
from governance.trust.view import Fetch, TrustedView, TrustHighWater
from protocols.wire.encoding import digest

AGREEMENT = "agreement.json"
LARGEST_HIGH_WATER = 2**20


class TrustStore:
    """The root, the draft that was signed last, and the highest document versions seen."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory, self._settings = directory, settings
        self._mirror = Mirror(directory / "published")

    def view(self, fetch: Fetch, now: datetime) -> TrustedView:
        """Return the verified view, and remember its files, root and versions.

        Raises OfficerFault if no agreement is published yet or its root is not the trusted one,
        DocumentFault if something does not verify.
        """
        root = self.root(fetch)
        view = TrustedView.load(fetch, root, now, self._high_water(), held=self._mirror.read)
        self._mirror.replace(view.files)
        write_atomic(self._root_file, root)
        write_atomic(self._high_water_file, view.high_water.model_dump_json().encode())
        write_atomic(self._directory / AGREEMENT, view.agreement.canonical())
        return view

    @property
    def knows_root(self) -> bool:
        """Whether a first root was published: it was verified here, or the invitation named it."""
        return self._root_file.exists() or self._settings.root_digest is not None

    def root(self, fetch: Fetch) -> bytes:
        """Return the root to verify from. Raises OfficerFault if there is none to trust."""
        if self._root_file.exists():
            return self._root_file.read_bytes()
        published = fetch(FIRST_ROOT)
        if published is None:
            raise OfficerFault(
                "The agreement is not published yet",
                why="not enough countries have signed it",
                fix="sign the draft that waits (`pratique-officer sign`), and wait for the others",
            )
        self._check_root(published)
        return published

    def _check_root(self, published: bytes) -> None:
        draft = self.draft()
        signed_here = draft is not None and draft.root().signed_bytes == _signed_bytes(published)
        if signed_here or digest(published) == self._settings.root_digest:
            return
        if draft is None and self._settings.root_digest is None:
            raise OfficerFault(
                "Your folder has nothing to compare the published root with",
                why="you have not signed the draft, and your invitation is older than the root",
                fix="ask for a new invitation, compare its root digest by voice, and enrol with it",
            )
        raise OfficerFault(
            "The exchange shows another root than the one you know",
            why="the root is neither the one you signed nor the one of your invitation",
            fix="do not go on; call the officers of the other countries and compare",
        )

    def draft(self) -> Draft | None:
        """Return the draft that this officer agreed to last."""
        file = self._directory / "draft.json"
        return Draft.from_canonical(file.read_bytes()) if file.exists() else None

    def keep_draft(self, draft: Draft) -> None:
        """Store the draft, before its signatures are submitted."""
        write_atomic(self._directory / "draft.json", draft.canonical())

    def has_signed(self, draft: Draft) -> bool:
        """Whether this officer's signatures over the draft were submitted."""
        file = self._directory / "handed-in"
        return file.exists() and file.read_text() == draft.digest

    def mark_signed(self, draft: Draft) -> None:
        """Remember that the signatures over the draft were submitted."""
        write_atomic(self._directory / "handed-in", draft.digest.encode())

    @property
    def _root_file(self) -> Path:
        return self._directory / "root.json"

    @property
    def _high_water_file(self) -> Path:
        return self._directory / "floor.json"

    def _high_water(self) -> TrustHighWater:
        if not self._high_water_file.exists():
            return TrustHighWater(keys={self._settings.country: self._settings.document_key})
        try:
            return TrustHighWater.model_validate_json(
                self._high_water_file.read_bytes()[:LARGEST_HIGH_WATER]
            )
        except ValidationError:
            raise DocumentFault(
                f"The file {self._high_water_file} cannot be read",
                why="it states the versions seen last, and was changed or damaged",
                fix="restore it from a backup",
            ) from None


def kept_agreement(directory: Path) -> Agreement | None:
    """Return the agreement as it was verified last; None before that."""
    file = directory / AGREEMENT
    return Agreement.from_canonical(file.read_bytes()) if file.exists() else None


def _signed_bytes(root: bytes) -> bytes | None:
    try:
        return Metadata[Root].from_bytes(root).signed_bytes
    except (RepositoryError, ValueError):
        return None
