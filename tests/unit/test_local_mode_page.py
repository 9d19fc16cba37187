"""The study in `docs/local-mode.md` is valid, and the page quotes the texts of the program."""

import re
from pathlib import Path

import pytest
import yaml

from governance.budget.composition import schedule_epsilon
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from protocols.numerics.mechanism import Scope
from protocols.tasks.local import LocalMode
from server.services.drafts import read_draft
from server.services.study_checks import complete
from tests.support.documents import agreement_fields

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "local-mode.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
HONEST = 3


def completed(agreed: Agreement) -> Study:
    given = {"agreement": "sha256:" + "a" * 64, "created": "2026-11-22"}
    draft = read_draft(BLOCKS[1], "local-mode.md", given, lambda study: complete(study, agreed))
    assert len(draft.chosen) == 2  # edges and learning rate
    return draft.study


def test_the_study_on_the_page_costs_at_most_its_epsilon() -> None:
    fields = agreement_fields(honest=HONEST) | {"smallest_countries": 4}
    agreed = Agreement.model_validate(fields)
    with_schedule = completed(agreed)
    assert with_schedule.schedule_matches_task
    spent = schedule_epsilon(
        with_schedule.releases_of(agreed),
        with_schedule.accounting,
        HONEST,
        with_schedule.privacy.delta,
    )
    stated = with_schedule.privacy.epsilon
    assert 0.98 * stated < spent <= stated
    assert [m.scope for m in with_schedule.mechanisms] == [
        Scope.LOCAL,
        Scope.LOCAL,
        Scope.DERIVED,
        Scope.SHARED,
    ]
    step, update = with_schedule.mechanisms[1:3]
    assert (step.rounds, update.rounds) == (40, 8)
    assert update.lane_bits(4) <= 32


def test_the_quoted_texts_are_those_of_the_program() -> None:
    mode = LocalMode.model_validate(yaml.safe_load(BLOCKS[0])["local"])
    assert mode.model_dump() == yaml.safe_load(BLOCKS[1])["task"]["local"]
    quoted = " ".join(line[2:] for line in PAGE.splitlines() if line.startswith("> "))
    assert quoted == mode.sentence(HONEST)


@pytest.mark.parametrize("page", ["README.md", "docs/networks.md", "docs/first-federation.md"])
def test_other_pages_link_to_it(page: str) -> None:
    assert "local-mode.md)" in (ROOT / page).read_text()
