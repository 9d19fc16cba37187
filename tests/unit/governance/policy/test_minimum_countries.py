"""The number that is shown and the number that is enforced, for permits with and without one."""

from typing import Any

import pytest

from governance.documents.permit import Permit, PermitConditions
from governance.policy.assessment import Act, assess
from governance.policy.explain import explain_study
from governance.policy.minimum_countries import enforced_minimum, proposed_minimum
from protocols.private_sum.context import RunTerms
from protocols.tasks import TASK_KINDS
from tests.support.documents import COUNTRIES, DAY, NOW, agreement, permit, study

LOOSE: dict[str, Any] = {"colluding": 0, "smallest_countries": 2}
"""An agreement that allows a sum over two countries; all four need three shares."""
STRICT: dict[str, Any] = {"honest": 3, "smallest_countries": 4}


def stating(number: int | None) -> PermitConditions:
    return PermitConditions(expires=NOW + DAY, minimum_countries=number)


@pytest.mark.parametrize(("changes", "number"), [({}, 3), (LOOSE, 3), (STRICT, 4)])
def test_a_new_permit_states_what_a_run_over_all_countries_needs(
    changes: dict[str, Any], number: int
) -> None:
    agreed = agreement(**changes)
    asked = study(agreed)
    assert proposed_minimum(asked, agreed) == number
    terms = asked.run_terms(agreed, bytes(16), COUNTRIES)
    assert terms.smallest_set == number


@pytest.mark.parametrize(
    ("changes", "stated", "number"),
    [(LOOSE, None, 2), (LOOSE, 3, 3), (LOOSE, 4, 4), (STRICT, None, 4), (STRICT, 2, 4)],
)
def test_the_number_shown_is_the_number_enforced(
    changes: dict[str, Any], stated: int | None, number: int
) -> None:
    agreed = agreement(**changes)
    asked = study(agreed)
    given = permit(agreed, asked, conditions=stating(stated))
    assert enforced_minimum(agreed, given) == number
    for size in range(number, len(COUNTRIES) + 1):
        terms = asked.run_terms(
            agreed, bytes(16), COUNTRIES[:size], permitted_minimum=given.minimum_countries
        )
        assert isinstance(terms, RunTerms)
        assert terms.smallest_set >= number
    assessment = assess(
        asked, agreed, country="DK", now=NOW, act=Act.PROPOSE, installed_tasks=TASK_KINDS
    )
    text = " ".join(text for _, text in explain_study(asked, agreed, assessment, given))
    expected = "over all of them" if number == len(COUNTRIES) else f"over at least {number} of them"
    assert expected in text


def test_a_permit_without_the_number_keeps_its_bytes() -> None:
    agreed = agreement()
    given = permit(agreed, study(agreed), conditions=stating(None))
    assert b"minimum_countries" not in given.canonical()
    assert Permit.from_canonical(given.canonical()).minimum_countries == 0


@pytest.mark.parametrize("number", [0, 1, -3, 257])
def test_senseless_numbers_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="minimum_countries"):
        stating(number)
