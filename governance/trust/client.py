"""python-tuf's client on files that the caller fetches, with the clock passed in.

Only this file uses python-tuf beyond its public interface, for two reasons. An Updater reads the
clock when it is made. And it reads a role only in a search that begins at `targets`, a role that
may not sign for a country.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from governance.trust.limits import MOST_ROOTS, most_bytes
from keys.errors import reason_of
from protocols.wire.encoding import check_json

Fetch = Callable[[str], bytes | None]
"""Returns the published file of that name (`metadata/...`, `targets/...`); None: no such file."""

ORIGIN = "memory:///"
NOWHERE = os.devnull
"""Where python-tuf looks for stored files: it is no folder, so it holds none."""
METADATA, TARGETS = "metadata/", "targets/"
NOT_FOUND = 404
_HASHED = r"[0-9a-f]{64}\.[a-z0-9][a-z0-9-]{0,63}\.(json|cedar)"
PUBLISHED_NAME = re.compile(
    r"metadata/(timestamp|[1-9][0-9]{0,9}\.(root|targets|snapshot|coordinator|country-[A-Z]{2}))"
    rf"\.json|targets/((studies|releases|country-[A-Z]{{2}}(/permits|/withdrawals)?)/)?{_HASHED}"
)
"""Every name that may be fetched or served, so that no name leads to another file."""
ROOT_NAME = re.compile(rf"{METADATA}[0-9]+\.root\.json")
TUF_ERRORS = (RepositoryError, DownloadError)


def nothing_held(_: str) -> bytes | None:
    """Return no file: a reader that has no copies of its own."""
    return None


class Recorder(FetcherInterface):
    """Fetches files for python-tuf and records each one that it returned.

    `held` returns the reader's own copy of a file. A copy is used instead of a fetch if signed
    metadata name exactly its bytes, or if it is a root, which the reader has verified before.
    """

    def __init__(self, fetch: Fetch, held: Fetch = nothing_held) -> None:
        self._source, self._held = fetch, held
        self.files: dict[str, bytes] = {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(ORIGIN)
        data = self.files.get(name) or self._named_copy(name) or self._fetched(name)
        return iter([data])

    def _fetched(self, name: str) -> bytes:
        try:
            data = self._source(name) if PUBLISHED_NAME.fullmatch(name) else None
        except OSError as error:  # one damaged file makes one party absent
            raise DownloadError(f"the file {name} cannot be read: {reason_of(error)}") from None
        if data is None:
            raise DownloadHTTPError(f"there is no file {name}", NOT_FOUND)
        return data

    def _named_copy(self, name: str) -> bytes | None:
        """Return the reader's copy of a root, or of a target whose name is the copy's hash."""
        data = self._held(name)
        if data is None or ROOT_NAME.fullmatch(name):
            return data
        named = name.rpartition("/")[2].startswith(f"{hashlib.sha256(data).hexdigest()}.")
        return data if named and name.startswith(TARGETS) else None

    def copy(self, name: str, listed: MetaFile) -> bytes | None:
        """Return the reader's copy of metadata if it is what was listed, by length and hash."""
        data = self._held(name)
        if data is None or not listed.hashes or len(data) > most_bytes(name):
            return None
        try:
            listed.verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            return None
        return self._record(name, data)

    def _record(self, name: str, data: bytes) -> bytes:
        self.files[name] = data
        return _checked(name, data)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a file. A fault of the caller's fetch is raised as it is.

        python-tuf's own method would call it a fault of the documents, and writes a temporary file.
        """
        name, data = url.removeprefix(ORIGIN), b"".join(self._fetch(url))
        limit = min(max_length, most_bytes(name))
        if len(data) > limit:
            raise DownloadLengthMismatchError(
                f"{name} has {len(data)} bytes; at most {limit} are allowed"
            )
        return self._record(name, data)


def _checked(name: str, data: bytes) -> bytes:
    try:
        return check_json(data) if name.startswith(METADATA) else data
    except ValueError as error:
        raise RepositoryError(f"{name} cannot be read: {error}") from None


class Client(Updater):
    """One TUF check at one moment. Raises python-tuf's errors (`TUF_ERRORS`).

    It stores nothing on disk: the caller's `TrustHighWater` remembers what was seen before.
    """

    def __init__(self, recorder: Recorder, pinned_root: bytes, now: datetime) -> None:
        super().__init__(
            NOWHERE,
            ORIGIN + METADATA,
            fetcher=recorder,
            config=UpdaterConfig(max_root_rotations=MOST_ROOTS),
            bootstrap=pinned_root,
        )
        self._recorder = recorder
        self._trusted_set.reference_time = now
        self.delegated: dict[str, Targets] = {}
        """The delegated roles that were loaded and verified, by name."""

    def _load_local_metadata(self, rolename: str) -> bytes:
        listed = self._listed(rolename)
        name = f"{METADATA}{listed.version}.{rolename}.json" if listed else ""
        data = self._recorder.copy(name, listed) if listed else None
        if data is None:
            raise FileNotFoundError(rolename)
        return data

    def _listed(self, rolename: str) -> MetaFile | None:
        """Return what the documents read so far say about a role's metadata."""
        if rolename == Timestamp.type:
            return None
        if rolename == Snapshot.type:
            return self._trusted_set.timestamp.snapshot_meta
        return self._trusted_set.snapshot.meta.get(f"{rolename}.json")

    def _persist_metadata(self, *_: object) -> None:
        return

    def _persist_root(self, *_: object) -> None:
        return

    def _update_root_symlink(self) -> None:
        return

    @property
    def root(self) -> Root:
        """The newest root."""
        return self._trusted_set.root

    @property
    def top(self) -> tuple[Root, Targets, Snapshot, Timestamp]:
        """The four top-level roles, after `refresh`."""
        trusted = self._trusted_set
        return trusted.root, trusted.targets, trusted.snapshot, trusted.timestamp

    def role(self, name: str) -> Targets:
        """Return the metadata of a delegated role, verified by its delegation."""
        self.delegated[name] = role = self._load_targets(name, Targets.type)
        return role

    def content(self, target: TargetFile) -> bytes:
        """Return a target's bytes, verified by length and hash."""
        directory, slash, file = target.path.rpartition("/")
        name = f"{directory}{slash}{next(iter(target.hashes.values()))}.{file}"
        data = self._fetcher.download_bytes(ORIGIN + TARGETS + name, target.length)
        try:
            target.verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            del self._recorder.files[TARGETS + name]  # what is not verified is not stored
            raise
        return data
