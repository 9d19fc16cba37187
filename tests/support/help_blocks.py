"""Help texts in the README: found, compared with what the programs say, and written anew.

A block that starts with `$ pratique-… --help` holds what the program prints on 80 columns.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"```console\n\$ (pratique-[a-z]+(?: [a-z]+)* --help)\n(.*?)```", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


def blocks(text: str) -> dict[str, str]:
    """Return each block's command and what it shows."""
    return {match[1]: match[2] for match in BLOCK.finditer(text)}


def said(command: str) -> str:
    """Return what a program prints, without space at the end of lines or around the text."""
    program, *words = command.split()
    path = Path(sys.executable).parent / program
    environment = {**os.environ, **PLAIN}
    done = subprocess.run(
        [path, *words], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def renewed(text: str) -> str:
    """Return the text with every help block as the programs print it now."""
    return BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{said(match[1])}```", text)


def main() -> None:
    """Write the README's help blocks anew."""
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
