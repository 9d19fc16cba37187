"""An officer of a running federation whose software signs and sends anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from governance.officer.exchange_link import transport_pair
from governance.officer.home import Identity, OfficerHome
from governance.officer.own_documents import own_documents
from governance.trust.bundle import CountryBundle
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.channel import ExchangeLink
from tests.support.documents import country_metadata
from tests.support.narrowing import present


@dataclass(frozen=True)
class HostileOfficer:
    """The officer's keys, used without the officer's commands."""

    home: OfficerHome
    identity: Identity

    @classmethod
    def open(cls, folder: Path, passphrase: Path) -> "HostileOfficer":
        """Open an officer's folder with the passphrase that a file holds."""
        home = OfficerHome(folder)
        secret = passphrase.read_bytes().strip()
        return cls(home, Identity.open(home, home.settings(), secret))

    def link(self) -> ExchangeLink:
        """Return a channel to the exchange, with this officer's certificate."""
        key, certificate = transport_pair(self.home, self.identity).load()
        return ExchangeLink(
            present(self.home.settings().exchange),
            authority=self.home.authority_file.read_bytes(),
            key=key,
            certificate=certificate,
        )

    def bundle(self, targets: Mapping[str, str], version: int) -> bytes:
        """Return a bundle of what this country has signed so far and of these targets."""
        settings = self.home.settings()
        own = own_documents(self.home, settings).bundle(settings.verify_key)
        texts = {**CountryBundle.from_canonical(present(own)).targets, **targets}
        encoded = {path: text.encode() for path, text in texts.items()}
        born = datetime.now(UTC).replace(microsecond=0)
        metadata, _ = country_metadata(self.identity.key, encoded, version=version, born=born)
        return CountryBundle(
            country=settings.country, metadata=metadata.decode(), targets=texts
        ).canonical()

    def submit(self, bundle: bytes, link: ExchangeLink) -> str:
        """Hand in a bundle; return the refusal, empty if it was accepted."""
        try:
            link.submit(SubmitRequest.COUNTRY_BUNDLE, bundle)
        except ProtocolFault as fault:
            return str(fault)
        return ""
