"""Small doors: a second budget at a period's end, slow arithmetic, a result that is not one."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from client.status.summary import LinkStatus
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks import Training
from protocols.tasks.layout import vector_to_bytes
from tests.support.documents import DAY, training_fields
from tests.support.node_federation import NodeFederation, Run, code_of

# The end of a budget period

LAST_DAY = 244
"""Periods of this many days: the first one ends half a day after the federation's clock."""
CAP = {"register": "patients", "period_days": LAST_DAY, "epsilon": 0.9, "delta": 1e-4, "order": 8}
"""A budget for one study of two rounds, and not for two."""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    made = NodeFederation(tmp_path / "f", changes={"budget": [CAP]})
    yield made
    made.close()


def two_rounds(federation: NodeFederation, name: str) -> Study:
    return federation.approved(id=name, **training_fields(2, evaluation=None))


def opened(run: Run, study: Study, number: int) -> bool:
    """Return whether a round of a training opened a sum over all countries."""
    assert isinstance(study.task, Training)
    model = vector_to_bytes(study.task.initial(study.features))
    return isinstance(run.sum(number, "train", model), OpenedSum)


def refused_for_budget(federation: NodeFederation, study: Study) -> bool:
    reply = federation.nodes["DK"].handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) in (None, ReasonCode.BUDGET)
    return code_of(reply) is not None


def test_a_run_that_lives_on_leaves_no_second_cap_in_the_next_period(
    federation: NodeFederation,
) -> None:
    """Its next sums are about the same people as the sums that another study would release."""
    study = two_rounds(federation, "lives-on")
    run = federation.ready(study)
    assert opened(run, study, 1)
    federation.later(DAY)
    other = two_rounds(federation, "next-period")
    assert refused_for_budget(federation, other)
    assert opened(run, study, 2), "what is paid for goes on"
    assert refused_for_budget(federation, other), "the run released in this period"
    federation.later(timedelta(days=LAST_DAY))
    later = {"created": "2027-04-01", "expires": "2027-12-31"}
    assert not refused_for_budget(federation, federation.approved(id="period-after", **later))


def test_a_run_that_ended_before_the_period_counts_in_its_own_only(
    federation: NodeFederation,
) -> None:
    study = two_rounds(federation, "ends-before")
    run = federation.ready(study)
    assert opened(run, study, 1)
    assert opened(run, study, 2)
    federation.later(DAY)
    other = two_rounds(federation, "next-period")
    assert opened(federation.ready(other), other, 1)


def test_what_a_run_brings_into_a_period_is_shown_to_the_operator(
    federation: NodeFederation,
) -> None:
    study = two_rounds(federation, "shown")
    assert opened(federation.ready(study), study, 1)
    before = federation.nodes["DK"].status(LinkStatus()).ledger
    federation.later(DAY)
    federation.sync()
    after = federation.nodes["DK"].status(LinkStatus()).ledger
    assert before is not None
    assert after is not None
    assert after.period_start > before.period_start
    # the count was released in the former period, and does not come along
    assert 0 < after.spent_micro < before.spent_micro
