"""Runs the stock Flower SuperLink and SuperExec on loopback, and controls them by `flwr`.

The SuperLink keeps nothing (no `--database`): lasting state is in state.db. Its Control, Fleet and
Runtime APIs share one port without a login, so it never listens beyond 127.0.0.1. Its TLS key and
the SuperExec secret are created at each start, in a folder in memory that is deleted with the
process.
"""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from keys.certificates import Role, TransportAuthority, new_transport_key, public_pem
from keys.clock import utc_now
from keys.files import write_private
from server.errors import CoordinatorFault
from server.flower.launcher import CLI, LAUNCHER, SUPEREXEC, SUPERLINK, command
from server.membership.transport_authority import REGION

HOST = "127.0.0.1"
START_SECONDS = 60.0
COMMAND_SECONDS = 60.0
STOP_SECONDS = 10.0
LOG_TAIL = 600
"""Characters at the end of a log that an error shows."""
LIFETIME = timedelta(days=3000)
"""Longer than the process runs: the loopback certificate is created at each start."""
LINK_NAME = "local"
NOWHERE = "/nonexistent"
"""PATH of Flower's processes: none of them finds a program by its name."""

_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_LOG_LEVEL": "WARNING",  # logging every call takes a tenth of the call's time
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "PYTHONSAFEPATH": "1",
}


