"""Run the working tree's programs in processes, in exactly the environment that a test names."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = {
    "pratique-node": "client.cli",
    "pratique-coordinator": "server.cli",
    "pratique-officer": "governance.officer.cli",
}
PROGRAMS = sorted(MODULES)
SECONDS = 60.0


def words(program: str, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
    """Return the command line of a program; `arguments` may be bytes that are not UTF-8."""
    source = (
        f"import sys; sys.path.insert(0, {os.fspath(ROOT)!r}); sys.argv[0] = {program!r}\n"
        f"from {MODULES[program]} import main; main()"
    )
    return [sys.executable, "-P", "-c", source, *arguments]


def run_program(
    program: str,
    *arguments: str | bytes | Path,
    env: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    **more: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, in this environment or an empty one, after the words `before`."""
    options = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": SECONDS, **more}
    command = [*before, *words(program, *arguments)]
    return subprocess.run(command, env=dict(env or {}), check=False, **options)
