"""The coordinator's store of signed documents. It publishes only what verifies.

A change is a set of new files. Before the first is written, the whole is read as a node would
read it, from the first root. They are written in an order in which a reader at any moment, or
after a crash, meets the old state or the new: timestamp last.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root, TargetFile, Targets

from governance.documents.agreement import Agreement
from governance.documents.models import MOST_BYTES
from governance.documents.rotation import KeyHistory
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.files import one_writer, write_atomic
from governance.trust import ceremony
from governance.trust.bundle import CountryBundle, read_targets_metadata
from governance.trust.ceremony import Draft, DraftStatus, SignatureSet
from governance.trust.client import PUBLISHED_NAME
from governance.trust.high_water import TrustHighWater
from governance.trust.layout import AGREEMENT_PATH, COORDINATOR_ROLE, history_path, role_of
from governance.trust.pending_bundles import PendingBundles
from governance.trust.state import (
    Files,
    PublishedState,
    metadata_name,
    newest_root,
    target_name,
)
from governance.trust.verification import load
from keys.identity import SigningKey
from protocols.wire.document_versions import DocumentVersions

DRAFT_FILE, SIGNATURES_FILE, PUBLIC = "draft.json", "signatures.json", "public"
WAITING = "waiting"
RELEASE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Repository:
    """One TUF repository in a directory. Safe among threads and processes.

    Raises DocumentFault for whatever does not verify, and changes nothing then.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting = PendingBundles(directory / WAITING)

    def draft(self, agreement: Agreement, now: datetime) -> bytes:
        """Begin a signing ceremony, replacing one under way; return the draft for the officers.

        Version 1 if nothing is published yet, or else the next one (an amendment).
        """
        with one_writer(self._directory):
            version = newest_root(self.read) + 1
            drafted = now.replace(microsecond=0)
            draft = Draft(version=version, drafted=drafted, agreement=agreement).canonical()
            self._keep(SIGNATURES_FILE, _no_signatures(draft))
            self._keep(DRAFT_FILE, draft)
        return draft

    def renewal(self, now: datetime, coordinator: Mapping[str, str] | None = None) -> bytes:
        """Lay the agreement in force out for signature again: so it holds for longer.

        Every new key that a country has announced is in it, and `coordinator`'s keys, by field.
        Raises DocumentFault if no agreement is in force.
        """
        agreement = self._published().agreement.with_officer_keys(self.announced())
        return self.draft(agreement.with_coordinator_keys(coordinator or {}), now)

    def agreement(self) -> Agreement | None:
        """Return the agreement in force, as this store keeps it; None before the first."""
        state = self._state()
        return state.agreement if state else None

    def officer_keys(self) -> dict[str, str]:
        """Return each party's document key in the agreement in force; nothing before the first."""
        agreement = self.agreement()
        parties = agreement.parties if agreement else ()
        return {party.country: party.officer_key for party in parties}

    def announced(self) -> dict[str, str]:
        """Return the keys that are to follow those in force, by country, signed by those."""
        state = self._state()
        found = {}
        for party in state.agreement.parties if state else ():
            history = self._history(state, party.country) if state else None
            if history and history.leads(party.officer_key, history.newest):
                found[party.country] = history.newest
        return found

    def _history(self, state: PublishedState, country: str) -> KeyHistory | None:
        listed = state.role(role_of(country))
        target = listed.targets.get(history_path(country)) if listed else None
        data = self.read(target_name(target)) if target else None
        return KeyHistory.from_canonical(data) if data else None

    def current_draft(self) -> bytes | None:
        """Return the draft of the ceremony under way; None if there is none."""
        return self._kept(DRAFT_FILE)

    def add_signatures(self, signatures: bytes) -> DraftStatus:
        """Take one officer's signatures over the draft; return who has signed."""
        with one_writer(self._directory):
            draft, held = self._ceremony()
            joined = held.joined(SignatureSet.from_canonical(signatures))
            status = ceremony.status(draft, joined, self._root(draft.version - 1))
            self._keep(SIGNATURES_FILE, joined.canonical())
        return status

    def draft_status(self) -> DraftStatus | None:
        """Return how far the ceremony under way is; None if there is none."""
        if self.current_draft() is None:
            return None
        draft, held = self._ceremony()
        return ceremony.status(draft, held, self._root(draft.version - 1))

    def publish(
        self, now: datetime, *, documents: SigningKey, online: SigningKey
    ) -> DocumentVersions:
        """Publish the draft once its thresholds are met (the old ones too, in an amendment)."""
        with one_writer(self._directory):
            draft, held = self._ceremony()
            _check_ready(ceremony.status(draft, held, self._root(draft.version - 1)))
            root, targets = ceremony.signed_metadata(draft, held)
            state = self._amended(draft, targets.to_bytes())
            state, waited = self._waiting.joined(state, self._state(), now)
            state, files = state.with_coordinator(now, documents, {})
            files |= waited
            agreement = targets.signed.targets[AGREEMENT_PATH]
            files |= {target_name(agreement): draft.agreement.canonical()}
            files |= state.role_files(Targets.type)
            files |= state.daily_files(now, online, fresh=True)
            latest = files.popitem()
            files |= {metadata_name(Root.type, draft.version): root.to_bytes()} | dict([latest])
            self._commit(files, now)
            self._path(DRAFT_FILE).unlink()
        return state.versions()

    def _amended(self, draft: Draft, targets: bytes) -> PublishedState:
        """Return the state under the draft: what the new delegations do not cover falls away."""
        old = self._state()
        state = PublishedState(
            root=draft.version, agreement=draft.agreement, roles={Targets.type: targets}
        )
        if old is None:
            return state
        kept = {name: data for name, data in old.roles.items() if _delegated(targets, name, data)}
        lists = {COORDINATOR_ROLE: old.roles[COORDINATOR_ROLE]}  # signed again before it is shown
        roles = kept | lists | {Targets.type: targets}
        return replace(state, roles=roles, snapshot=old.snapshot, timestamp=old.timestamp)

    def accept_country(
        self, bundle: bytes, now: datetime, *, online: SigningKey
    ) -> DocumentVersions:
        """Publish a country's signed bundle. The same bundle again changes nothing.

        One under a key that is to follow is held until the agreement names that key.
        """
        read = CountryBundle.from_canonical(bundle)
        with one_writer(self._directory):
            state = self._published()
            if self._waiting.take(bundle, state.agreement, now):
                return state.versions()
            role, data = role_of(read.country), read.metadata.encode()
            if state.roles.get(role) == data:
                return state.versions()
            signed = read.signed().signed
            _check_newer(read.country, signed.version, state.role(role))
            state = state.with_role(role, data)
            contents = [(target, read.content(target)) for target in signed.targets.values()]
            files = {target_name(target): data for target, data in contents}
            files |= state.role_files(role) | state.daily_files(now, online, fresh=True)
            self._commit(files, now, country=read.country)
        return state.versions()

    def add_study(
        self, study: Study, now: datetime, *, documents: SigningKey, online: SigningKey
    ) -> DocumentVersions:
        """Publish `studies/<id>.json` under the coordinator's document key."""
        if study.agreement != self._published().agreement.digest:
            raise DocumentFault(
                f"The study {study.id} is written under another agreement",
                why="it names one that is not the agreement in force",
                fix=f"name {self._published().agreement.digest} in it",
            )
        return self._add(f"studies/{study.id}.json", study.canonical(), now, documents, online)

    def add_release(
        self, name: str, data: bytes, now: datetime, *, documents: SigningKey, online: SigningKey
    ) -> DocumentVersions:
        """Publish `releases/<name>.json` under the coordinator's document key."""
        if not RELEASE_NAME.fullmatch(name) or len(data) > MOST_BYTES:
            raise DocumentFault(
                f"The release {name!r} cannot be published",
                why=f"a name is lower-case letters, digits, hyphens; a record, {MOST_BYTES} bytes",
                fix="choose another name, or leave out what is large",
            )
        return self._add(f"releases/{name}.json", data, now, documents, online)

    def _add(
        self, path: str, data: bytes, now: datetime, documents: SigningKey, online: SigningKey
    ) -> DocumentVersions:
        with one_writer(self._directory):
            state = self._published()
            listed = state.role(COORDINATOR_ROLE)
            old = listed.targets.get(path) if listed else None
            if old is not None:
                _check_same(old, data)
                return state.versions()
            state, files = state.with_coordinator(now, documents, {path: data})
            files |= state.daily_files(now, online, fresh=True)
            self._commit(files, now)
        return state.versions()

    def refresh(self, now: datetime, *, online: SigningKey) -> DocumentVersions:
        """Sign a new timestamp (24 h), and a new snapshot where the old one is a day old."""
        with one_writer(self._directory):
            state = self._published()
            self._commit(state.daily_files(now, online, fresh=False), now)
        return state.versions()

    def read(self, name: str) -> bytes | None:
        """Return a published file for the fetch service; None if there is none such.

        Names: `metadata/1.root.json`, `metadata/timestamp.json`, `targets/<dir>/<hash>.<file>`.
        """
        return self._kept(f"{PUBLIC}/{name}") if PUBLISHED_NAME.fullmatch(name) else None

    def _commit(self, files: Files, now: datetime, *, country: str | None = None) -> None:
        """Read the new state as a node would; only then write it."""
        first = metadata_name(Root.type, 1)
        pinned = self.read(first) or files[first]
        loaded = load(
            lambda name: files.get(name) or self.read(name), pinned, now, TrustHighWater()
        )
        if country is not None and country not in loaded.countries:
            raise DocumentFault(
                f"The documents of {country} are not published",
                why=loaded.absent.get(country, "it is not a party to the agreement"),
                fix=f"ask the privacy officer of {country} to sign and send them again",
            )
        for name, data in files.items():
            self._keep(f"{PUBLIC}/{name}", data)

    def _state(self) -> PublishedState | None:
        return PublishedState.read(self.read)

    def _published(self) -> PublishedState:
        state = self._state()
        if state is None:
            raise DocumentFault(
                "No agreement is published yet",
                why="its signing ceremony has not been finished",
                fix="collect the officers' signatures, then publish",
            )
        return state

    def _ceremony(self) -> tuple[Draft, SignatureSet]:
        draft, held = self._kept(DRAFT_FILE), self._kept(SIGNATURES_FILE)
        if draft is None or held is None:
            raise DocumentFault("No signing ceremony is under way", fix="draft an agreement first")
        return Draft.from_canonical(draft), SignatureSet.from_canonical(held)

    def _root(self, version: int) -> Root | None:
        data = self.read(metadata_name(Root.type, version)) if version else None
        return None if data is None else ceremony.read_root(data)

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _keep(self, name: str, data: bytes) -> None:
        write_atomic(self._path(name), data)

    def _kept(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None


def _no_signatures(draft: bytes) -> bytes:
    digest = Draft.from_canonical(draft).digest
    return SignatureSet(draft=digest, root={}, targets={}).canonical()


def _check_ready(status: DraftStatus) -> None:
    if not status.ready:
        raise DocumentFault(
            f"{status.needed} more signatures are needed",
            why=f"signed: {', '.join(status.signed) or 'nobody'}; "
            f"not yet: {', '.join(status.unsigned)}",
            fix="send the draft to the officers who have not signed",
        )


def _check_newer(country: str, version: int, old: Targets | None) -> None:
    if old is not None and version <= old.version:
        raise DocumentFault(
            f"The documents of {country} are older than those published",
            why=f"they are version {version}; published is {old.version}",
            fix=f"sign again on the officer's side, above version {old.version}",
        )


def _check_same(old: TargetFile, data: bytes) -> None:
    if old.hashes != TargetFile.from_data(old.path, data).hashes:
        raise DocumentFault(
            f"The document {old.path} is published already, with another text",
            why="permits and results name it; its text never changes",
            fix="give the new text an id of its own",
        )


def _delegated(targets: bytes, name: str, data: bytes) -> bool:
    """Whether a role's metadata stand under these targets."""
    metadata = read_targets_metadata(data)
    delegator = read_targets_metadata(targets).signed
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (ValueError, RepositoryError):
        return False
    return True
