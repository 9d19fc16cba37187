"""The officer's side: a country's documents in a folder, signed with the country's key."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from tuf.api.metadata import Metadata, TargetFile, Targets

from governance.documents.models import Country, Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.errors import DocumentFault
from governance.policy.cedar import check_national
from governance.trust.bundle import MOST_TARGETS, CountryBundle
from governance.trust.files import one_writer, write_atomic
from governance.trust.layout import (
    COUNTRY_LIFE,
    node_path,
    permit_path,
    policy_path,
    signed_field,
    signer,
    withdrawal_path,
)
from keys.identity import SigningKey

BUNDLE_FILE = "bundle.json"
PENDING_FILE = "pending.json"


class Pending(Document):
    """What the next signature will cover: every target, by path."""

    title_of_kind: ClassVar[str] = "folder of documents to be signed"
    most_bytes: ClassVar[int] = CountryBundle.most_bytes

    kind: Literal["pending"] = "pending"
    country: Country
    targets: Annotated[dict[str, str], Field(max_length=MOST_TARGETS)]


class OfficerDocuments:
    """The state of role `country-XX` in a folder of the officer's home.

    Changes wait in the folder until `sign`; each signature makes a new version, kept before it
    is handed out, so that no version is ever signed twice with different contents.
    """

    def __init__(self, directory: Path, country: str) -> None:
        self._directory, self._country = directory, country

    @property
    def version(self) -> int:
        """The version signed last; 0 before the first."""
        data = self.bundle()
        return CountryBundle.from_canonical(data).signed().signed.version if data else 0

    def bundle(self) -> bytes | None:
        """Return the bundle signed last."""
        return self._read(BUNDLE_FILE)

    def set_node(self, keys: NodeKeys) -> None:
        """Vouch for the keys of the own node."""
        self._own(keys.country)
        self._change({node_path(self._country): keys.canonical().decode()})

    def approve(self, permit: Permit) -> None:
        """Add a permit; a withdrawal of the same study is taken back with it."""
        self._own(permit.country)
        added = {permit_path(self._country, permit.study): permit.canonical().decode()}
        self._change(added, removed=withdrawal_path(self._country, permit.study))

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Add a withdrawal; it outweighs the permit."""
        self._own(withdrawal.country)
        path = withdrawal_path(self._country, withdrawal.study)
        self._change({path: withdrawal.canonical().decode()})

    def set_policy(self, text: str | None) -> None:
        """Set or remove the national policy. Raises DocumentFault where it is not forbid-only."""
        path = policy_path(self._country)
        if text is None:
            self._change({}, removed=path)
            return
        check_national(text)
        self._change({path: text})

    def sign(self, now: datetime, key: SigningKey, *, at_least: int = 0) -> bytes:
        """Sign everything as it stands, for seven days; return the bundle as one file.

        The version is above the last one and above `at_least` (what the exchange shows).
        """
        with one_writer(self._directory):
            targets = self._pending().targets
            signed = Targets(
                version=max(self.version, at_least) + 1,
                expires=now + COUNTRY_LIFE,
                targets={p: TargetFile.from_data(p, text.encode()) for p, text in targets.items()},
                unrecognized_fields=signed_field(now),
            )
            metadata = Metadata(signed)
            metadata.sign(signer(key))
            bundle = CountryBundle(
                country=self._country, metadata=metadata.to_bytes().decode(), targets=targets
            )
            write_atomic(self._directory / BUNDLE_FILE, bundle.canonical())
        return bundle.canonical()

    def _own(self, country: str) -> None:
        if country != self._country:
            raise DocumentFault(
                f"This document is of {country}, not of {self._country}",
                why="an officer speaks for one country",
                fix=f"prepare it for {self._country}",
            )

    def _change(self, added: dict[str, str], *, removed: str = "") -> None:
        with one_writer(self._directory):
            kept = {path: t for path, t in self._pending().targets.items() if path != removed}
            changed = Pending(country=self._country, targets=kept | added)
            write_atomic(self._directory / PENDING_FILE, changed.canonical())

    def _pending(self) -> Pending:
        data = self._read(PENDING_FILE)
        return Pending.from_canonical(data) if data else Pending(country=self._country, targets={})

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None
