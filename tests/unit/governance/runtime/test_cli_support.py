"""How commands print: by one function, and quietly if the reader ends early, as in `| head`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from governance.runtime.cli_support import given_path
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


@pytest.mark.parametrize("text", ["", ".", "/"])
def test_an_option_for_a_file_refuses_what_names_none(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no file name"):
        given_path(Path(text))
    assert given_path(None) is None
    assert given_path(Path("x.json")) == Path("x.json")


ROOT = Path(__file__).parents[4]
PRINTERS = {"print", "echo", "secho", "pprint"}
PRINT_THEMSELVES = {
    ("governance/runtime/cli_support.py", "secho"): "`say`, the function that prints a line",
    ("governance/runtime/cli_support.py", "echo"): "JSON of `show` and `show_list`",
    ("governance/officer/terminal.py", "echo"): "JSON of `answer`",
    ("governance/runtime/program.py", "print"): "the operating system's reason, when output fails",
    ("server/commands/watch.py", "echo"): "JSON lines",
    ("server/commands/watch.py", "print"): "lines above a progress bar, broken in the same way",
}
"""Every other place that prints, with the reason; all of them escape what they print."""


def printing_calls() -> Iterator[tuple[str, str]]:
    """Yield file and name of each call in a command's code that prints."""
    for room in ("client", "governance", "server"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func
                    name = getattr(called, "id", None) or getattr(called, "attr", "")
                    if name in PRINTERS:
                        yield file.relative_to(ROOT).as_posix(), name


def test_commands_print_by_one_function_which_escapes_and_breaks_lines() -> None:
    assert set(printing_calls()) == PRINT_THEMSELVES.keys()
