"""Find phrases that are hard to read, in pages, docstrings, comments and messages.

The phrases and the better wordings are in `phrases.yaml`. Python files are read by their tokens:
only comments and string literals count, names do not. Other texts are read whole. What is between
backticks is a name and is left out.
"""

import argparse
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PHRASES = Path(__file__).with_name("phrases.yaml")
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".proto", ".cedar", ".service", ".nft", ".conf"}
SKIPPED = {"build", "dist", "site", "node_modules"}
NAME_IN_TEXT = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
EXPRESSION = re.compile(r"(?<!\{)\{[^{}]*\}(?!\})")
LITERAL = re.compile(r"(?s)([A-Za-z]*)(\"\"\"|'''|\"|')(.*)\2$")
CODE = "\0"
"""Replaces everything that is not prose, so that no phrase matches across it."""


@dataclass(frozen=True)
class Phrase:
    """A phrase to avoid, with what to write instead and examples."""

    pattern: re.Pattern[str]
    use: str
    bad: tuple[str, ...]
    good: tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """A place in a file where a phrase to avoid occurs."""

    path: Path
    line: int
    words: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words} -> use: {self.use}"


def phrases() -> list[Phrase]:
    """Read the list of phrases."""
    entries = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))["phrases"]
    return [
        Phrase(
            re.compile(entry["pattern"], re.IGNORECASE),
            entry["use"],
            tuple(entry["bad"]),
            tuple(entry["good"]),
        )
        for entry in entries
    ]


def allowed() -> list[str]:
    """Read the names that may contain a phrase."""
    return list(yaml.safe_load(PHRASES.read_text(encoding="utf-8"))["allowed"])


def blank(text: str) -> str:
    """Replace each character of the text by a code mark, except line ends."""
    return "".join("\n" if character == "\n" else CODE for character in text)


def literal_prose(literal: str) -> str:
    """Return a string literal with prefix and quotes as spaces and f-string expressions blanked."""
    match = LITERAL.match(literal)
    if match is None:
        return blank(literal)
    prefix, quotes, text = match.groups()
    if "f" in prefix.lower():
        text = EXPRESSION.sub(lambda expression: blank(expression[0]), text)
    if "r" not in prefix.lower():
        text = text.replace("\\n", "  ").replace('\\"', ' "')
    return " " * (len(prefix) + len(quotes)) + text + " " * len(quotes)


def token_prose(token: tokenize.TokenInfo) -> str:
    """Return the prose of a token, with everything else blanked, in the token's length."""
    kind = tokenize.tok_name[token.type]
    if kind == "COMMENT":
        return token.string.replace("#", " ", 1)
    if kind == "STRING":
        return literal_prose(token.string)
    if kind == "FSTRING_MIDDLE":
        return token.string
    if kind in {"FSTRING_START", "FSTRING_END"}:
        return " " * len(token.string)
    return blank(token.string)


def python_prose(source: str) -> str:
    """Return the source with everything blanked that is neither comment nor string literal.

    Line numbers do not change. Literals that Python joins are one text, and so are comments on
    consecutive lines; code between two texts separates them.
    """
    lines = [list(" " * len(line)) for line in source.split("\n")]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        for offset, text in enumerate(token_prose(token).split("\n")):
            start = column if offset == 0 else 0
            if row + offset <= len(lines):
                lines[row + offset - 1][start : start + len(text)] = text
    return "\n".join("".join(line) for line in lines)


def prose_of(path: Path, source: str) -> str:
    """Return the prose of a file: for Python, comments and strings; else the whole text."""
    return python_prose(source) if path.suffix == ".py" else source


def collapsed(text: str) -> tuple[str, list[int]]:
    """Return the text with white space and code as single marks, and each character's line."""
    characters: list[str] = []
    lines: list[int] = []
    line = 1
    for character in text:
        mark = " " if character.isspace() else character
        if mark not in {" ", CODE} or not characters or characters[-1] != mark:
            characters.append(mark)
            lines.append(line)
        line += character == "\n"
    return "".join(characters), lines


def without_names(text: str, names: list[str]) -> str:
    """Return the text with allowed names, and all names between backticks, blanked."""
    text = NAME_IN_TEXT.sub(lambda match: blank(match[0]), text)
    for name in names:
        text = text.replace(name, blank(name))
    return text


def hits_in(path: Path, source: str, listed: list[Phrase], names: list[str]) -> Iterator[Hit]:
    """Yield each place in a file where a listed phrase occurs."""
    text, lines = collapsed(without_names(prose_of(path, source), names))
    for phrase in listed:
        for match in phrase.pattern.finditer(text):
            yield Hit(path, lines[match.start()], match[0].strip(), phrase.use)


def files(root: Path) -> Iterator[Path]:
    """Yield the project's files to check, without build results and without the list itself."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") or part in SKIPPED for part in parts):
            continue
        if path == PHRASES or "_pb2" in path.name or not path.is_file():
            continue
        if path.suffix in SUFFIXES or path.name == "Makefile":
            yield path


def hits(root: Path, begins: tuple[str, ...]) -> Iterator[Hit]:
    """Yield the hits in files whose path, relative to the root, has one of these beginnings."""
    listed, names = phrases(), allowed()
    for path in files(root):
        relative = path.relative_to(root)
        if str(relative).startswith(begins):
            text = path.read_text(encoding="utf-8")
            yield from sorted(hits_in(relative, text, listed, names), key=lambda hit: hit.line)


def room(path: Path) -> str:
    """Return the room that a file is in: its first two folders."""
    return "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]


def main() -> None:
    """Print every hit, or how many there are in each room; exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="print the number of hits per room")
    parser.add_argument("paths", nargs="*", help="only files whose path begins with one of these")
    arguments = parser.parse_args()
    shown = list(hits(ROOT, tuple(arguments.paths) or ("",)))
    if arguments.count:
        for name, count in sorted(Counter(room(hit.path) for hit in shown).items()):
            print(f"{count:5d} {name}")
    else:
        print(*shown, sep="\n", end="\n" if shown else "")
    sys.exit(1 if shown else 0)


if __name__ == "__main__":
    main()
