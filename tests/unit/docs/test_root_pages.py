"""The pages in the root folder are correct: links, targets, and what runs before a commit."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "tests/README.md", "docs/index.md")
each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_links_point_to_existing_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" not in link, "a page links to no other site"
        assert ((ROOT / page).parent / link).exists(), link


@each_page
def test_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.MULTILINE)) <= MAKE_TARGETS


@each_page
def test_lines_are_not_too_wide(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_no_page_has_an_e_mail_address() -> None:
    for page in PAGES:
        assert "@" not in (ROOT / page).read_text(encoding="utf-8"), page


def test_pre_commit_runs_the_same_checks_as_make_check() -> None:
    (checks,) = re.findall(r"^check: (.*?) ##", MAKEFILE, re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == [f"make {target}" for target in checks.split()]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}


def test_every_page_of_the_navigation_exists() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = re.findall(r"[\w/-]+\.md", str(config["nav"]))
    pages_in_docs = [page for page in named if not page.startswith("project/")]
    assert pages_in_docs
    assert [page for page in pages_in_docs if not (ROOT / "docs" / page).is_file()] == []
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(named), "every page is in the navigation"