class SuperLink:
    """A SuperLink process and its executor: start them, use them, close them."""

    def __init__(
        self, home: Path, *, environment: Mapping[str, str], launcher: Path = LAUNCHER
    ) -> None:
        """`home` contains Flower's folder and logs; the server app gets `environment`.

        `launcher` is the program of Flower's processes; only tests change it.
        """
        self._home = home = home.absolute()  # Flower's commands run in another folder
        self._launcher = launcher
        self._secrets = _secret_folder(home)
        self.port = _free_port()
        self._environment = _environment(home, environment)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.restarts: Counter[str] = Counter()

    @property
    def home(self) -> Path:
        """Flower's folder."""
        return self._home

    @property
    def address(self) -> str:
        """The SuperLink's host and port, on loopback."""
        return f"{HOST}:{self.port}"

    @property
    def root_certificate(self) -> Path:
        """The file of the authority that issued the SuperLink's certificate."""
        return self._secrets / "ca.pem"

    def start(self) -> None:
        """Start both processes and wait until the SuperLink listens.

        Raises CoordinatorFault with the end of the log if it does not.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_secrets()
        self._write_flower_config()
        self._empty_scratch()
        self._spawn("superlink", self._superlink_command())
        self._wait_until_it_listens()
        self._spawn("superexec", self._superexec_command())

    def restart(self) -> None:
        """End both processes and start new ones, with new secrets and another port."""
        if name := self.failed_process():
            self.restarts[name] += 1
        self.close()
        self._secrets, self.port = _secret_folder(self._home), _free_port()
        self.start()

    def close(self) -> None:
        """End both processes and delete their secrets."""
        for process in reversed(self._processes):
            _end(process)
        self._processes = []
        shutil.rmtree(self._secrets, ignore_errors=True)

    def failed_process(self) -> str | None:
        """Return the name of a process that has ended by itself; None if both are running."""
        names = ("superlink", "superexec")
        pairs = zip(names, self._processes, strict=False)
        return next((name for name, process in pairs if process.poll() is not None), None)

    def register(self, openssh_public_key: str) -> int:
        """Register a node's authentication key; return the node's Flower id."""
        key = self._secrets / f"node-{secrets.token_hex(8)}.pub"
        key.write_text(openssh_public_key)
        try:
            answer = self._flwr("supernode", "register", str(key), LINK_NAME)
        finally:
            key.unlink()
        return int(answer["node-id"])

    def run(self, bundle: Path) -> int:
        """Submit a Flower run of a configuration-only bundle; return Flower's run id."""
        return int(self._flwr("run", str(bundle), LINK_NAME)["run-id"])

    def stop(self, flower_run: int) -> None:
        """Stop a Flower run."""
        self._flwr("stop", str(flower_run), LINK_NAME)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that `flwr list` shows."""
        return list(self._flwr("list", LINK_NAME)["runs"])

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        words = command(self._launcher, CLI, *arguments, "--format", "json")
        try:
            completed = subprocess.run(
                words,
                env=self._environment,
                cwd=self._home,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CoordinatorFault(
                f"Flower did not answer `flwr {arguments[0]}` within {COMMAND_SECONDS:.0f} seconds",
                fix="read superlink.log in the coordinator's home, then restart `up`",
            ) from error
        return _flwr_answer(arguments, completed)

    def _write_secrets(self) -> None:
        now = utc_now()
        authority = TransportAuthority.create("loopback", now)
        key = new_transport_key()
        certificate = authority.issue(
            public_pem(key),
            country=REGION,
            role=Role.COORDINATOR,
            now=now,
            lifetime=LIFETIME,
            hosts=(HOST, "localhost"),
        )
        files = {
            "ca.pem": authority.certificate_pem,
            "cert.pem": certificate,
            "key.pem": key,
            "superexec": secrets.token_bytes(32),
        }
        for name, content in files.items():
            write_private(self._secrets / name, content)

    def _write_flower_config(self) -> None:
        folder = self._home / "flwr"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "{LINK_NAME}"\n\n[superlink.{LINK_NAME}]\n'
            f'address = "{self.address}"\n'
            f"root-certificates = {json.dumps(os.fspath(self.root_certificate))}\n"
        )

    def _empty_scratch(self) -> None:
        """Make Flower's folder for temporary files, and delete what a killed process left there."""
        scratch = Path(self._environment["TMPDIR"])
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)

    def _superlink_command(self) -> list[str]:
        return [
            *command(self._launcher, SUPERLINK),
            *("--ssl-certfile", str(self._secrets / "cert.pem")),
            *("--ssl-keyfile", str(self._secrets / "key.pem")),
            *("--ssl-ca-certfile", str(self.root_certificate)),
            *("--isolation", "process"),
            "--enable-supernode-auth",
            *("--superexec-auth-secret-file", str(self._secrets / "superexec")),
            "--disable-runtime-dependency-installation",
            *("--host", HOST, "--port", str(self.port)),
        ]

    def _superexec_command(self) -> list[str]:
        return [
            *command(self._launcher, SUPEREXEC),
            *("--runtime-api-address", self.address),
            *("--root-certificates", str(self.root_certificate)),
            *("--superexec-auth-secret-file", str(self._secrets / "superexec")),
        ]

    def _spawn(self, name: str, words: Sequence[str]) -> None:
        with (self._home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self.failed_process() or time.monotonic() > deadline:
                self.close()
                raise CoordinatorFault(
                    "The Flower SuperLink did not start",
                    why=_tail(self._home / "superlink.log"),
                    fix="read superlink.log in the coordinator's home",
                )
            time.sleep(0.05)


def node_key_bytes(key: EllipticCurvePublicKey) -> bytes:
    """Return a node's SuperLink key in the form that Flower compares."""
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes  # noqa: PLC0415 - slow

    return bytes(public_key_to_bytes(key))


def _environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of Flower's processes; nothing of the daemon's is in it."""
    own = {
        "PATH": NOWHERE,
        "HOME": os.fspath(home),
        "TMPDIR": os.fspath(home / "tmp"),
        "LANG": "C.UTF-8",
        "FLWR_HOME": os.fspath(home / "flwr"),
    }
    return {**own, **_QUIET, **extra}


def _flwr_answer(
    arguments: Sequence[str], completed: subprocess.CompletedProcess[str]
) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(completed.stdout)
    except ValueError:
        answer = {}
    if completed.returncode == 0 and answer.get("success", False):
        return answer
    output = completed.stderr or completed.stdout
    raise CoordinatorFault(
        f"Flower refused `flwr {arguments[0]}`",
        why=str(answer.get("error-message") or output[-500:]),
        fix="read superlink.log in the coordinator's home, then restart `up`",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _secret_folder(home: Path) -> Path:
    """Create a private folder in memory; delete those that a killed daemon of this home left."""
    name = f"pratique-{hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]}-"
    folder = next(filter(_usable, _memory_folders()), None)
    if folder is None:  # the coordinator's own folder, on its disk
        folder = home
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in folder.glob(f"{name}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=name, dir=folder))


def _memory_folders() -> Iterator[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and runtime.isprintable():
        yield Path(runtime)
    yield Path("/dev/shm")  # noqa: S108 (mkdtemp makes a private folder in it)


def _usable(folder: Path) -> bool:
    """Return whether nobody else can replace a folder that is made in this one."""
    try:
        status = folder.stat()
    except OSError:
        return False
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    owned = status.st_uid in {0, os.geteuid()}
    return owned and not shared and folder.is_dir() and os.access(folder, os.W_OK)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-LOG_TAIL:].strip() if path.exists() else ""
