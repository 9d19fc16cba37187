"""Documents signed with a country's next key, stored until the agreement names that key.

They are published together with the amended agreement, so that a country whose key changes always
has documents.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.runtime.files import write_atomic
from governance.trust.bundle import CountryBundle, is_signed_by, signer_of_read
from governance.trust.layout import role_of
from governance.trust.state import Files, PublishedState, target_name
from keys.identity import VerifyKey


class PendingBundles:
    """A folder with at most one bundle per country; the caller holds the repository's lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def store(self, bundle: CountryBundle, key: VerifyKey) -> None:
        """Store a bundle that was verified by the next key.

        Raises DocumentFault if it is older than the stored one.
        """
        stored, version = self._bundle(bundle.country), bundle.signed().signed.version
        if stored and _signed(stored, key) and stored.signed().signed.version > version:
            raise DocumentFault(
                f"The documents of {bundle.country} are not newer than those that are stored",
                why=f"they are version {version}",
                fix="ask the officer to sign again with a higher version",
            )
        write_atomic(self._file(bundle.country), bundle.canonical())

    def with_pending(
        self, state: PublishedState, before: PublishedState | None, now: datetime
    ) -> tuple[PublishedState, Files]:
        """Return the state with the bundles whose keys its agreement names, and their files.

        A bundle that is expired or not newer than the published one is left out: it may lack a
        withdrawal.
        """
        files: Files = {}
        for bundle in self._in_force(state.agreement):
            role, signed = role_of(bundle.country), bundle.signed().signed
            published = before.role(role) if before else None
            if signed.is_expired(now) or (published and signed.version <= published.version):
                continue
            state = state.with_role(role, bundle.metadata.encode())
            targets = signed.targets.values()
            files |= {target_name(target): bundle.content(target) for target in targets}
            files |= state.role_files(role)
        return state, files

    def _in_force(self, agreement: Agreement) -> Iterator[CountryBundle]:
        for party in agreement.parties:
            bundle = self._bundle(party.country)
            if bundle and _signed(bundle, VerifyKey.from_text(party.officer_key)):
                yield bundle

    def _bundle(self, country: str) -> CountryBundle | None:
        try:
            return CountryBundle.from_canonical(self._file(country).read_bytes())
        except FileNotFoundError:
            return None

    def _file(self, country: str) -> Path:
        return self._directory / f"{role_of(country)}.json"


def announced_key(bundle: CountryBundle, agreement: Agreement) -> VerifyKey | None:
    """Return the announced next key of a country if it signed this bundle; otherwise None."""
    party = agreement.party(bundle.country)
    if party is None:
        return None
    key_in_force = VerifyKey.from_text(party.officer_key)
    try:
        key = signer_of_read(bundle, key_in_force)
    except DocumentFault:
        return None
    return None if key == key_in_force else key


def _signed(bundle: CountryBundle, key: VerifyKey) -> bool:
    return is_signed_by(bundle.signed(), key)
