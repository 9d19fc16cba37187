"""One decision from the base policy, the agreement's policy and a national policy."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from governance.cedar.engine import (
    Act,
    Decision,
    PolicyRequest,
    check_base,
    check_national,
    decide,
)
from governance.cedar.limits import MAX_BYTES
from governance.cedar.texts import BASE_POLICY
from governance.errors import DocumentFault
from governance.policy.facts import Charge, Facts
from protocols.errors import ReasonCode
from tests.support.documents import NOW, agreement, permit, study

AGREEMENT = agreement()
STUDY = study(AGREEMENT)


def facts() -> Facts:
    charge = Charge(
        register="patients",
        order=8,
        micro=1_000,
        cap_micro=2_000_000,
        left_micro=1_500_000,
        epsilon=0.4,
        delta=1e-5,
    )
    return Facts(
        study=STUDY,
        agreement=AGREEMENT,
        country="DK",
        now=NOW,
        permit=permit(AGREEMENT, STUDY),
        withdrawal=None,
        installed_tasks=["stats/histogram"],
        charge=charge,
        owed_micro=1_000,
    )


CONTEXT = facts().context()


def answer(
    context: dict[str, Any] | None = None,
    *,
    agreement_policy: str = BASE_POLICY,
    national: str | None = None,
) -> Decision:
    request = PolicyRequest("coordinator", Act.CONTRIBUTE, STUDY.digest, context or CONTEXT)
    return decide(request, agreement_policy, national)


def ids(decision: Decision) -> list[str]:
    return [clause.id for clause in decision.clauses]


def test_a_permitted_request_is_allowed_by_the_one_permit_rule() -> None:
    assert answer().allowed
    assert ids(answer()) == ["base/asked"]


def paths(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        yield (*prefix, name)
        if isinstance(inner, dict):
            yield from paths(inner, (*prefix, name))


def changed_context(path: tuple[str, ...], change: Any) -> dict[str, Any]:
    context = copy.deepcopy(CONTEXT)
    parent = context
    for name in path[:-1]:
        parent = parent[name]
    change(parent, path[-1])
    return context


def drop(parent: dict[str, Any], name: str) -> None:
    del parent[name]


def change_type(parent: dict[str, Any], name: str) -> None:
    parent[name] = {"unexpected": 1.5} if not isinstance(parent[name], bool) else "true"


def extend(parent: dict[str, Any], name: str) -> None:
    parent[f"{name}_too"] = 1


ALL_PATHS = list(paths(CONTEXT))


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_a_request_without_any_one_attribute_is_refused(path: tuple[str, ...]) -> None:
    decision = answer(changed_context(path, drop))
    assert not decision.allowed
    assert ids(decision) == ["policy/no-decision"]


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_a_request_with_any_attribute_of_another_type_is_refused(path: tuple[str, ...]) -> None:
    assert not answer(changed_context(path, change_type)).allowed


@pytest.mark.parametrize("path", ALL_PATHS, ids=".".join)
def test_a_request_with_an_additional_attribute_is_refused(path: tuple[str, ...]) -> None:
    assert not answer(changed_context(path, extend)).allowed


NATIONAL = """
@id("dk/no-models") @code("policy") @sentence("Denmark releases no models.") @fix("ask for a table")
forbid (principal, action, resource) when { context.study.release == "model" };
@id("dk/no-tables")
forbid (principal, action, resource) when { context.study.release == "table" };
"""


def test_a_national_policy_can_forbid_and_its_rule_is_named() -> None:
    decision = answer(national=NATIONAL)
    assert not decision.allowed
    assert ids(decision) == ["national/dk/no-tables"]
    assert decision.clauses[0].sentence == "The rule national/dk/no-tables forbids it."
    assert decision.clauses[0].code is ReasonCode.POLICY


def test_a_national_policy_that_does_not_apply_changes_nothing() -> None:
    assert answer(national=NATIONAL.partition('@id("dk/no-tables")')[0]).allowed


def why_refused(text: str) -> str:
    with pytest.raises(DocumentFault) as caught:
        check_national(text)
    assert not answer(national=text).allowed
    assert ids(answer(national=text)) == ["policy/unusable"]
    return caught.value.why


def test_a_national_permit_rule_is_refused_and_not_ignored() -> None:
    text = '@id("dk/all") permit (principal, action, resource);'
    assert "dk/all is a permit" in why_refused(text)
    assert "dk/all is a permit" in why_refused(NATIONAL + text)


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
        ('@id("a") @sentence("a\\u{202e}b") forbid (principal, action, resource);', "invisible"),
        ("//" + "x" * MAX_BYTES, "larger than"),
    ],
)
def test_invalid_national_policies_are_refused(text: str, expected: str) -> None:
    assert expected in why_refused(text)


def test_an_empty_national_policy_forbids_nothing() -> None:
    check_national("// none")
    assert answer(national="// none").allowed


def test_a_forbid_rule_that_overflows_is_refused_and_not_ignored() -> None:
    """Cedar reports the error and still answers Allow (cedarpy 4.12, with or without a schema)."""
    text = """@id("dk/overflow") forbid (principal, action, resource)
              when { context.now * 9223372036854775807 > 0 };"""
    check_national(text)
    decision = answer(national=text)
    assert not decision.allowed
    assert ids(decision) == ["policy/no-decision"]
    assert "overflow" in decision.clauses[0].sentence


PERMIT_ALL = '@id("open/all") permit (principal, action, resource);'


def test_an_agreement_cannot_remove_a_rule_of_the_base_policy() -> None:
    check_base(PERMIT_ALL)
    context = changed_context(
        ("permit", "present"), lambda parent, name: parent.update({name: False})
    )
    decision = answer(context, agreement_policy=PERMIT_ALL)
    assert not decision.allowed
    assert ids(decision) == ["permit/missing"]


def test_an_agreement_can_add_rules() -> None:
    rule = '\n@id("agreement/small") forbid (principal, action, resource);'
    decision = answer(agreement_policy=BASE_POLICY + rule)
    assert ids(decision) == ["agreement/small"]


def test_an_agreement_that_permits_less_allows_less() -> None:
    narrow = '@id("n/propose") permit (principal, action == Action::"propose", resource);'
    assert not answer(agreement_policy=narrow).allowed


def test_a_permit_rule_of_the_agreement_is_listed_after_the_base_rule() -> None:
    assert ids(answer(agreement_policy=PERMIT_ALL)) == ["base/asked", "open/all"]


def test_an_unreadable_policy_of_the_agreement_refuses_every_request() -> None:
    assert ids(answer(agreement_policy="permit (")) == ["policy/unusable"]
    assert not answer(agreement_policy="").allowed


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


def test_text_in_a_request_is_never_read_as_cedar() -> None:
    context = changed_context(
        ("study", "task"), lambda parent, name: parent.update({name: '"] || true || ["'})
    )
    assert ids(answer(context)) == ["agreement/task-kind", "node/task-not-installed"]
