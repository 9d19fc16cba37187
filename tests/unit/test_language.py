"""The language check finds listed phrases in the project's texts, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.language import ROOT, Phrase, hits_in, phrases, python_prose

LISTED = phrases()
FIRST = LISTED[0]
WORDS = ("the", "own")
PHRASE = " ".join(WORDS)
SPLIT = "\n  ".join(WORDS)
SPLIT_COMMENT = "\n# ".join(WORDS)
JOINED = '"read {} " "{} log"'.format(*WORDS)
each = pytest.mark.parametrize("phrase", LISTED, ids=lambda phrase: phrase.pattern.pattern[:24])


def lines_of(name: str, text: str, names: list[str] | None = None) -> list[int]:
    return [hit.line for hit in hits_in(Path(name), text, [FIRST], names or [])]


@each
def test_a_listed_phrase_is_found_in_its_bad_sentences(phrase: Phrase) -> None:
    assert phrase.bad
    for sentence in phrase.bad:
        assert list(hits_in(Path("page.md"), sentence, [phrase], [])), sentence


@each
def test_good_sentences_have_no_listed_phrase(phrase: Phrase) -> None:
    assert phrase.good
    for sentence in phrase.good:
        assert not list(hits_in(Path("page.md"), sentence, LISTED, [])), sentence


@each
def test_every_phrase_has_a_better_wording(phrase: Phrase) -> None:
    assert phrase.use.strip()
    assert not list(hits_in(Path("page.md"), phrase.use.partition(";")[0], LISTED, []))


@pytest.mark.parametrize(
    "source",
    [
        f'"""Read {PHRASE} log."""\n',
        f"x = 1  # read {PHRASE} log\n",
        f"raise Fault('read {PHRASE} log')\n",
        f'f"{{x}} reads {PHRASE} log of {{y}}"\n',
        f"say({JOINED})\n",
    ],
)
def test_docstrings_comments_and_messages_are_read(source: str) -> None:
    assert lines_of("module.py", source) == [1]


def test_a_phrase_is_found_across_lines_and_reported_at_its_first_line() -> None:
    assert lines_of("module.py", f'"""One.\n\nRead {SPLIT} log.\n"""\n') == [3]
    assert lines_of("module.py", f"x = 1\n# read {SPLIT_COMMENT} log\n") == [2]
    assert lines_of("page.md", f"A page.\n\nRead {SPLIT} log.\n") == [3]


@pytest.mark.parametrize(
    "source",
    [
        "the = own = 1\n",
        "the, own\n",
        'x = ["the", "own"]\n',
        '"the"\nown\n',
        'f"{the} {own}"\n',
        'f"the {own}"\n',
        f"x = 1  # {WORDS[0]}\n{WORDS[1]} = 2\n",
        f"x = 1  # `{PHRASE}`\n",
    ],
)
def test_names_and_code_are_not_read(source: str) -> None:
    assert lines_of("module.py", source) == []


def test_an_allowed_name_is_left_out() -> None:
    text = f"{PHRASE} stays, read {PHRASE}\n"
    assert len(lines_of("page.md", text)) == 2
    assert len(lines_of("page.md", text, [f"{PHRASE} stays"])) == 1


def test_prose_keeps_its_position() -> None:
    source = 'def f():\n    """Do."""\n    return 1  # why\n'
    lines = python_prose(source).split("\n")
    assert [len(line) for line in lines] == [len(line) for line in source.split("\n")]
    assert lines[1].index("Do.") == 7
    assert lines[2].index("why") == 16


def test_a_hit_names_file_line_phrase_and_better_wording() -> None:
    (hit,) = hits_in(Path("docs/page.md"), f"\nTake {PHRASE} log.", [FIRST], [])
    assert str(hit) == f"docs/page.md:2: {PHRASE} -> use: {FIRST.use}"


def test_the_program_counts_by_package() -> None:
    command = [sys.executable, "-m", "tests.support.language", "--count", "tests/unit/test_lang"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
