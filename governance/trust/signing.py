"""Sign a country's documents, which are in a folder of its officer, with the country's key."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from tuf.api.metadata import Metadata, TargetFile, Targets

from governance.cedar.engine import check_national
from governance.documents.models import Country, Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.documents.rotation import KeyHistory
from governance.errors import DocumentFault
from governance.runtime.files import one_writer, write_atomic
from governance.trust.bundle import (
    CountryBundle,
    is_decision,
    is_permit,
    is_signed_by,
    study_of,
)
from governance.trust.layout import (
    COUNTRY_LIFE,
    history_path,
    node_path,
    permit_path,
    policy_path,
    signed_field,
    signer,
    withdrawal_path,
)
from governance.trust.limits import OF_COUNTRY, WITHDRAWAL_BYTES
from keys.identity import SigningKey, VerifyKey

BUNDLE_FILE = "bundle.json"
NEXT_FILE = "next-bundle.json"
PENDING_FILE = "pending.json"


class DocumentsToSign(Document):
    """The documents that the next signature will cover: every target, by path."""

    name_in_messages: ClassVar[str] = "folder of documents to be signed"
    most_bytes: ClassVar[int] = CountryBundle.most_bytes

    kind: Literal["pending"] = "pending"
    country: Country
    targets: Annotated[dict[str, str], Field(max_length=OF_COUNTRY.documents)]


class OfficerDocuments:
    """The state of role `country-XX` in a folder of the officer's home.

    Changes wait in the folder until `sign`. Each signature makes a new version, which is stored
    before it is delivered, so that no version is ever signed twice with different contents. While a
    new key is announced and not yet in force, it signs everything too, as a later version.
    """

    def __init__(self, directory: Path, country: str) -> None:
        self._directory, self._country = directory, country

    @property
    def version(self) -> int:
        """The version signed last; 0 before the first."""
        bundles = (self._read(BUNDLE_FILE), self._read(NEXT_FILE))
        return max((_version(data) for data in bundles if data), default=0)

    def bundle(self, key: VerifyKey | None = None) -> bytes | None:
        """Return the current bundle, or the one that `key` signed if there is one."""
        bundles = [data for data in (self._read(BUNDLE_FILE), self._read(NEXT_FILE)) if data]
        first = bundles[0] if bundles else None
        if key is None:
            return first
        return next((data for data in bundles if _signed_by(data, key)), first)

    def set_node(self, keys: NodeKeys) -> None:
        """Set the keys of the country's node."""
        self._require_own(keys.country)
        self._change({node_path(self._country): keys.canonical().decode()})

    @property
    def room(self) -> int:
        """How many more documents fit, beside a withdrawal of each permit."""
        targets = self._to_sign().targets
        return OF_COUNTRY.documents - len(targets) - len(_to_withdraw(targets))

    def approve(self, permit: Permit) -> None:
        """Add a permit and remove a withdrawal of the same study.

        Raises DocumentFault if the withdrawal of every permit would not fit any more.
        """
        self._require_own(permit.country)
        added = {permit_path(self._country, permit.study): permit.canonical().decode()}
        self._change(added, removed=withdrawal_path(self._country, permit.study))

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Add a withdrawal; it overrides the permit."""
        self._require_own(withdrawal.country)
        path = withdrawal_path(self._country, withdrawal.study)
        self._change({path: withdrawal.canonical().decode()}, restricts=True)

    def set_policy(self, text: str | None) -> None:
        """Set or remove the national policy. Raises DocumentFault if it is not forbid-only."""
        path = policy_path(self._country)
        if text is None:
            self._change({}, removed=path)
            return
        check_national(text)
        self._change({path: text})

    def set_history(self, history: KeyHistory) -> None:
        """Set the history of the country's document key."""
        self._require_own(history.country)
        self._change({history_path(self._country): history.canonical().decode()})

    def history(self) -> KeyHistory | None:
        """Return the history of the country's document key, signed or not yet signed."""
        text = self._to_sign().targets.get(history_path(self._country))
        return KeyHistory.from_canonical(text.encode()) if text else None

    def sign(self, now: datetime, key: SigningKey, *, newer_than: int = 0) -> bytes:
        """Sign all current documents, for seven days; return the bundle as one file.

        The new version is higher than the last one and than `newer_than`, the version that the
        exchange publishes.
        """
        return self._sign(BUNDLE_FILE, now, key, newer_than)

    def sign_next(self, now: datetime, key: SigningKey) -> bytes:
        """Sign the same documents with the next key; return that bundle."""
        return self._sign(NEXT_FILE, now, key, 0)

    def adopt_next(self) -> None:
        """Replace the current bundle by the bundle of the next key, if there is one.

        After a crash it can be repeated without harm.
        """
        with one_writer(self._directory):
            data = self._read(NEXT_FILE)
            if data is not None:
                write_atomic(self._directory / BUNDLE_FILE, data)
                (self._directory / NEXT_FILE).unlink()

    def _sign(self, name: str, now: datetime, key: SigningKey, newer_than: int) -> bytes:
        with one_writer(self._directory):
            targets = self._to_sign().targets
            signed = Targets(
                version=max(self.version, newer_than) + 1,
                expires=now + COUNTRY_LIFE,
                targets={p: TargetFile.from_data(p, text.encode()) for p, text in targets.items()},
                unrecognized_fields=signed_field(now),
            )
            metadata = Metadata(signed)
            metadata.sign(signer(key))
            bundle = CountryBundle(
                country=self._country, metadata=metadata.to_bytes().decode(), targets=targets
            )
            write_atomic(self._directory / name, bundle.canonical())
        return bundle.canonical()

    def _require_own(self, country: str) -> None:
        if country != self._country:
            raise DocumentFault(
                f"This document is for {country}, not for {self._country}",
                why="an officer signs for one country only",
                fix=f"prepare it for {self._country}",
            )

    def _change(self, added: dict[str, str], *, removed: str = "", restricts: bool = False) -> None:
        with one_writer(self._directory):
            others = {path: t for path, t in self._to_sign().targets.items() if path != removed}
            targets = others | added
            _require_room(self._country, targets, () if restricts else _to_withdraw(targets))
            changed = DocumentsToSign(country=self._country, targets=targets)
            write_atomic(self._directory / PENDING_FILE, changed.canonical())

    def _to_sign(self) -> DocumentsToSign:
        if data := self._read(PENDING_FILE):
            return DocumentsToSign.from_canonical(data)
        return DocumentsToSign(country=self._country, targets={})

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None


def _to_withdraw(targets: Mapping[str, str]) -> list[str]:
    """Return the permits that are not withdrawn; each withdrawal is one more document."""
    withdrawn = {study_of(path) for path in targets if is_decision(path) and not is_permit(path)}
    return [path for path in targets if is_permit(path) and study_of(path) not in withdrawn]


def _require_room(country: str, targets: Mapping[str, str], reserved: Sequence[str]) -> None:
    lengths = [len(text.encode()) for text in targets.values()]
    if excess := OF_COUNTRY.excess_of(lengths + [WITHDRAWAL_BYTES] * len(reserved)):
        raise DocumentFault(
            "Your folder has no room for this document",
            why=f"with it, and with a withdrawal for each permit, {country} {excess}",
            fix="write a shorter sentence or policy, or ask the coordinator to begin a new "
            "federation; what you have signed stays valid and can be renewed and withdrawn",
        )


def _version(bundle: bytes) -> int:
    return CountryBundle.from_canonical(bundle).signed().signed.version


def _signed_by(bundle: bytes, key: VerifyKey) -> bool:
    return is_signed_by(CountryBundle.from_canonical(bundle).signed(), key)
