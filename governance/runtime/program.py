"""How each of the three programs starts and ends, whatever terminal and user it is started by.

Files that it makes are private, whatever the umask. A closed standard stream is replaced by
/dev/null: otherwise the next file that is opened, perhaps a database, would get what is printed. A
character that the terminal cannot show is printed as its code.
"""

import os
import sys
from typing import TextIO

import typer

PRIVATE_UMASK = 0o077
BROKEN_PIPE = 141
"""Exit status as in a shell: 128 plus the number of SIGPIPE."""


def run_program(app: typer.Typer, name: str) -> None:
    """Run the command line of a program, and end the process."""
    os.umask(PRIVATE_UMASK)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        _show_codes_of_unknown_characters(stream)
    try:
        app(prog_name=name)
    except SystemExit as end:
        sys.exit(_written(end.code))


def _open_closed_streams() -> None:
    for descriptor, mode in enumerate("rww"):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        if (sys.stdin, sys.stdout, sys.stderr)[descriptor] is None:
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 (for the process)
            setattr(sys, ("stdin", "stdout", "stderr")[descriptor], stream)


def _show_codes_of_unknown_characters(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _written(status: str | int | None) -> str | int | None:
    """Write what is still buffered, and return the exit status."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    except OSError as error:  # a full disk
        print(f"The output could not be written: {error.strerror}.", file=sys.stderr)
        discard_output()
        return 1
    return status


def discard_output() -> None:
    """Discard standard output: its reader has closed it, and it is flushed again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
