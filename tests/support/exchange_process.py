"""An exchange in a process of its own, which an attack may end or exhaust.

It has an officer, a node and two guests with invitations. `memory_mib` is the most memory that it
has used so far, `descriptors` the limit that it gets.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node

from keys.certificates import Role, TransportAuthority
from protocols.proto.exchange_pb2 import EnrolReply, EnrolRequest, RelayRequest
from protocols.wire.channel import ExchangeLink
from protocols.wire.flower_frame import SESSION_BYTES
from server.exchange.connection_limits import Room
from server.exchange.fencing import Fence, SignIn
from server.exchange.relay import Relay
from tests.support.exchange_server import (
    LOOPBACK,
    Caller,
    OpenExchange,
    ScriptedSuperLink,
    ServedFiles,
    caller,
    now,
)

USUAL_DESCRIPTORS = 1024
FILE = "draft"
NODE_ID = 101
SESSION = bytes(SESSION_BYTES)
PARTIES = {
    "officer": ("AT", Role.OFFICER),
    "node": ("AT", Role.NODE),
    "guest": ("BE", Role.ENROLMENT),
    "hostile guest": ("PT", Role.ENROLMENT),
}
HEARTBEAT = SendNodeHeartbeatRequest(node=Node(node_id=NODE_ID)).SerializeToString()


@dataclass(frozen=True)
class ExchangeProcess:
    """A running exchange, and the parties that may call it."""

    process: "subprocess.Popen[str]"
    port: int
    authority: bytes
    parties: dict[str, Caller]

    def link(self, name: str) -> ExchangeLink:
        """Return a link of one of the parties."""
        who = self.parties[name]
        return ExchangeLink(
            f"{LOOPBACK}:{self.port}",
            authority=self.authority,
            key=who.key,
            certificate=who.certificate,
        )

    @property
    def memory_mib(self) -> float:
        """The most memory that it has used so far, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(peak) / 1024


def honest_work(links: dict[str, ExchangeLink]) -> None:
    """Make one call of each honest party: a document, a heartbeat and a request for admission."""
    assert links["officer"].fetch(FILE, seconds=5.0) == b"content"
    beat = RelayRequest(method="SendNodeHeartbeat", body=HEARTBEAT, session=SESSION)
    assert links["node"].relay(beat, 5.0).status == 200
    assert links["guest"].enrol(EnrolRequest(), 5.0).status == EnrolReply.PENDING


@contextmanager
def exchange_process(descriptors: int = USUAL_DESCRIPTORS) -> Iterator[ExchangeProcess]:
    """Run an exchange while the block runs."""
    command = [sys.executable, "-c", f"from {__name__} import serve; serve({descriptors})"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            port, authority, parties = json.loads(process.stdout.readline())
            callers = {name: Caller(*map(str.encode, pair)) for name, pair in parties.items()}
            yield ExchangeProcess(process, port, authority.encode(), callers)
        finally:
            process.kill()


class Waiting:
    """An enrolment service at which every request waits for approval."""

    def enrol(self, *_: Any) -> EnrolReply:
        return EnrolReply(status=EnrolReply.PENDING)


def serve(descriptors: int) -> None:
    """Serve with this limit of descriptors until standard input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    authority = TransportAuthority.create("danube", now())
    fence = Fence()
    fence.sign_in("AT", SignIn(SESSION, incarnation=1, former=b""))
    relay = Relay(ScriptedSuperLink().forward, fence=fence, heartbeat=0.0)
    relay.open_session("AT", NODE_ID, b"key of AT")
    parties = {name: caller(authority, *party) for name, party in PARTIES.items()}
    with OpenExchange(
        authority,
        relay,
        enrolments=Waiting(),
        documents=ServedFiles({FILE: b"content"}),
        room=Room.within(descriptors, 32),
    ) as running:
        pairs = {
            name: (who.key.decode(), who.certificate.decode()) for name, who in parties.items()
        }
        print(json.dumps([running.port, authority.certificate_pem.decode(), pairs]), flush=True)
        sys.stdin.read()
