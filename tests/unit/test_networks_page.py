"""The studies in `docs/networks.md` can be read and get a schedule, and they train as shown."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from client.settings import NodeSettings
from client.tasks.module_registry import registered
from client.tasks.trainers import trainer_for
from governance.budget.composition import schedule_epsilon
from governance.documents.agreement import Agreement
from protocols.numerics.mechanism import Rounding
from protocols.tasks import Feature, Task, TrainModule
from server.services.drafts import preliminary, read_draft
from server.services.study_checks import complete
from tests.support.documents import agreement_fields
from tests.support.narrowing import present

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.findall(r"```yaml\n(.*?)```", (DOCS / "networks.md").read_text(), re.DOTALL)
HONEST = 3


def test_the_study_costs_at_most_its_epsilon() -> None:
    fields = agreement_fields(honest=HONEST) | {"smallest_countries": 4}
    agreed = Agreement.model_validate(fields)
    given = {"agreement": "sha256:" + "a" * 64, "created": "2026-11-22"}
    draft = read_draft(BLOCKS[0], "networks.md", given, lambda study: complete(study, agreed))
    assert len(draft.chosen) == 3  # edges, rounds and learning rate
    with_schedule = draft.study
    spent = schedule_epsilon(
        with_schedule.releases_of(agreed),
        with_schedule.accounting,
        HONEST,
        with_schedule.privacy.delta,
    )
    assert 0.98 * with_schedule.privacy.epsilon < spent <= with_schedule.privacy.epsilon
    assert with_schedule.mechanisms[1].rounding is Rounding.FACTORED


def test_a_node_can_build_the_module_of_the_task() -> None:
    fields: dict[str, Any] = yaml.safe_load(BLOCKS[1])
    task = TypeAdapter(Task).validate_python(preliminary(fields))
    assert isinstance(task, TrainModule)
    hours = [Feature(name=name, type="numeric", bounds=(0, 30)) for name in task.inputs]
    features = (*hours, Feature(name=task.target, type="boolean"))
    task.check(features)
    assert trainer_for(task, features, registered()).patients_at_once > 1000


def test_the_setting_exists_in_the_node_settings() -> None:
    listed = yaml.safe_load(BLOCKS[2])["modules"]
    field = NodeSettings.model_fields["modules"]
    assert TypeAdapter(present(field.annotation)).validate_python(tuple(listed)) == (
        "hospital-stay",
    )


@pytest.mark.parametrize("page", ["networks.md", "first-federation.md"])
def test_the_pages_link_to_each_other(page: str) -> None:
    other = {"networks.md": "first-federation.md", "first-federation.md": "networks.md"}[page]
    assert f"]({other})" in (DOCS / page).read_text()
