"""Verifies a country's submitted documents without a lock, and publishes them under it.

The verification relies on the state at its beginning. If that has changed for this country by the
time the lock is held, nothing is published, and the caller verifies again. So the lock is never
held for longer than a few files take to write.

A permit or a withdrawal must answer a study that is published. So the number of a country's
documents is bounded by the coordinator's, and nobody has to fetch decisions on nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Targets

from governance.errors import DocumentFault
from governance.runtime.wording import counted
from governance.trust.bundle import (
    CountryBundle,
    is_decision,
    is_signed_by,
    own_country,
    study_of,
)
from governance.trust.layout import COORDINATOR_ROLE, role_of
from governance.trust.limits import OF_COUNTRY
from governance.trust.pending_bundles import PendingBundles, announced_key
from governance.trust.published_files import PublishedFiles
from governance.trust.state import Files, PublishedState, target_name
from governance.trust.verification import is_study
from keys.identity import SigningKey, VerifyKey

MAX_NAMED = 3


@dataclass(frozen=True)
class Basis:
    """What the verification of a country's documents relies on."""

    root: int
    targets: bytes
    role: bytes | None

    @classmethod
    def of(cls, state: PublishedState, country: str) -> "Basis":
        """Return the basis of that country's documents in a published state."""
        return cls(state.root, state.roles[Targets.type], state.roles.get(role_of(country)))


class CountrySubmission:
    """One country's submitted bundle. Raises DocumentFault if it is not one."""

    def __init__(
        self,
        data: bytes,
        now: datetime,
        online_key: SigningKey,
        files: PublishedFiles,
        pending: PendingBundles,
    ) -> None:
        self._data, self._bundle = data, CountryBundle.from_canonical(data)
        self._signed = self._bundle.signed().signed
        self._now, self._online_key = now, online_key
        self._files, self._pending = files, pending
        self._basis: Basis | None = None
        self._next_key: VerifyKey | None = None

    @property
    def country(self) -> str:
        """The country whose documents these are."""
        return self._bundle.country

    @property
    def published_version(self) -> int | None:
        """The version that `publish` published; None if it stored it under the next key."""
        return None if self._next_key else self._signed.version

    def require_by(self, submitter: str) -> None:
        """Raise DocumentFault if another country submits these documents."""
        if self.country != submitter:
            raise DocumentFault(
                f"{submitter} submitted documents of {self.country}",
                why="an officer may submit only the documents of its country",
                fix="submit them with the folder of that country's officer",
            )

    def is_published(self, state: PublishedState) -> bool:
        """Whether exactly these documents are published already."""
        return state.roles.get(role_of(self.country)) == self._bundle.metadata.encode()

    def verify(self, state: PublishedState) -> None:
        """Verify the documents against a published state; no lock is needed.

        Raises DocumentFault if they may not be published.
        """
        require_acceptable(self.country, self._signed, state)
        self._basis = Basis.of(state, self.country)
        self._next_key = announced_key(self._bundle, state.agreement)
        if self._next_key is not None:
            own_country(self._data, self.country, self._next_key, self._now)
            return
        contents = self._contents()
        files = contents | self._with_role(state).role_files(role_of(self.country))
        files |= self._signatures(self._with_role(state))
        self._files.verify_country(files, self._now, self.country)
        self._files.write_missing(contents)

    def publish(self, state: PublishedState) -> bool:
        """Publish or store what was verified; return False if the state has changed since.

        The caller holds the lock.
        """
        if Basis.of(state, self.country) != self._basis:
            return False
        if self._next_key is not None:
            self._pending.store(self._bundle, self._next_key)
            return True
        changed = self._with_role(state)
        files = self._contents() | changed.role_files(role_of(self.country))
        self._files.write_missing(files)
        self._files.commit(self._signatures(changed), self._now, only=())
        return True

    def _contents(self) -> Files:
        targets = self._signed.targets.values()
        contents = [(target, self._bundle.content(target)) for target in targets]
        return {target_name(target): data for target, data in contents}

    def _with_role(self, state: PublishedState) -> PublishedState:
        return state.with_role(role_of(self.country), self._bundle.metadata.encode())

    def _signatures(self, state: PublishedState) -> Files:
        return state.snapshot_and_timestamp(self._now, self._online_key, force=True)


def is_renewal(submitted: CountryBundle, state: PublishedState) -> bool:
    """Whether the documents listed are those that are published, signed again with the same key.

    Such a list is short to verify: nothing in it was not verified before.
    """
    published = state.role(role_of(submitted.country))
    party = state.agreement.party(submitted.country)
    metadata = submitted.signed()
    if published is None or party is None or metadata.signed.targets != published.targets:
        return False
    return is_signed_by(metadata, VerifyKey.from_text(party.officer_key))


def require_acceptable(country: str, signed: Targets, state: PublishedState) -> None:
    """Raise DocumentFault if these documents may not follow those that are published."""
    old = state.role(role_of(country))
    _require_within_limits(country, signed)
    _require_newer(country, signed.version, old)
    _require_answers(country, signed, old, state.role(COORDINATOR_ROLE))


def _require_within_limits(country: str, signed: Targets) -> None:
    if excess := OF_COUNTRY.excess(signed.targets.values()):
        raise DocumentFault(
            f"The documents of {country} are not published",
            why=f"{country} {excess}",
            fix=f"the privacy officer of {country} must sign fewer or smaller documents",
        )


def _require_newer(country: str, version: int, old: Targets | None) -> None:
    if old is not None and version <= old.version:
        raise DocumentFault(
            f"The documents of {country} are not newer than those published",
            why=f"they are version {version}; version {old.version} is published",
            fix=f"ask the officer to sign again with a version higher than {old.version}",
        )


def _require_answers(
    country: str, signed: Targets, old: Targets | None, coordinator: Targets | None
) -> None:
    """Require a published study behind each decision, unless the decision is published already.

    Without this exception, a country could not renew what an earlier version accepted.
    """
    asked = _published_studies(coordinator)
    before = old.targets if old else {}
    unasked = [
        study_of(path)
        for path in signed.targets
        if is_decision(path) and path not in before and study_of(path) not in asked
    ]
    if unasked:
        raise DocumentFault(
            f"The documents of {country} are not published",
            why=f"they decide on {counted(len(unasked), 'study', 'studies')} that the coordinator "
            f"has not published: {_first(unasked)}",
            fix="ask the coordinator to publish it, then run `pratique-officer renew`",
        )


def _published_studies(coordinator: Targets | None) -> set[str]:
    listed = coordinator.targets.items() if coordinator else ()
    return {f"sha256:{target.hashes['sha256']}" for path, target in listed if is_study(path)}


def _first(studies: Iterable[str]) -> str:
    named = sorted(studies)
    more = f", and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return ", ".join(named[:MAX_NAMED]) + more
