"""The glossary is in order and short, and every path that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| ?(.*?) ?\|$", PAGE, re.MULTILINE)
LONGEST_MEANING = 200
MUST_HAVE = {
    "border", "door", "gate", "outbox", "recheck", "private sum", "noise share", "mask", "round",
    "run", "attempt", "study", "permit", "withdrawal", "agreement", "cohort floor", "high water",
    "log head", "checkpoint", "carrier", "relay", "SuperLink", "exchange", "invitation", "roster",
    "h", "c", "t", "set agreement", "failpoint",
}  # fmt: skip


def test_it_has_the_terms_that_readers_meet_first() -> None:
    assert {term for term, _, _ in ROWS} >= MUST_HAVE


def test_terms_are_in_alphabetical_order_and_once_each() -> None:
    terms = [re.sub(r"[^a-z ]", "", term.lower()) for term, _, _ in ROWS]
    assert [term.split(" of ")[0] for term in terms] == sorted(t.split(" of ")[0] for t in terms)
    assert len(terms) == len(set(terms))


def test_every_meaning_is_one_or_two_short_sentences() -> None:
    for term, meaning, _ in ROWS:
        assert len(meaning) <= LONGEST_MEANING, term
        assert meaning.endswith("."), term
        assert meaning.count(". ") <= 1, term


def test_every_path_exists() -> None:
    for term, _, paths in ROWS:
        for path in re.findall(r"`([^`]+)`", paths):
            assert (ROOT / path).exists(), f"{term}: {path}"
