"""Documents under a country's next key, held until the agreement names that key.

They are published together with the amended agreement: a country whose key changes is without
documents at no moment.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.runtime.files import write_atomic
from governance.trust.bundle import CountryBundle, is_signed_by, own_country, signer_of
from governance.trust.layout import role_of
from governance.trust.state import Files, PublishedState, target_name
from keys.identity import VerifyKey


class PendingBundles:
    """One bundle a country, in a folder; the caller holds the repository's lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(self, data: bytes, agreement: Agreement, now: datetime) -> bool:
        """Keep a bundle of a key that the key in force leads to; False for any other bundle.

        Raises DocumentFault where it is of such a key and cannot be used, or is older than the
        one that is held.
        """
        country = CountryBundle.from_canonical(data).country
        party = agreement.party(country)
        if party is None:
            return False
        present = VerifyKey.from_text(party.officer_key)
        try:
            key = signer_of(data, country, present)
        except DocumentFault:
            return False
        if key == present:
            return False
        held = self._bundle(country)
        at_least = held.signed().signed.version if held and _signed(held, key) else 0
        own_country(data, country, key, now, at_least=at_least)
        write_atomic(self._file(country), data)
        return True

    def joined(
        self, state: PublishedState, before: PublishedState | None, now: datetime
    ) -> tuple[PublishedState, Files]:
        """Return the state with what its agreement puts in force, and the files of that.

        What is expired, or older than what is published, is left out: it may lack a withdrawal.
        """
        files: Files = {}
        for bundle in self._in_force(state.agreement):
            role, signed = role_of(bundle.country), bundle.signed().signed
            shown = before.role(role) if before else None
            if signed.is_expired(now) or (shown and signed.version <= shown.version):
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


def _signed(bundle: CountryBundle, key: VerifyKey) -> bool:
    return is_signed_by(bundle.signed(), key)
