"""The program of every process of Flower here; `server.flower.superlink` starts it by its path.

    python -I .../launcher.py PARENT flower-superexec ARGUMENT...

No process is found by its name: neither PATH, a mount option, nor a variable of the environment
decides what runs. The kernel kills a process with the one that started it, PARENT.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

LAUNCHER = Path(__file__).resolve()
ROOT = LAUNCHER.parents[2]
"""The folder of the packages: a child runs the same code as the daemon."""
SUPERLINK, SUPEREXEC, SERVER_APP, CLI = (
    "flower-superlink",
    "flower-superexec",
    "flwr-serverapp",
    "flwr",
)
PROGRAMS = {
    SUPERLINK: ("flwr.superlink.cli", "flower_superlink"),
    SUPEREXEC: ("server.flower.executor", "main"),
    SERVER_APP: ("server.flower.bundle_guard", "main"),
    CLI: ("flwr.cli.app", "app"),
}
"""The module and the function of each program."""
_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG in prctl(2)."""


def command(launcher: Path, program: str, *arguments: str) -> list[str]:
    """Return the command line of a program whose process ends with this one."""
    return [sys.executable, "-I", os.fspath(launcher), str(os.getpid()), program, *arguments]


def main(launcher: Path) -> None:
    """Run the program that the command line names; its own children use the same `launcher`."""
    parent, program, *arguments = sys.argv[1:]
    _end_with(int(parent))
    if os.fspath(ROOT) not in sys.path:
        sys.path.insert(0, os.fspath(ROOT))
    sys.argv = [program, *arguments]
    module, function = PROGRAMS[program]
    run: Callable[..., None] = getattr(import_module(module), function)
    run(launcher) if program == SUPEREXEC else run()


def _end_with(parent: int) -> None:
    """Have the kernel kill this process with its parent; end if the parent has ended already."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"The process {parent}, which started this one, has ended.")


if __name__ == "__main__":
    main(LAUNCHER)
