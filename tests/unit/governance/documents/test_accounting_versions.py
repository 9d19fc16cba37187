"""Studies of two versions of the accounting: each is read and charged as it was signed, or not at
all."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError, create_model

from governance.budget.composition import LARGER, SUM, schedule_epsilon, schedule_rdp_micro
from governance.budget.ledger import Ledger
from governance.documents.models import NEWER, Document
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import assess
from tests.support.documents import NOW, agreement, study, study_fields, training_fields
from tests.support.ledger_and_log import node_state, terms

BEFORE = Path(__file__).parents[3] / "fixtures" / "study-before-accounting.json"
"""Canonical bytes of a study that the version before completed for `agreement()`."""
DIGEST = "sha256:8a62be7d2574ca60cc52a9dfcb09705af5d49d726c9641b31111018136b9b7d5"
COUNT, TRAINING, EVALUATION = 244_246, 53_995, 24_606
"""What the version before charged for its releases, in micro-units at order 8."""
EPSILON = 0.49946626055578597
AGREED = agreement()


class StudyBefore(Document):
    """A study as the version before knew it: without `accounting`."""

    name_in_messages = "study"


def reader_before() -> type[Document]:
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in Study.model_fields.items()
        if name != "accounting"
    }
    return create_model("StudyBefore", __base__=StudyBefore, **fields)


def trained(**changes: Any) -> Study:
    return study(AGREED, **training_fields(6, evaluation={"held_out": 0.3}) | changes)


def test_a_study_of_the_version_before_keeps_its_digest_and_its_cost(tmp_path: Path) -> None:
    signed = Study.from_canonical(BEFORE.read_bytes())
    assert (signed.digest, signed.accounting) == (DIGEST, SUM)
    assert signed.canonical() == BEFORE.read_bytes()
    charge = assess(signed, AGREED, country="DK", now=NOW, installed_tasks=()).charge
    assert charge is not None
    assert charge.micro == pytest.approx(COUNT + TRAINING + EVALUATION, abs=3)
    assert charge.epsilon == pytest.approx(EPSILON, rel=1e-6)
    ledger = Ledger(node_state(tmp_path))
    ledger.reserve(
        terms(10**9),
        study=signed.digest,
        run="r",
        mechanisms=signed.charged_by_run,
        now=NOW,
        accounting=signed.accounting,
    )
    assert ledger.view(terms(10**9)).spent_micro == pytest.approx(TRAINING + EVALUATION, abs=2)


def test_the_same_schedule_costs_less_only_if_the_signed_study_says_so() -> None:
    signed = Study.from_canonical(BEFORE.read_bytes())
    larger = schedule_rdp_micro(signed.mechanisms, LARGER, AGREED.honest, 8)
    assert larger == pytest.approx(COUNT + TRAINING, abs=2)
    assert schedule_epsilon(signed.releases_of(AGREED), LARGER, 2, 1e-5) < EPSILON


def test_the_version_before_refuses_a_study_that_it_would_charge_otherwise() -> None:
    """No two parties compute a study's cost differently: the signed field decides, or nobody."""
    with pytest.raises(DocumentFault, match="accounting") as caught:
        reader_before().from_canonical(trained(accounting=LARGER).canonical())
    assert caught.value.fix == NEWER


def test_the_version_before_reads_a_study_whose_costs_are_added() -> None:
    signed = trained(accounting=SUM)
    assert b"accounting" not in signed.canonical()
    assert signed.digest == trained().digest
    assert reader_before().from_canonical(signed.canonical()).digest == signed.digest


def test_accounting_2_is_part_of_what_is_signed() -> None:
    signed = trained(accounting=LARGER)
    assert signed.digest != trained().digest
    again = Study.from_canonical(signed.canonical())
    assert (again.accounting, again.digest) == (LARGER, signed.digest)
    spelt_out = signed.canonical().replace(b'"accounting":2', b'"accounting":1')
    with pytest.raises(DocumentFault, match="canonical"):
        Study.from_canonical(spelt_out)


@pytest.mark.parametrize("accounting", [0, 3, "2", None])
def test_another_version_of_the_accounting_is_refused(accounting: object) -> None:
    with pytest.raises(ValidationError):
        Study.model_validate(study_fields(AGREED, accounting=accounting))


def test_a_share_divides_the_budget_of_added_costs_only() -> None:
    with_share = training_fields(6, evaluation={"held_out": 0.3, "share": 0.3})
    assert study(AGREED, **with_share).accounting == SUM
    with pytest.raises(ValidationError, match="accounting: 1"):
        study(AGREED, accounting=LARGER, **with_share)
