"""The one channel that a node or an officer opens: gRPC with mutual TLS to the exchange."""

from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from keys.errors import PratiqueError
from protocols.errors import ProtocolFault
from protocols.proto import exchange_pb2, exchange_pb2_grpc

ReplyT = TypeVar("ReplyT")

MAX_MESSAGE = 64 * 2**20
"""Largest message either way, in bytes."""
_OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


class LinkFault(PratiqueError):
    """The exchange cannot be reached, or it refused the call.

    `passing` tells whether the same call may succeed later.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", passing: bool = False) -> None:
        self.passing = passing
        super().__init__(what, why=why, fix=fix)


class ExchangeLink:
    """A party's side of the exchange. Safe to use from several threads."""

    def __init__(self, address: str, *, authority: bytes, key: bytes, certificate: bytes) -> None:
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        self._address = address
        self._channel = grpc.secure_channel(address, credentials, options=_OPTIONS)
        self._stub = exchange_pb2_grpc.ExchangeStub(self._channel)

    def enrol(
        self, request: exchange_pb2.EnrolRequest, seconds: float = 10
    ) -> exchange_pb2.EnrolReply:
        """Ask for admission, or what became of it."""
        reply: exchange_pb2.EnrolReply = self._call(self._stub.Enrol, request, seconds)
        return reply

    def fetch(self, path: str, seconds: float = 10) -> bytes | None:
        """Return one file of the exchange, or None where it has none at `path`."""
        reply = self._call(self._stub.Fetch, exchange_pb2.FetchRequest(path=path), seconds)
        return reply.content if reply.found else None

    def submit(
        self, kind: exchange_pb2.SubmitRequest.Kind, content: bytes, seconds: float = 20
    ) -> None:
        """Hand in documents or signatures; raises ProtocolFault with the exchange's reason."""
        request = exchange_pb2.SubmitRequest(kind=kind, content=content)
        reply = self._call(self._stub.Submit, request, seconds)
        if not reply.accepted:
            raise ProtocolFault(reply.what, why=reply.why, fix=reply.fix)

    def relay(self, request: exchange_pb2.RelayRequest, seconds: float) -> exchange_pb2.RelayReply:
        """Carry one Fleet call."""
        reply: exchange_pb2.RelayReply = self._call(self._stub.Relay, request, seconds)
        return reply

    def close(self) -> None:
        """Close the channel; calls in flight end with LinkFault."""
        self._channel.close()

    def _call(self, method: Callable[..., ReplyT], request: Message, seconds: float) -> ReplyT:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise self._fault(error) from error
        except ValueError as error:
            raise LinkFault("The link to the exchange is closed", passing=True) from error

    def _fault(self, error: grpc.RpcError) -> LinkFault:
        code, details = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return LinkFault(
                f"The exchange at {self._address} does not answer",
                why=details,
                fix="check the address, the network and that the coordinator is up",
                passing=True,
            )
        return LinkFault(f"The exchange at {self._address} refused the call", why=details)
