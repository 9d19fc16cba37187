"""The published state, and the metadata that the coordinator signs with its keys."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from tuf.api.metadata import Metadata, MetaFile, Snapshot, T, TargetFile, Targets, Timestamp

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.trust.bundle import read_targets_metadata
from governance.trust.client import METADATA, TARGETS
from governance.trust.layout import (
    AGREEMENT_PATH,
    COORDINATOR_ROLE,
    SNAPSHOT_LIFE,
    TIMESTAMP_LIFE,
    role_of,
    signed_at,
    signed_field,
    signer,
)
from keys.identity import SigningKey
from protocols.wire.document_versions import DocumentVersions

Files = dict[str, bytes]
"""Files to publish, in the order in which they are written."""
Read = Callable[[str], bytes | None]

TIMESTAMP_NAME = f"{METADATA}timestamp.json"
SNAPSHOT_RENEWAL = timedelta(days=1)


@dataclass(frozen=True)
class PublishedState:
    """The published state: every role's current metadata, as bytes."""

    root: int
    agreement: Agreement
    roles: Mapping[str, bytes]
    snapshot: bytes | None = None
    timestamp: int = 0

    @classmethod
    def read(cls, read: Read) -> Self | None:
        """Read the state that the timestamp names; None before the first publication."""
        data = read(TIMESTAMP_NAME)
        if data is None:
            return None
        timestamp = Metadata[Timestamp].from_bytes(data).signed
        snapshot = _require_file(read, metadata_name("snapshot", timestamp.snapshot_meta.version))
        listed = Metadata[Snapshot].from_bytes(snapshot).signed.meta
        roles = {
            name.removesuffix(".json"): _require_file(read, f"{METADATA}{meta.version}.{name}")
            for name, meta in listed.items()
        }
        targets = read_targets_metadata(roles[Targets.type]).signed
        agreement = _require_file(read, target_name(targets.targets[AGREEMENT_PATH]))
        return cls(
            root=newest_root(read),
            agreement=Agreement.from_canonical(agreement),
            roles=roles,
            snapshot=snapshot,
            timestamp=timestamp.version,
        )

    def role(self, name: str) -> Targets | None:
        """Return a role's current metadata; None if it has published nothing."""
        data = self.roles.get(name)
        return None if data is None else read_targets_metadata(data).signed

    def names(self) -> Iterator[str]:
        """Return the name of each file that this state consists of, except the roots."""
        yield TIMESTAMP_NAME
        if self.snapshot is not None:
            version = Metadata[Snapshot].from_bytes(self.snapshot).signed.version
            yield metadata_name("snapshot", version)
        for name, data in self.roles.items():
            signed = read_targets_metadata(data).signed
            yield metadata_name(name, signed.version)
            yield from map(target_name, signed.targets.values())

    def versions(self) -> DocumentVersions:
        """Return the versions that are published."""
        roles = {c: self.role(role_of(c)) for c in self.agreement.countries}
        countries = {country: role.version for country, role in roles.items() if role}
        return DocumentVersions(
            self.root, read_targets_metadata(self.roles[Targets.type]).signed.version, countries
        )

    def with_role(self, name: str, data: bytes) -> Self:
        """Return the state with a role's new metadata."""
        return replace(self, roles={**self.roles, name: data})

    def role_files(self, *names: str) -> Files:
        """Return the metadata files of these roles."""
        return {
            metadata_name(name, read_targets_metadata(self.roles[name]).signed.version): self.roles[
                name
            ]
            for name in names
        }

    def snapshot_and_timestamp(
        self, now: datetime, online_key: SigningKey, *, force: bool
    ) -> Files:
        """Return a new timestamp; also a new snapshot if `force` or if the old one is a day old."""
        old = Metadata[Snapshot].from_bytes(self.snapshot).signed if self.snapshot else None
        if not force and old and self.snapshot and now - signed_at(old) < SNAPSHOT_RENEWAL:
            return self._timestamp(now, online_key, old.version, self.snapshot)
        version = old.version + 1 if old else 1
        snapshot = _signed(self._snapshot(now, version), online_key)
        name = metadata_name("snapshot", version)
        return {name: snapshot, **self._timestamp(now, online_key, version, snapshot)}

    def _snapshot(self, now: datetime, version: int) -> Snapshot:
        old = Metadata[Snapshot].from_bytes(self.snapshot).signed.meta if self.snapshot else {}
        roles = {f"{name}.json": data for name, data in self.roles.items()}
        meta = {name: _listed(data, old.get(name)) for name, data in roles.items()}
        expires = now + SNAPSHOT_LIFE
        return Snapshot(version, None, expires, meta, signed_field(now))

    def _timestamp(
        self, now: datetime, online_key: SigningKey, version: int, snapshot: bytes
    ) -> Files:
        meta = MetaFile.from_data(version, snapshot, ["sha256"])
        expires = now + TIMESTAMP_LIFE
        signed = Timestamp(self.timestamp + 1, None, expires, meta, signed_field(now))
        return {TIMESTAMP_NAME: _signed(signed, online_key)}

    def with_coordinator_documents(
        self, now: datetime, document_key: SigningKey, added: Mapping[str, bytes]
    ) -> tuple[Self, Files]:
        """Return the state with these documents added to the coordinator's role, and its files."""
        old = self.role(COORDINATOR_ROLE)
        new = {path: TargetFile.from_data(path, data) for path, data in added.items()}
        signed = Targets(
            version=old.version + 1 if old else 1,
            expires=self.agreement.sunset,
            targets={**(old.targets if old else {}), **new},
            unrecognized_fields=signed_field(now),
        )
        state = self.with_role(COORDINATOR_ROLE, _signed(signed, document_key))
        contents = {target_name(new[path]): data for path, data in added.items()}
        return state, contents | state.role_files(COORDINATOR_ROLE)


def _listed(data: bytes, old: MetaFile | None) -> MetaFile:
    """Return how a snapshot lists a role; a role that has not changed is not read again."""
    if old is not None and old.hashes == {"sha256": hashlib.sha256(data).hexdigest()}:
        return old
    return MetaFile.from_data(read_targets_metadata(data).signed.version, data, ["sha256"])


def _signed(signed: T, key: SigningKey) -> bytes:
    metadata = Metadata(signed)
    metadata.sign(signer(key))
    return metadata.to_bytes()


def metadata_name(role: str, version: int) -> str:
    """Return the name of a role's metadata file."""
    return f"{METADATA}{version}.{role}.json"


def target_name(target: TargetFile) -> str:
    """Return the name of a target's file, which begins with its hash."""
    directory, slash, file = target.path.rpartition("/")
    return f"{TARGETS}{directory}{slash}{target.hashes['sha256']}.{file}"


def newest_root(read: Read) -> int:
    """Return the version of the newest root; 0 if there is none."""
    version = 0
    while read(metadata_name("root", version + 1)) is not None:
        version += 1
    return version


def _require_file(read: Read, name: str) -> bytes:
    data = read(name)
    if data is None:
        raise DocumentFault(
            f"The document store has lost {name}",
            why="other files of the store name it",
            fix="restore the store from a backup",
        )
    return data
