"""One decision from three policy texts: what they allow, refuse, and may never loosen."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from governance.cedar.engine import (
    MAX_CHARACTERS,
    Act,
    Decision,
    PolicyRequest,
    check_base,
    check_national,
    decide,
)
from governance.cedar.texts import BASE_POLICY
from governance.errors import DocumentFault
from governance.policy.facts import Charge, Facts
from protocols.errors import ReasonCode
from tests.support.documents import NOW, agreement, permit, study

AGREED = agreement()
ASKED = study(AGREED)


def facts() -> Facts:
    charge = Charge("patients", 8, 1_000, 2_000_000, 1_500_000, 0.4, 1e-5)
    return Facts(
        study=ASKED,
        agreement=AGREED,
        country="DK",
        now=NOW,
        permit=permit(AGREED, ASKED),
        withdrawal=None,
        installed_tasks=["stats/histogram"],
        charge=charge,
        owed_micro=1_000,
    )


CONTEXT = facts().context()


def answer(
    context: dict[str, Any] | None = None, *, base: str = BASE_POLICY, national: str | None = None
) -> Decision:
    request = PolicyRequest("coordinator", Act.CONTRIBUTE, ASKED.digest, context or CONTEXT)
    return decide(request, base, national)


def ids(decision: Decision) -> list[str]:
    return [clause.id for clause in decision.clauses]


def test_a_lawful_request_is_allowed_by_the_one_permit() -> None:
    assert answer().allowed
    assert ids(answer()) == ["base/asked"]


def paths(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        yield (*prefix, name)
        if isinstance(inner, dict):
            yield from paths(inner, (*prefix, name))


def edited(path: tuple[str, ...], change: Any) -> dict[str, Any]:
    context = copy.deepcopy(CONTEXT)
    place = context
    for name in path[:-1]:
        place = place[name]
    change(place, path[-1])
    return context


def drop(place: dict[str, Any], name: str) -> None:
    del place[name]


def mistype(place: dict[str, Any], name: str) -> None:
    place[name] = {"unexpected": 1.5} if not isinstance(place[name], bool) else "true"


def extend(place: dict[str, Any], name: str) -> None:
    place[f"{name}_too"] = 1


ALL_PATHS = list(paths(CONTEXT))


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_every_attribute_dropped_in_turn_is_refused(path: tuple[str, ...]) -> None:
    decision = answer(edited(path, drop))
    assert not decision.allowed
    assert ids(decision) == ["policy/no-decision"]


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_every_attribute_mistyped_in_turn_is_refused(path: tuple[str, ...]) -> None:
    assert not answer(edited(path, mistype)).allowed


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_an_additional_attribute_is_refused(path: tuple[str, ...]) -> None:
    assert not answer(edited(path, extend)).allowed


NATIONAL = """
@id("dk/no-models") @code("policy") @sentence("Denmark releases no models.") @fix("ask for a table")
forbid (principal, action, resource) when { context.study.release == "model" };
@id("dk/adults")
forbid (principal, action, resource) when { context.study.release == "table" };
"""


def test_a_national_policy_tightens_and_is_named() -> None:
    decision = answer(national=NATIONAL)
    assert not decision.allowed
    assert ids(decision) == ["national/dk/adults"]
    assert decision.clauses[0].sentence == "The rule national/dk/adults forbids it."
    assert decision.clauses[0].code is ReasonCode.POLICY


def test_a_national_policy_that_does_not_apply_changes_nothing() -> None:
    assert answer(national=NATIONAL.partition('@id("dk/adults")')[0]).allowed


def refused_text(text: str) -> str:
    with pytest.raises(DocumentFault) as caught:
        check_national(text)
    assert not answer(national=text).allowed
    assert ids(answer(national=text)) == ["policy/unusable"]
    return caught.value.why


def test_a_national_permit_is_refused_not_ignored() -> None:
    text = '@id("dk/all") permit (principal, action, resource);'
    assert "dk/all is a permit" in refused_text(text)
    assert "dk/all is a permit" in refused_text(NATIONAL + text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("forbid (", "Cedar cannot read it"),
        ("forbid (principal, action, resource);", "its own id"),
        ('@id("") forbid (principal, action, resource);', "its own id"),
        ('@id("a") forbid (principal, action, resource);' * 2, "its own id"),
        (
            '@id("a") forbid (principal, action, resource) when { context.nothing == 1 };',
            "does not fit the schema",
        ),
        (
            '@id("a") forbid (principal, action, resource) when { context.now == "now" };',
            "does not fit the schema",
        ),
        ('@id("a") forbid (principal == ?principal, action, resource);', "templates"),
        ('@id("a") @sentence("a\\u{202e}b") forbid (principal, action, resource);', "hidden"),
        ("//" + "x" * MAX_CHARACTERS, "longer than"),
    ],
)
def test_invalid_national_policies_are_refused(text: str, expected: str) -> None:
    why = refused_text(text)
    assert expected in why or (expected == "hidden" and "invisible" in why)


def test_an_empty_national_policy_forbids_nothing() -> None:
    check_national("// none")
    assert answer(national="// none").allowed


def test_a_forbid_that_overflows_is_a_refusal_not_a_skip() -> None:
    """Cedar reports the error and still answers Allow (cedarpy 4.12, with or without a schema)."""
    text = """@id("dk/overflow") forbid (principal, action, resource)
              when { context.now * 9223372036854775807 > 0 };"""
    check_national(text)
    decision = answer(national=text)
    assert not decision.allowed
    assert ids(decision) == ["policy/no-decision"]
    assert "overflow" in decision.clauses[0].sentence


PERMIT_ALL = '@id("open/all") permit (principal, action, resource);'


def test_an_agreement_cannot_drop_a_rule_of_the_base() -> None:
    check_base(PERMIT_ALL)
    context = edited(("permit", "present"), lambda place, name: place.update({name: False}))
    decision = answer(context, base=PERMIT_ALL)
    assert not decision.allowed
    assert ids(decision) == ["permit/missing"]


def test_an_agreement_can_add_rules() -> None:
    rule = '\n@id("agreement/small") forbid (principal, action, resource);'
    decision = answer(base=BASE_POLICY + rule)
    assert ids(decision) == ["agreement/small"]


def test_an_agreement_that_permits_less_allows_less() -> None:
    narrow = '@id("n/propose") permit (principal, action == Action::"propose", resource);'
    assert not answer(base=narrow).allowed


def test_an_agreement_with_its_own_permit_is_recorded_beside_the_base() -> None:
    assert ids(answer(base=PERMIT_ALL)) == ["base/asked", "open/all"]


def test_an_unreadable_base_refuses() -> None:
    assert ids(answer(base="permit (")) == ["policy/unusable"]
    assert not answer(base="").allowed


def test_every_broken_rule_is_named_in_the_order_of_the_text() -> None:
    context = copy.deepcopy(CONTEXT)
    context["now"] = 2**40
    context["withdrawn"] = True
    context["country"] = "SE"
    assert ids(answer(context)) == [
        "agreement/sunset",
        "study/expired",
        "study/country-not-asked",
        "permit/withdrawn",
        "permit/other-country",
        "permit/expired",
    ]


def test_strings_from_outside_stay_strings() -> None:
    context = edited(
        ("study", "task"), lambda place, name: place.update({name: '"] || true || ["'})
    )
    assert ids(answer(context)) == ["agreement/task-kind", "node/task-not-installed"]
