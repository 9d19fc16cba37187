"""The pages agree with programs and files: help texts, commands, targets, links, paths."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.command_help import (
    PAGE,
    PROGRAMS,
    ROOT,
    printed,
    printed_by_program,
    tree,
    with_help,
)

README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "adr").glob("*.md")),
    ROOT / "bench" / "README.md",
    ROOT / "tests" / "vectors" / "README.md",
)
MENTION = re.compile(r"`((?:pratique-[a-z]+)[^`\n]*)`|^\$ (pratique-.*)$", re.MULTILINE)
NAMED_PATH = re.compile(
    r"`((?:keys|protocols|governance|client|server|tests|bench|demo|docs)/[a-z0-9_./-]+)`"
)
TARGET = re.compile(r"`make ([a-z][a-z-]+)")
TARGET_LINE = re.compile(r"^(?:[$#] )?make ([a-z][a-z-]+)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
WIDEST = 120
README_LINES = 130
CLAIMS = {
    "without privacy": ("none", 4, None),
    "ε = 1, noise shared by four honest countries": ("shared", 4, 1.0),
    "ε = 1, each country adding all of the noise itself": ("per-country", 1, 1.0),
    "ε = 0.1, noise shared by four honest countries": ("shared", 4, 0.1),
    "ε = 0.1, each country adding all of the noise itself": ("per-country", 1, 0.1),
    "ε = 0.05, noise shared by four honest countries": ("shared", 4, 0.05),
    "ε = 0.05, each country adding all of the noise itself": ("per-country", 1, 0.05),
}
"""Rows of the README's table, with the measurement that each one shows."""

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT).with_suffix(""))
)


def mentions(page: Path) -> Iterator[list[str]]:
    for match in MENTION.finditer(page.read_text(encoding="utf-8")):
        yield shlex.split(match[1] or match[2])


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that the words name, and the words that are left."""
    command = tree(words[0])
    left = words[1:]
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        assert left[0] in command.commands, f"{words[0]} has no command {left[0]}"
        command, left = command.commands[left[0]], left[1:]
    return command, left


def options_of(command: click.Command) -> set[str]:
    return {"--help", *(name for parameter in command.params for name in parameter.opts)}


def test_the_page_of_commands_holds_every_help_text() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_help(page) == page, "run: make commands"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_installed_program_prints_the_same_help(program: str) -> None:
    assert printed((program,)) == printed_by_program(program)


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the line"):
        with_help("# Every command\n")


def test_the_readme_fits_three_screens() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in mentions(page):
        command, left = command_of(words)
        given = {option for option in left if option.startswith("--")}
        assert given <= options_of(command), f"{' '.join(words)} in {page.name}"


def test_the_pages_name_commands() -> None:
    assert sum(1 for page in PAGES for _ in mentions(page)) >= 15


@every_page
def test_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {*TARGET.findall(text), *TARGET_LINE.findall("".join(FENCE.findall(text)))}
    assert named <= known


def test_the_two_commands_of_the_readme_come_first() -> None:
    fences = FENCE.findall(README.read_text(encoding="utf-8"))
    assert fences[0].splitlines()[1:-1] == ["make demo", "make test"]


def test_the_accuracies_in_the_readme_are_those_measured() -> None:
    measured = json.loads((ROOT / "bench" / "results" / "utility.json").read_text())["rows"]
    hospitals = [row for row in measured if row["data"] == "heart disease"]
    table = {(row["noise"], row["h"], row["epsilon"]): row["mean_of_centres"] for row in hospitals}
    table_rows = re.findall(r"^\| ([^|]+) \| (0\.\d+) \|$", README.read_text(), re.MULTILINE)
    claims = {what: float(accuracy) for what, accuracy in table_rows}
    for what, row in CLAIMS.items():
        assert claims.pop(what) == pytest.approx(table[row], abs=0.01), what
    assert not claims


@every_page
def test_links_point_to_existing_files(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" not in link, "the pages stand on their own"
        assert (page.parent / link).exists(), f"{link} in {page.name}"


@every_page
def test_named_files_exist(page: Path) -> None:
    for name in NAMED_PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{name} in {page.name}"


def test_the_index_lists_every_decision_by_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        number, _, words = title.partition(". ")
        assert f"| [{number}]({page.name}) | {words} |" in index


def test_every_target_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", makefile)
    assert phony is not None
    for target in phony[1].replace("\\\n", " ").split():
        assert re.search(rf"^{target}:.*## \w", makefile, re.MULTILINE), target


@every_page
def test_lines_are_not_too_wide(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        assert len(line) <= WIDEST or line.startswith(("|", "$", "- {", "FAIL", "  - {"))
