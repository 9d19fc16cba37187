"""Write the help of every command into `docs/commands.md`.

The page's own text ends at `MARK`. Below it is one block for each command, with what the command's
`--help` prints on 80 columns.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer.main
from click.testing import CliRunner
from typer import Typer

import client.cli
import governance.officer.cli
import server.cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "commands.md"
PROGRAMS: dict[str, Typer] = {
    "pratique-node": client.cli.app,
    "pratique-officer": governance.officer.cli.app,
    "pratique-coordinator": server.cli.app,
}
MARK = "<!-- Everything below is written by: make commands -->\n"
BLOCK = re.compile(r"```console\n\$ (pratique-[a-z -]+) --help\n(.*?)```", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


def trimmed(text: str) -> str:
    """Return the text without white space at the end of lines or around it."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def anywhere(command: click.Command) -> click.Command:
    """Write the user's home folder as `~` in the defaults of a command and its subcommands."""
    for parameter in command.params:
        default = parameter.default
        if isinstance(default, Path) and default.is_relative_to(Path.home()):
            parameter.default = "~" / default.relative_to(Path.home())
    if isinstance(command, click.Group):
        for child in command.commands.values():
            anywhere(child)
    return command


def tree(program: str) -> click.Command:
    """Return a program's commands."""
    return anywhere(typer.main.get_command(PROGRAMS[program]))


def printed(words: tuple[str, ...]) -> str:
    """Return what a command's `--help` prints, without starting its program."""
    program, *rest = words
    result = CliRunner().invoke(tree(program), [*rest, "--help"], prog_name=program, env=PLAIN)
    if result.exit_code != 0:
        raise RuntimeError(f"{' '.join(words)} --help: {result.output}")
    return trimmed(result.stdout)


def printed_by_program(program: str) -> str:
    """Return what the `--help` of an installed program prints."""
    done = subprocess.run(
        [Path(sys.executable).parent / program, "--help"],
        env={**os.environ, **PLAIN},
        capture_output=True,
        text=True,
        check=True,
    )
    return trimmed(done.stdout)


def commands_below(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command, and of each of its subcommands."""
    yield words
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands_below(child, (*words, name))


def all_commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command of the three programs."""
    for program in PROGRAMS:
        yield from commands_below(tree(program), (program,))


def section(words: tuple[str, ...]) -> str:
    """Return a command's heading and block."""
    name = " ".join(words)
    level = "##" if len(words) == 1 else "###"
    return f"\n{level} {name}\n\n```console\n$ {name} --help\n{printed(words)}```\n"


def with_help(page: str) -> str:
    """Return the page with the help of every command below its mark."""
    text, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} lacks the line {MARK.strip()}")
    return text + mark + "".join(section(words) for words in all_commands())


def main() -> None:
    """Write the help of every command into the page."""
    PAGE.write_text(with_help(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
