"""A real `pratique-coordinator up` in a process of its own, and officers who enrol with it."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.opening import COORDINATOR_SECONDS, _free_port
from governance.runtime.local_rpc import LocalRpcFault, ask
from keys.files import write_private
from protocols.wire.channel import ExchangeLink
from protocols.wire.invitation import Invitation
from tests.support.enrolling import Applicant, officer_statement
from tests.support.exchange_server import LOOPBACK, Caller

PROGRAM = Path(sys.executable).parent / "pratique-coordinator"
STOP_SECONDS = 20.0


@dataclass
class CoordinatorProcess:
    """A running coordinator: its process, its folder and the port of its exchange."""

    process: "subprocess.Popen[bytes]"
    home: Path
    port: int
    authority: bytes = field(default=b"")

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer to a command on its machine."""
        return ask(self.home / "run" / "coordinator.sock", method, 10.0, **params)

    def command(self, *words: str) -> str:
        """Run one of its commands; return what it printed."""
        done = subprocess.run(
            [PROGRAM, *words, "--home", self.home], capture_output=True, text=True, check=True
        )
        return done.stdout

    def link(self, who: Caller) -> ExchangeLink:
        """Return a link of a party."""
        return ExchangeLink(
            f"{LOOPBACK}:{self.port}",
            authority=self.authority,
            key=who.key,
            certificate=who.certificate,
        )

    def guest(self, country: str = "BE") -> Caller:
        """Invite an officer; return what the invitation allows to call with."""
        return self._guest(Invitation.model_validate(self._invited(country)))

    def officer(self, country: str = "AT") -> Caller:
        """Invite, enrol and admit an officer."""
        invitation, who = (
            Invitation.model_validate(self._invited(country)),
            Applicant(officer_statement(country)),
        )
        with closing(self.link(self._guest(invitation))) as link:
            request = who.request(invitation)
            self.ask("admit", fingerprint=link.enrol(request).fingerprint)
            return Caller(who.key, link.enrol(request).certificate)

    @property
    def peak_mib(self) -> float:
        """The most memory that it has used so far, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(peak) / 1024

    def _invited(self, country: str) -> Any:
        invited = self.ask("invite", country=country, role="officer")
        self.authority = invited["authority"].encode()
        return invited

    def _guest(self, invitation: Invitation) -> Caller:
        return Caller(invitation.key.encode(), invitation.certificate.encode())


@contextmanager
def coordinator_process(folder: Path, descriptors: int) -> Iterator[CoordinatorProcess]:
    """Run a new coordinator with this limit of descriptors; its folder must have a short path."""
    home, port, passphrase = folder / "c", _free_port(), folder / "passphrase"
    write_private(passphrase, b"correct horse battery staple")
    common = ["--home", str(home), "--passphrase-file", str(passphrase)]
    named = ["--federation", "danube", "--listen", f"{LOOPBACK}:{port}"]
    subprocess.run([PROGRAM, "init", *named, *common], check=True, capture_output=True)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    path = f"{PROGRAM.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "up", *common],
            stdout=log,
            stderr=log,
            env=os.environ | {"PATH": path},
            preexec_fn=limited,  # noqa: PLW1509 (setrlimit(2) only)
        )
    running = CoordinatorProcess(process, home, port)
    try:
        _wait_until_ready(running, folder / "log")
        yield running
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _wait_until_ready(running: CoordinatorProcess, log: Path) -> None:
    deadline = time.monotonic() + COORDINATOR_SECONDS
    while True:
        try:
            running.ask("status")
        except LocalRpcFault:
            ended = running.process.poll() is not None or time.monotonic() > deadline
            assert not ended, log.read_text(errors="replace")[-2_000:]
            time.sleep(0.1)
        else:
            return
