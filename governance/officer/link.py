"""The officer's way to the exchange: one channel, opened with the officer's own certificate."""

from collections.abc import Callable
from typing import Protocol

from governance.officer.errors import OfficerFault
from governance.officer.home import TRANSPORT_KEY, Identity, OfficerHome, Settings
from protocols.proto import exchange_pb2


class Exchange(Protocol):
    """What the officer needs of the exchange; `protocols.channel.ExchangeLink` is one."""

    def fetch(self, path: str) -> bytes | None:
        """Return one published file, or None."""

    def submit(self, kind: exchange_pb2.SubmitRequest.Kind, content: bytes) -> None:
        """Hand in documents or signatures."""

    def enrol(self, request: exchange_pb2.EnrolRequest) -> exchange_pb2.EnrolReply:
        """Ask for admission, or what became of it."""

    def close(self) -> None:
        """Close the channel."""


def dial(address: str, *, authority: bytes, key: bytes, certificate: bytes) -> Exchange:
    """Return a channel to the exchange; nothing is sent yet."""
    from protocols.channel import ExchangeLink  # noqa: PLC0415 (gRPC takes a tenth of a second)

    return ExchangeLink(address, authority=authority, key=key, certificate=certificate)


Dial = Callable[..., Exchange]


def open_link(home: OfficerHome, settings: Settings, identity: Identity, dial: Dial) -> Exchange:
    """Return the channel of an enrolled officer. Raises OfficerFault where it is not enrolled."""
    if settings.exchange is None or not home.certificate_file.exists():
        raise OfficerFault(
            "You are not enrolled with an exchange yet",
            why="there is no certificate in your folder",
            fix="run `pratique-officer enrol` with the invitation of the coordinator",
        )
    return dial(
        settings.exchange,
        authority=home.authority_file.read_bytes(),
        key=identity.store.get(TRANSPORT_KEY),
        certificate=home.certificate_file.read_bytes(),
    )
