"""The page `docs/training-settings.md` quotes the program, and explains every released figure."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from protocols.tasks.evaluation import Evaluation
from protocols.tasks.step_size import RULE, StepSize, rounds_sentence
from server.learning.evaluate import ERROR_PANEL, SCORE_PANELS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "training-settings.md").read_text()
TEXT = " ".join(PAGE.split())
GLOSSARY = (DOCS / "glossary.md").read_text()
FIGURES = sorted({*ERROR_PANEL, *(name for panel in SCORE_PANELS.values() for name in panel)})


def test_the_quoted_output_is_that_of_the_program() -> None:
    [output] = re.findall(r"```\n(11 rounds.*?)```", PAGE, re.DOTALL)
    size = StepSize(rate=1.84, noise=0.03, limit=RULE.largest_rate)
    assert output.splitlines() == [rounds_sentence(11), size.sentence()]


def test_the_numbers_of_the_rule_are_those_of_the_program() -> None:
    assert f"may be {RULE.output_noise:g}" in TEXT
    assert f"at most {RULE.largest_rate:g}" in TEXT
    assert f"at least {RULE.fewest_rounds} and at most {RULE.most_rounds}" in TEXT


def test_the_numbers_of_bins_are_those_that_a_study_may_state() -> None:
    found = re.search(r"an even number from (\d+) to (\d+)", TEXT)
    assert found is not None
    fewest, most = map(int, found.groups())
    assert [Evaluation(bins=fewest).bins, Evaluation(bins=most).bins] == [fewest, most]
    for bins in (fewest - 2, fewest + 1, most + 2):
        with pytest.raises(ValidationError):
            Evaluation(bins=bins)
    assert "use 4 or 6" in TEXT


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_defined_here_and_in_the_glossary(name: str) -> None:
    words = "AUC" if name == "auc" else name.replace("_", " ")
    assert f"| {words} | " in PAGE
    assert f"| **{words}** | " in GLOSSARY
