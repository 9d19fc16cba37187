"""A command whose reader ends early, as in `| head`, ends quietly with the right exit status."""

import subprocess
import sys

from governance.runtime.program import BROKEN_PIPE

TALKER = """
import typer
from governance.runtime.cli_support import plain_errors

def talk() -> None:
    with plain_errors():
        {talks}

app = typer.Typer()
app.command()(talk)
app()
"""
ALOUD = "[typer.echo('word ' * 1000) for _ in range(1000)]"
BUFFERED = "[print('word ' * 1000) for _ in range(1000)]"


def run_with_short_reader(talks: str) -> tuple[int, bytes]:
    """Run a command whose reader reads one line; return its status and standard error."""
    command = [sys.executable, "-c", TALKER.format(talks=talks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talker:
        assert talker.stdout is not None
        assert talker.stderr is not None
        talker.stdout.readline()
        talker.stdout.close()
        errors = talker.stderr.read()
        return talker.wait(60), errors


def test_a_reader_that_ends_early_is_no_error() -> None:
    assert run_with_short_reader(ALOUD) == (BROKEN_PIPE, b"")


def test_unprinted_output_is_no_error_at_exit() -> None:
    assert run_with_short_reader(BUFFERED) == (BROKEN_PIPE, b"")
