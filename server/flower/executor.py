"""Flower's SuperExec with our executor: it starts a server app behind the bundle guard, by path.

Flower's executor finds `flwr-serverapp` on PATH. Ours starts `server.flower.launcher`, and no
other kind of app. The app's token goes through a pipe: other users can read a command line. This
uses Flower's internals; flwr is pinned to 1.42. If they change, `server.flower.guard_check` fails.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

from server.flower.launcher import SERVER_APP, command


class GuardedExecutor:
    """Starts server apps, each in a process that checks its bundle first."""

    def __init__(self, launcher: Path) -> None:
        """`launcher` is the program of `server.flower.launcher`."""
        self._launcher = launcher

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: Any
    ) -> tuple[set[TaskType], set[str]]:
        """Return every kind of task: one that does not run here is refused, and ends."""
        return supported_task_types, set()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a server app; refuse every other kind of task."""
        if spec.task_type is not TaskType.SERVER_APP:
            return LaunchResult.failed(f"Refused: {spec.task_type} is not run here")
        process = subprocess.Popen(
            self._command(spec),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if process.stdin is not None:
            process.stdin.write(spec.token.encode())
            process.stdin.close()
        return LaunchResult.accepted()

    def _command(self, spec: ExecutionSpec) -> list[str]:
        return command(
            self._launcher,
            SERVER_APP,
            *("--runtime-api-address", spec.runtime_api_address),
            *("--root-certificates", str(spec.root_certificates_path)),
        )

    def reconcile(self) -> None:
        """Do nothing: there is no pool of processes."""

    def close(self) -> None:
        """Do nothing: the kernel ends the processes with this one."""


def main(launcher: Path) -> None:
    """Run Flower's SuperExec with our executor."""
    runner: Any = sys.modules["flwr.supercore.superexec.run_superexec"]
    runner.get_executor = lambda *_, **__: GuardedExecutor(launcher)
    flower_superexec()
