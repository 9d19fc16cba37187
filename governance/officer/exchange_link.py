"""Connect an officer to the exchange: one channel, with the officer's certificate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from governance.officer.errors import OfficerFault
from governance.officer.home import TRANSPORT_KEY, Identity, OfficerHome, Settings
from governance.officer.terminal import Terminal
from governance.runtime.credentials import Credentials, KeptPair
from governance.runtime.files import one_writer
from keys.errors import PratiqueError
from protocols.proto import exchange_pb2


class Exchange(Protocol):
    """What the officer needs from the exchange; implemented by `protocols.wire.channel`."""

    def fetch(self, path: str) -> bytes | None:
        """Return one published file, or None."""

    def submit(self, kind: exchange_pb2.SubmitRequest.Kind, content: bytes) -> None:
        """Hand in documents or signatures."""

    def enrol(self, request: exchange_pb2.EnrolRequest) -> exchange_pb2.EnrolReply:
        """Ask for admission, or for the outcome of that request."""

    def renew(self, request: exchange_pb2.RenewRequest) -> exchange_pb2.RenewReply:
        """Ask for a certificate to replace that of this channel."""

    def present(self, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        """Present another certificate from the next call on."""

    def close(self) -> None:
        """Close the channel."""


def dial(address: str, *, authority: bytes, key: bytes, certificate: bytes) -> Exchange:
    """Return a channel to the exchange; nothing is sent yet."""
    from protocols.wire.channel import ExchangeLink  # noqa: PLC0415 (gRPC takes a tenth of a second)

    return ExchangeLink(address, authority=authority, key=key, certificate=certificate)


Dial = Callable[..., Exchange]


def transport_pair(home: OfficerHome, identity: Identity) -> KeptPair:
    """Return the officer's transport key and certificate."""
    return KeptPair(identity.store, TRANSPORT_KEY, home.certificate_file)


@dataclass
class OpenLink:
    """An open channel and the certificate that it presents."""

    exchange: Exchange
    certificate: bytes
    tried: bool = False
    """Whether a renewal failed already: it is reported once; the next command tries again."""

    def keep_current(self, home: OfficerHome, credentials: Credentials, terminal: Terminal) -> None:
        """Renew the certificate if that is due, and present the newest one from now on.

        The officer's agent may have renewed it meanwhile; to present the old one would look like
        theft. If a renewal fails, the current certificate is used until it expires.
        """
        if credentials.due() and not self.tried:
            self._renew(home, credentials, terminal)
        now = credentials.presented()
        if now.certificate != self.certificate:
            self.exchange.present(authority=now.authority, key=now.key, certificate=now.certificate)
            self.certificate = now.certificate

    def _renew(self, home: OfficerHome, credentials: Credentials, terminal: Terminal) -> None:
        try:
            with one_writer(home.path / "transport"):
                if credentials.due():
                    credentials.renew(self.exchange)
        except PratiqueError as fault:
            self.tried = True
            end = f"{credentials.ends():%Y-%m-%d}"
            terminal.warn(f"your certificate was not renewed, and ends on {end}")
            terminal.warn(str(fault))


def open_link(
    home: OfficerHome, settings: Settings, credentials: Credentials, dial: Dial
) -> OpenLink:
    """Return the channel of an enrolled officer.

    Raises OfficerFault if the officer is not enrolled, KeyFault if the certificate has expired.
    """
    if settings.exchange is None or not home.certificate_file.exists():
        raise OfficerFault(
            "You are not enrolled with an exchange yet",
            why="there is no certificate in your folder",
            fix="run `pratique-officer enrol` with the invitation of the coordinator",
        )
    presented = credentials.presented()
    link = dial(
        settings.exchange,
        authority=presented.authority,
        key=presented.key,
        certificate=presented.certificate,
    )
    return OpenLink(link, presented.certificate)
