"""What the pages say is what the programs do: help texts, commands, options, targets, links."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

import client.cli
import governance.officer.cli
import server.cli
from tests.support.help_blocks import (
    README,
    ROOT,
    blocks,
    said,
)

PAGES = (README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md")
PROGRAMS = {
    "pratique-node": client.cli.app,
    "pratique-officer": governance.officer.cli.app,
    "pratique-coordinator": server.cli.app,
}
MENTION = re.compile(r"`((?:pratique-[a-z]+)[^`\n]*)`|^\$ (pratique-.*)$", re.MULTILINE)
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)")
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
NOT_TARGETS = {"the", "a", "it", "sure", "their", "its"}
WIDEST = 120
CLAIMS = {
    "without privacy": ("none", 4, None),
    "ε = 1, noise shared by four honest countries": ("shared", 4, 1.0),
    "ε = 1, each country adding all of the noise itself": ("per-country", 1, 1.0),
    "ε = 0.1, noise shared by four honest countries": ("shared", 4, 0.1),
    "ε = 0.1, each country adding all of the noise itself": ("per-country", 1, 0.1),
}
"""Rows of the README's table, and which measurement each one states."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def mentions(page: Path) -> Iterator[list[str]]:
    for found in MENTION.finditer(page.read_text(encoding="utf-8")):
        yield shlex.split(found[1] or found[2])


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Walk down to the command that is meant; returns it and what is left."""
    command: click.Command = typer.main.get_command(PROGRAMS[words[0]])
    left = words[1:]
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        assert left[0] in command.commands, f"{words[0]} has no command {left[0]}"
        command, left = command.commands[left[0]], left[1:]
    return command, left


def options_of(command: click.Command) -> set[str]:
    return {"--help", *(name for one in command.params for name in one.opts)}


def test_help_blocks_are_what_the_programs_print() -> None:
    shown = blocks(README.read_text(encoding="utf-8"))
    assert {command.split()[0] for command in shown} == set(PROGRAMS)
    for command, text in shown.items():
        assert text == said(command), "run: make readme"


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in mentions(page):
        command, left = command_of(words)
        given = {word for word in left if word.startswith("--")}
        assert given <= options_of(command), f"{' '.join(words)} in {page.name}"


def test_the_pages_name_commands_at_all() -> None:
    assert sum(1 for page in PAGES for _ in mentions(page)) >= 15


@every_page
def test_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(TARGET.findall(page.read_text(encoding="utf-8"))) - NOT_TARGETS
    assert named <= known


def test_the_readme_s_two_commands_come_first() -> None:
    fences = FENCE.findall(README.read_text(encoding="utf-8"))
    assert fences[0].splitlines()[1:-1] == ["make demo", "make test"]


def test_the_readme_s_accuracies_are_those_measured() -> None:
    measured = json.loads((ROOT / "bench" / "results" / "utility.json").read_text())["rows"]
    table = {(one["noise"], one["h"], one["epsilon"]): one["mean_of_centres"] for one in measured}
    shown = re.findall(r"^\| ([^|]+) \| (0\.\d+) \|$", README.read_text(), re.MULTILINE)
    claims = {what: float(accuracy) for what, accuracy in shown}
    for what, row in CLAIMS.items():
        assert claims.pop(what) == pytest.approx(table[row], abs=0.01), what
    assert not claims


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" not in link, "the pages stand on their own"
        assert (page.parent / link).exists(), f"{link} in {page.name}"


def test_the_index_lists_every_decision_by_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        number, _, words = title.partition(". ")
        assert f"| [{number}]({page.name}) | {words} |" in index


def test_every_target_explains_itself() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", makefile)
    assert phony is not None
    for target in phony[1].replace("\\\n", " ").split():
        assert re.search(rf"^{target}:.*## \w", makefile, re.MULTILINE), target


@every_page
def test_lines_are_not_too_wide(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        assert len(line) <= WIDEST or line.startswith(("|", "$", "- {", "FAIL", "  - {"))
