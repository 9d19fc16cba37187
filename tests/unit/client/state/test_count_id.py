"""The ids of a cohort's count: shared by all studies of the cohort, or one for each permit."""

from typing import Any

import pytest

from client.state.count_id import PERMIT_LABEL, CountId
from governance.documents.agreement import Agreement
from keys.derive import labelled_hash
from tests.support.documents import agreement, agreement_fields, permit, study

AGREED = agreement()
OLDER = Agreement.model_validate({**agreement_fields(), "cohort_count": None})
ASKED = study(AGREED)
VERSION = "sha256:" + "1" * 64


def id_of(agreed: Agreement = AGREED, country: str = "DK", **changes: Any) -> CountId:
    asked = study(agreed, **changes)
    return CountId.of(asked, agreed, permit(agreed, asked, country))


def test_a_permit_has_one_count_if_the_agreement_does_not_state_its_cost() -> None:
    one, two = id_of(OLDER), id_of(OLDER, "EE")
    assert not one.cohort
    assert one.prefix != two.prefix
    digest = labelled_hash(PERMIT_LABEL, one.permit.encode()).hex()
    assert one.charged_as(VERSION) == one.charged_as("another") == f"count-{digest[:26]}"


@pytest.mark.parametrize("agreed", [AGREED, OLDER])
def test_no_id_is_the_id_of_a_run(agreed: Agreement) -> None:
    name = id_of(agreed).charged_as(VERSION)
    assert len(name) == 32
    with pytest.raises(ValueError, match="fromhex"):
        bytes.fromhex(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "another"},
        {"task": {"kind": "stats/count", "patients_bound": 500}, "features": ASKED.features},
        {"privacy": {"epsilon": 3.0, "delta": 1e-6}},
        {"countries": ["DK", "EE", "NO"]},
    ],
)
def test_studies_of_the_same_cohort_share_the_count(changes: dict[str, Any]) -> None:
    if "task" in changes:  # it reads no feature, so that no missing value excludes a patient
        assert id_of(**changes).cohort != id_of().cohort
        return
    assert id_of(**changes).cohort == id_of().cohort
    assert id_of(**changes).charged_as(VERSION) == id_of().charged_as(VERSION)


def older(**bounds: Any) -> dict[str, Any]:
    return {"register": "patients", "where": [{"feature": "age", **bounds}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"population": older(at_least=41)},
        {"population": older(at_least=40, at_most=90)},
        {"population": {"register": "patients"}},
        {"population": {**older(at_least=40), "register": "staff"}},
    ],
)
def test_another_cohort_has_another_count(changes: dict[str, Any]) -> None:
    assert id_of(**changes).cohort != id_of().cohort
    assert id_of(**changes).prefix != id_of().prefix


@pytest.mark.parametrize(
    "terms", [{"smallest_cohort": 51}, {"cohort_count": {"epsilon": 2.0, "delta": 1e-5}}]
)
def test_another_floor_or_noise_has_another_count(terms: dict[str, Any]) -> None:
    assert id_of(agreement(**terms)).cohort != id_of().cohort


def test_each_version_of_the_records_is_charged_under_its_own_id() -> None:
    one, two = (id_of().charged_as(version) for version in (VERSION, "another"))
    assert one != two
    assert one.startswith(id_of().prefix)
    assert two.startswith(id_of().prefix)
