"""How a program starts and ends; `tests/integration/test_machines.py` has the real programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import typer
from governance.runtime.program import run_program
app = typer.Typer(add_completion=False)

@app.command()
def say() -> None:
    {body}

run_program(app, "say")
"""


def run(
    body: str, environment: dict[str, str] | None = None, redirect: str = ""
) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-c", PROGRAM.format(root=str(ROOT), body=body)]
    shell = ["/bin/sh", "-c", f'"$@" {redirect}', "sh", *words]
    return subprocess.run(shell, env=environment or {}, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("ascii", rb"\u03b5 \xfc"), ("iso8859-1", b"\\u03b5 \xfc"), ("utf-8", "ε ü".encode())],
)
def test_what_a_terminal_cannot_show_is_printed_as_its_code(encoding: str, printed: bytes) -> None:
    done = run("print('\\u03b5 \\xfc')", {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, printed, b"")


def test_files_are_private_and_closed_streams_are_opened(tmp_path: Path) -> None:
    file = tmp_path / "made"
    body = f"open({str(file)!r}, 'w').write(str(sys.stdin.isatty())); print('lost')"
    done = run(body, redirect="<&- >&- 2>&-")
    assert done.returncode == 0
    assert file.read_text() == "False"
    assert file.stat().st_mode & 0o777 == 0o600


def test_output_that_cannot_be_written_is_said() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    done = run("print('x')", redirect="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"The output could not be written: No space left on device.\n"


def test_the_exit_status_of_a_command_stays() -> None:
    assert run("raise typer.Exit(7)").returncode == 7
