"""The coordinator's store of signed documents. It publishes only what verifies.

A change is a set of new files. Before the first is written, what changes is verified as a node
would verify it, from the first root. The timestamp is written last, so that a reader sees the old
state or the new one at any moment, also after a crash.

A country's documents are verified without the lock, against the state at that moment. The lock is
held to publish them, if what the verification relied on is still the same. So one party's bulk
delays neither another party's documents nor the daily signatures.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root, TargetFile, Targets

from governance.documents.agreement import Agreement
from governance.documents.models import MAX_BYTES
from governance.documents.rotation import KeyHistory
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.runtime.files import one_writer, write_atomic
from governance.runtime.wording import counted
from governance.trust import ceremony
from governance.trust.acceptance import CountrySubmission, is_renewal
from governance.trust.bundle import CountryBundle, read_targets_metadata
from governance.trust.ceremony import Draft, DraftStatus, SignatureSet
from governance.trust.layout import AGREEMENT_PATH, COORDINATOR_ROLE, history_path, role_of
from governance.trust.limits import OF_COORDINATOR
from governance.trust.pending_bundles import PendingBundles
from governance.trust.published_files import PublishedFiles
from governance.trust.state import (
    PublishedState,
    metadata_name,
    newest_root,
    target_name,
)
from governance.trust.verification import is_study
from keys.identity import SigningKey
from protocols.wire.document_versions import DocumentVersions

DRAFT_FILE, SIGNATURES_FILE = "draft.json", "signatures.json"
PUBLIC_FOLDER, PENDING_FOLDER = "public", "waiting"
MOST_ATTEMPTS = 3
"""How often a country's documents are verified again if what this relies on has changed."""
RELEASE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Repository:
    """One TUF repository in a directory. Safe for threads and processes.

    If something does not verify, it raises DocumentFault and changes nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = PublishedFiles(directory / PUBLIC_FOLDER)
        self._pending = PendingBundles(directory / PENDING_FOLDER)

    def draft(self, agreement: Agreement, now: datetime) -> bytes:
        """Begin a signing ceremony, in place of an unfinished one; return the draft to sign.

        It is version 1 if nothing is published yet, otherwise the next one (an amendment).
        """
        with one_writer(self._directory):
            version = newest_root(self.read) + 1
            drafted = now.replace(microsecond=0)
            draft = Draft(version=version, drafted=drafted, agreement=agreement).canonical()
            self._write(SIGNATURES_FILE, _no_signatures(draft))
            self._write(DRAFT_FILE, draft)
        return draft

    def draft_renewal(self, now: datetime, coordinator: Mapping[str, str] | None = None) -> bytes:
        """Begin a ceremony to sign again the agreement that is in force, so that it stays valid.

        The draft has every new key that a country has announced. `coordinator` maps a field of the
        coordinator's entry to its new key. Raises DocumentFault if no agreement is in force.
        """
        agreement = self._published().agreement.with_officer_keys(self.announced_keys())
        return self.draft(agreement.with_coordinator_keys(coordinator or {}), now)

    def agreement(self) -> Agreement | None:
        """Return the agreement in force in this store; None before the first."""
        state = self._state()
        return state.agreement if state else None

    def officer_keys(self) -> dict[str, str]:
        """Return the document keys of the agreement in force, by country; empty if none is."""
        agreement = self.agreement()
        parties = agreement.parties if agreement else ()
        return {party.country: party.officer_key for party in parties}

    def announced_keys(self) -> dict[str, str]:
        """Return the announced next keys, by country.

        Each is signed by the key that it will replace.
        """
        state = self._state()
        keys = {}
        for party in state.agreement.parties if state else ():
            history = self._history(state, party.country) if state else None
            if history and history.proves_succession(party.officer_key, history.newest):
                keys[party.country] = history.newest
        return keys

    def _history(self, state: PublishedState, country: str) -> KeyHistory | None:
        role_targets = state.role(role_of(country))
        target = role_targets.targets.get(history_path(country)) if role_targets else None
        data = self.read(target_name(target)) if target else None
        return KeyHistory.from_canonical(data) if data else None

    def current_draft(self) -> bytes | None:
        """Return the draft of the current ceremony; None if there is none."""
        return self._read_file(DRAFT_FILE)

    def add_signatures(self, signatures: bytes) -> DraftStatus:
        """Add one officer's signatures over the draft; return who has signed."""
        with one_writer(self._directory):
            draft, collected = self._ceremony()
            merged = collected.merged_with(SignatureSet.from_canonical(signatures))
            status = ceremony.status(draft, merged, self._root(draft.version - 1))
            self._write(SIGNATURES_FILE, merged.canonical())
        return status

    def draft_status(self) -> DraftStatus | None:
        """Return who has signed in the current ceremony; None if there is none."""
        if self.current_draft() is None:
            return None
        draft, collected = self._ceremony()
        return ceremony.status(draft, collected, self._root(draft.version - 1))

    def publish(
        self, now: datetime, *, document_key: SigningKey, online_key: SigningKey
    ) -> DocumentVersions:
        """Publish the draft once its thresholds are met (the old ones too, in an amendment)."""
        with one_writer(self._directory):
            draft, collected = self._ceremony()
            _check_ready(ceremony.status(draft, collected, self._root(draft.version - 1)))
            root, targets = ceremony.signed_metadata(draft, collected)
            state = self._amended(draft, targets.to_bytes())
            state, pending_files = self._pending.with_pending(state, self._state(), now)
            state, files = state.with_coordinator_documents(now, document_key, {})
            files |= pending_files
            agreement = targets.signed.targets[AGREEMENT_PATH]
            files |= {target_name(agreement): draft.agreement.canonical()}
            files |= state.role_files(Targets.type)
            files |= state.snapshot_and_timestamp(now, online_key, force=True)
            timestamp = files.popitem()  # the timestamp is written last, after the root
            files |= {metadata_name(Root.type, draft.version): root.to_bytes()} | dict([timestamp])
            self._files.commit(files, now)
            self._path(DRAFT_FILE).unlink()
        return state.versions()

    def _amended(self, draft: Draft, targets: bytes) -> PublishedState:
        """Return the state under the draft, without roles that the new delegations do not cover."""
        old = self._state()
        state = PublishedState(
            root=draft.version, agreement=draft.agreement, roles={Targets.type: targets}
        )
        if old is None:
            return state
        valid = {name: data for name, data in old.roles.items() if _delegated(targets, name, data)}
        # its old key may be replaced; it is signed again before publication
        coordinator_role = {COORDINATOR_ROLE: old.roles[COORDINATOR_ROLE]}
        roles = valid | coordinator_role | {Targets.type: targets}
        return replace(state, roles=roles, snapshot=old.snapshot, timestamp=old.timestamp)

    def accept_country(
        self, bundle: bytes, now: datetime, *, online_key: SigningKey, by: str | None = None
    ) -> int | None:
        """Publish a country's signed bundle; return its version, or None if nothing was published.

        `by` is the country that submits it, if it may submit its own documents only. A bundle
        signed by an announced next key is stored until the agreement names that key.
        """
        submission = CountrySubmission(bundle, now, online_key, self._files, self._pending)
        submission.require_by(by or submission.country)
        for _ in range(MOST_ATTEMPTS):
            state = self._published()
            if submission.is_published(state):
                return None
            submission.verify(state)
            with one_writer(self._directory):
                if submission.publish(self._published()):
                    return submission.published_version
        raise DocumentFault(
            f"The documents of {submission.country} are not published",
            why="what is published for this country changed each time that they were verified",
            fix="submit them again",
        )

    def is_renewal(self, bundle: bytes, *, by: str) -> bool:
        """Return whether a country only signs again, with its key, what is published for it.

        Raises DocumentFault if the bundle is not one of this country, or nothing is published.
        """
        submitted = CountryBundle.from_canonical(bundle)
        return submitted.country == by and is_renewal(submitted, self._published())

    def add_study(
        self, study: Study, now: datetime, *, document_key: SigningKey, online_key: SigningKey
    ) -> DocumentVersions:
        """Publish `studies/<id>.json` under the coordinator's document key."""
        if study.agreement != self._published().agreement.digest:
            raise DocumentFault(
                f"The study {study.id} is written for another agreement",
                why="it names one that is not the agreement in force",
                fix=f"name {self._published().agreement.digest} in it",
            )
        return self._add(
            f"studies/{study.id}.json", study.canonical(), now, document_key, online_key
        )

    def add_release(
        self,
        name: str,
        data: bytes,
        now: datetime,
        *,
        document_key: SigningKey,
        online_key: SigningKey,
    ) -> DocumentVersions:
        """Publish `releases/<name>.json` under the coordinator's document key."""
        if not RELEASE_NAME.fullmatch(name) or len(data) > MAX_BYTES:
            raise DocumentFault(
                f"The release {name!r} cannot be published",
                why=f"allowed are lower-case letters, digits and hyphens, and {MAX_BYTES} bytes",
                fix="choose another name, or make the release smaller",
            )
        return self._add(f"releases/{name}.json", data, now, document_key, online_key)

    def _add(
        self,
        path: str,
        data: bytes,
        now: datetime,
        document_key: SigningKey,
        online_key: SigningKey,
    ) -> DocumentVersions:
        with one_writer(self._directory):
            state = self._published()
            role_targets = state.role(COORDINATOR_ROLE)
            old = role_targets.targets.get(path) if role_targets else None
            if old is not None:
                _check_same(old, data)
                return state.versions()
            state, files = state.with_coordinator_documents(now, document_key, {path: data})
            _check_room(state)
            files |= state.snapshot_and_timestamp(now, online_key, force=True)
            self._files.commit(files, now, only=(COORDINATOR_ROLE,))
        return state.versions()

    def refresh(self, now: datetime, *, online_key: SigningKey) -> None:
        """Sign a new timestamp, valid for 24 hours, and a new snapshot if the old is a day old.

        No party's documents are read for it, so that their number cannot delay it.
        """
        with one_writer(self._directory):
            state = self._published()
            files = state.snapshot_and_timestamp(now, online_key, force=False)
            self._files.commit(files, now, only=())

    def remove_unused(self) -> None:
        """Delete files that are no part of the published state, an hour after they were written."""
        with one_writer(self._directory):
            state = self._state()
            if state is not None:
                self._files.remove_unused(set(state.names()))

    def read(self, name: str) -> bytes | None:
        """Return a published file for the fetch service; None if there is no such file.

        Names: `metadata/1.root.json`, `metadata/timestamp.json`, `targets/<dir>/<hash>.<file>`.
        """
        return self._files.read(name)

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
        draft, signatures = self._read_file(DRAFT_FILE), self._read_file(SIGNATURES_FILE)
        if draft is None or signatures is None:
            raise DocumentFault(
                "No draft waits",
                why="no agreement was proposed since the last one was published",
                fix="propose one with `agreement propose FILE`",
            )
        return Draft.from_canonical(draft), SignatureSet.from_canonical(signatures)

    def _root(self, version: int) -> Root | None:
        data = self.read(metadata_name(Root.type, version)) if version else None
        return None if data is None else ceremony.read_root(data)

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _write(self, name: str, data: bytes) -> None:
        write_atomic(self._path(name), data)

    def _read_file(self, name: str) -> bytes | None:
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
            f"The draft needs {counted(status.needed, 'more signature')}",
            why=f"it was signed by {', '.join(status.signed) or 'nobody'}, and not yet by "
            f"{', '.join(status.unsigned)}",
            fix="send the draft to the officers who have not signed",
        )


def _check_room(state: PublishedState) -> None:
    """Raise DocumentFault if the coordinator's studies are more than every reader accepts."""
    role_targets = state.role(COORDINATOR_ROLE)
    listed = role_targets.targets.items() if role_targets else ()
    if excess := OF_COORDINATOR.excess(target for path, target in listed if is_study(path)):
        raise DocumentFault(
            "The study cannot be published",
            why=f"with it, the coordinator {excess}",
            fix="begin a new federation for further studies; what is published stays valid",
        )


def _check_same(old: TargetFile, data: bytes) -> None:
    if old.hashes != TargetFile.from_data(old.path, data).hashes:
        raise DocumentFault(
            f"The document {old.path} is already published with another text",
            why="permits and results name it; its text never changes",
            fix="give the new text another id",
        )


def _delegated(targets: bytes, name: str, data: bytes) -> bool:
    """Whether these targets delegate to the key that signed a role's metadata."""
    metadata = read_targets_metadata(data)
    delegator = read_targets_metadata(targets).signed
    try:
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (ValueError, RepositoryError):
        return False
    return True
