"""Follow `docs/bring-your-own-data.md` step by step, with the file shown there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from demo.hospitals import DICTIONARY
from tests.support.command_help import PLAIN, ROOT
from tests.support.selection import HOSPITALS

PAGE = ROOT / "docs" / "bring-your-own-data.md"
BUDAPEST = HOSPITALS / "processed.hungarian.data"
STEP = re.compile(r"```console\n\$ (pratique-.*)\n((?:.*\n)*?)```")
BLOCK = re.compile(r"```(yaml|text)\n(.*?)```", re.DOTALL)
UNLOCKING = ("keygen", "init", "doctor")


def block(kind: str, start: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    (matching,) = [b for k, b in BLOCK.findall(text) if k == kind and b.startswith(start)]
    return str(matching)


def steps() -> list[tuple[str, list[str]]]:
    text = PAGE.read_text(encoding="utf-8")
    return [(command, output.splitlines()) for command, output in STEP.findall(text)]


def run_command(command: str, folder: Path) -> list[str]:
    program, *words = shlex.split(command)
    assert words[0] in UNLOCKING
    path = Path(sys.executable).parent / program
    environment = {**os.environ, **PLAIN, "HOME": str(folder), "COLUMNS": "9999"}
    done = subprocess.run(
        [path, *words, "--passphrase-file", "passphrase"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 1} if words[0] == "doctor" else done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


def agrees(expected: list[str], printed: list[str]) -> bool:
    """Return whether the lines agree; `…` matches any text, alone on a line any lines."""
    parts = [
        r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in expected
    ]
    return re.fullmatch("".join(parts), "\n".join(printed) + "\n") is not None


def test_the_page_shows_the_dictionary_that_the_demo_uses() -> None:
    assert block("yaml", "# What the columns") == DICTIONARY.read_text(encoding="utf-8")


@pytest.mark.hospitals
def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("beside the lake\n", encoding="utf-8")
    (tmp_path / "budapest.csv").write_bytes(BUDAPEST.read_bytes())
    (tmp_path / "dictionary.yaml").write_text(block("yaml", "# What"), encoding="utf-8")
    (tmp_path / "opted-out.txt").write_text(block("text", "# asked"), encoding="utf-8")
    assert len(steps()) == 3
    for command, output in steps():
        printed = run_command(command, tmp_path)
        assert agrees(output, printed), "\n".join([f"$ {command}", *printed])


@pytest.mark.hospitals
def test_the_page_shows_the_file_as_it_is() -> None:
    assert BUDAPEST.read_text(encoding="utf-8").startswith(block("text", "28,1,2"))


def test_a_line_that_differs_is_noticed() -> None:
    assert agrees(["a 1", "…", "b …"], ["a 1", "x", "y", "b 7"])
    assert not agrees(["a 1", "b …"], ["a 1", "x", "b 7"])
    assert not agrees(["a 1"], ["a 2"])
