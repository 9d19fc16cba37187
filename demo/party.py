"""Run a party's commands, each as a process with the party's folder and passphrase."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from demo.story import QUOTED_WIDTH
from keys.files import write_private

PROGRAMS = Path(sys.executable).parent
COMMAND_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.1
LOG_TAIL = 20
"""Lines at the end of a log that an error shows."""
QUIET = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
INHERITED = ("PATH", "LANG")


class CommandFailed(Exception):
    """A command that had to succeed failed, or a command that had to be refused succeeded."""


@dataclass
class Processes:
    """Every process of the demo; all are ended when the demo ends, in whatever way."""

    logs: Path
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _daemons: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scratch(self) -> Path:
        """The folder for the programs' temporary files; it is deleted with everything else."""
        return self.logs.parent / "tmp"

    def spawn(self, command: Sequence[str], home: Path, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a process in its own session, so that Ctrl-C reaches only the demo."""
        process = subprocess.Popen(
            command,
            cwd=home.parent,
            env=_environment(home, self.scratch),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )
        with self._lock:
            self._running.append(process)
        return process

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._running.remove(process)

    def note_daemon(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        """Note which daemon serves a folder."""
        self._daemons[home] = process

    def kill(self, home: Path) -> None:
        """Kill the daemon of a folder, as a power cut would: it can neither finish nor save."""
        process = self._daemons.pop(home)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.forget(process)

    def end_all(self) -> None:
        """Ask all running processes to end, newest first; kill those that do not end in time."""
        with self._lock:
            running = [p for p in reversed(self._running) if p.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            _end(process, deadline)


def _end(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(home: Path, scratch: Path) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    inherited["PATH"] = f"{PROGRAMS}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"HOME": str(home), "TMPDIR": str(scratch), "COLUMNS": str(QUOTED_WIDTH)}
    return inherited | own | QUIET


@dataclass(frozen=True)
class Party:
    """A person or machine with a program, a folder and a passphrase."""

    name: str
    program: str
    home: Path
    processes: Processes

    def create_passphrase(self) -> None:
        """Write a random passphrase to a file."""
        self.home.parent.mkdir(exist_ok=True)
        write_private(self.passphrase, secrets.token_urlsafe(18).encode())

    @property
    def passphrase(self) -> Path:
        """The file with this party's passphrase."""
        return self.home.parent / f"{self.home.name}.passphrase"

    def run(self, *arguments: str | Path, unlock: bool = False) -> str:
        """Run a command and return what it printed. Raises CommandFailed unless it ends with 0."""
        code, out, err = self._finish(arguments, unlock)
        if code:
            raise CommandFailed(
                f"{self.as_typed(arguments)}\nended with status {code}:\n{out}{err}"
            )
        return out

    def ask(self, *arguments: str | Path, unlock: bool = False) -> Any:
        """Run a command with --json and return its answer."""
        return json.loads(self.run(*arguments, "--json", unlock=unlock))

    def refused(self, *arguments: str | Path, unlock: bool = False) -> str:
        """Run a command that must be refused and return the reason it printed."""
        code, out, err = self._finish(arguments, unlock)
        if code != 1:
            raise CommandFailed(
                f"{self.as_typed(arguments)}\nshould have been refused, and was not:\n{out}{err}"
            )
        return out + err

    def as_typed(self, arguments: Sequence[str | Path]) -> str:
        """Return the command as a person would type it."""
        return " ".join([self.program, *(_short(argument) for argument in arguments)])

    def _finish(self, arguments: Sequence[str | Path], unlock: bool) -> tuple[int, str, str]:  # noqa: FBT001
        process = self._spawn(arguments, unlock, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise CommandFailed(
                f"{self.as_typed(arguments)}\ntook over {COMMAND_SECONDS:g} s"
            ) from None
        self.processes.forget(process)
        return process.returncode, out.decode(), err.decode()

    def _spawn(
        self,
        arguments: Sequence[str | Path],
        unlock: bool,  # noqa: FBT001
        **streams: Any,
    ) -> subprocess.Popen[bytes]:
        secret = ["--passphrase-file", str(self.passphrase)] if unlock else []
        command = [str(PROGRAMS / self.program), *map(str, arguments), "--home", str(self.home)]
        return self.processes.spawn([*command, *secret], self.home, **streams)

    @contextmanager
    def lines(self, *arguments: str | Path, unlock: bool = False) -> Iterator[Iterator[str]]:
        """Run a command and yield its lines as it prints them. Raises CommandFailed like `run`."""
        log = self.processes.logs / f"{self.home.name}-{arguments[0]}.err"
        with log.open("ab") as errors:
            process = self._spawn(arguments, unlock, stdout=subprocess.PIPE, stderr=errors)
        with process.stdout or BytesIO() as printed:
            yield (line.decode().rstrip() for line in printed)
        if process.wait(COMMAND_SECONDS):
            errors_text = log.read_text(encoding="utf-8")
            raise CommandFailed(
                f"{self.as_typed(arguments)}\n"
                f"ended with status {process.returncode}:\n{errors_text}"
            )
        self.processes.forget(process)

    def start(self, *arguments: str | Path, ready: Callable[[], bool], seconds: float) -> None:
        """Start a daemon and wait until `ready`. Raises CommandFailed after `seconds`."""
        log = self.processes.logs / f"{self.home.name}.log"
        with log.open("ab") as output:
            process = self._spawn(arguments, unlock=True, stdout=output, stderr=output)
        self.processes.note_daemon(self.home, process)
        deadline = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandFailed(f"{self.as_typed(arguments)}\nis not ready:\n{_tail(log)}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Kill this party's daemon."""
        self.processes.kill(self.home)

    def log_says(self, text: str) -> bool:
        """Whether this party's daemon has printed `text`."""
        log = self.processes.logs / f"{self.home.name}.log"
        return log.exists() and text in log.read_text(encoding="utf-8", errors="replace")


def _short(argument: str | Path) -> str:
    text = argument.name if isinstance(argument, Path) else argument
    return f"'{text}'" if " " in text else text


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:])
