"""The decision about a country: every clause alone, every amount at its limit."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import cedarpy
import pytest

from governance.budget.accounting import cap_micro, rdp_micro
from governance.budget.ledger import LedgerView
from governance.cedar.texts import BASE_POLICY
from governance.documents.agreement import Agreement
from governance.documents.permit import Permit, PermitConditions, Withdrawal
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import Act, Assessment, assess, ledger_terms
from governance.runtime.safe_text import quoted
from protocols.errors import ReasonCode, Refusal
from tests.support.documents import DAY, NOW, agreement, permit, study, with_schedule, withdrawal

AGREED = agreement()
ASKED = study(AGREED)
SECOND = timedelta(seconds=1)


def assessed(
    proposed: Study = ASKED,
    agreed: Agreement = AGREED,
    *,
    given: Permit | None = None,
    **changes: Any,
) -> Assessment:
    defaults: dict[str, Any] = {
        "country": "DK",
        "now": NOW,
        "permit": given or permit(agreed, proposed),
        "installed_tasks": ["stats/histogram"],
    }
    return assess(proposed, agreed, **(defaults | changes))


def clauses(assessment: Assessment) -> list[str]:
    assert assessment.allowed is not bool(assessment.findings)
    return [finding.clause for finding in assessment.findings]


def test_a_permitted_study_is_allowed_and_its_cost_known() -> None:
    assessment = assessed()
    assert assessment.allowed
    assert assessment.clauses == ("base/asked",)
    assessment.require()
    charge = assessment.charge
    assert charge is not None
    assert charge.micro == sum(rdp_micro(m, 2, 8) for m in ASKED.mechanisms)
    assert charge.left_micro == charge.cap_micro == cap_micro(3.0, 1e-4, 8)
    assert 0 < charge.epsilon <= ASKED.privacy.epsilon


def conditions(**changes: Any) -> PermitConditions:
    return PermitConditions.model_validate({"expires": NOW + 60 * DAY} | changes)


def permit_with(**changes: Any) -> Permit:
    return permit(AGREED, ASKED, **changes)


def purpose(**changes: Any) -> dict[str, Any]:
    return ASKED.purpose.model_dump() | changes


OTHER = agreement(title="Another")
FEW = agreement(task_kinds=["stats/count"])
NARROW = agreement(data_categories=["biobank"])
SHORT = agreement(retention={"results_days": 364, "logs_days": 10})
MARKETING = purpose(purpose_of_use="HMARKT")
STRICT = agreement(
    budget=[{"register": "patients", "period_days": 365, "epsilon": 3.0, "delta": 9e-6, "order": 8}]
)

VISIBLE = agreement(by_country=True)


def by_country(agreed: Agreement) -> Study:
    country = {"name": "country", "type": "categorical", "levels": ["DK", "EE", "NO", "PT"]}
    features = [feature.model_dump() for feature in ASKED.features]
    task = ASKED.task.model_dump() | {"by_country": True, "strata": [{"feature": "country"}]}
    return study(agreed, features=[*features, country], task=task)


BROKEN: dict[str, Callable[[], Assessment]] = {
    "agreement/not-yet-effective": lambda: assessed(now=AGREED.effective - SECOND),
    "agreement/sunset": lambda: assessed(
        now=AGREED.sunset,
        proposed=study(AGREED, expires="2029-01-01"),
        given=permit(
            AGREED,
            study(AGREED, expires="2029-01-01"),
            conditions=conditions(expires="2029-01-01T00:00:00Z"),
        ),
    ),
    "study/other-agreement": lambda: assess(
        study(OTHER),
        AGREED,
        country="DK",
        now=NOW,
        permit=permit(AGREED, study(OTHER)),
        installed_tasks=["stats/histogram"],
    ),
    "study/expired": lambda: assessed(
        now=ASKED.expires, given=permit_with(conditions=conditions(expires=ASKED.expires + DAY))
    ),
    "agreement/not-a-party": lambda: assessed(study(AGREED, countries=["DK", "EE", "NO", "SE"])),
    "study/country-not-asked": lambda: assessed(study(AGREED, countries=["EE", "NO", "PT"])),
    "agreement/too-few-countries": lambda: assessed(study(AGREED, countries=["DK", "NO"])),
    "agreement/data-category": lambda: assessed(study(NARROW), NARROW),
    "agreement/task-kind": lambda: assessed(study(FEW), FEW),
    "node/task-not-installed": lambda: assessed(installed_tasks=["train/glm"]),
    "study/not-priced": lambda: assessed(ASKED.with_mechanisms(())),
    "study/privacy-understated": lambda: assessed(with_schedule(ASKED, noise_std=600)),
    "agreement/cohort-noise": lambda: assessed(with_schedule(ASKED, cohort_noise=2_000)),
    "agreement/delta": lambda: assessed(study(STRICT), STRICT),
    "agreement/budget": lambda: assessed(ledger=ledger(spent=cap() - cost() + 1)),
    "agreement/retention": lambda: assessed(study(SHORT), SHORT),
    "permit/withdrawn": lambda: assessed(withdrawal=withdrawal(ASKED)),
    "permit/missing": lambda: assessed(permit=None),
    "permit/other-country": lambda: assessed(given=permit_with(country="NO")),
    "permit/other-study": lambda: assessed(given=permit_with(study="sha256:" + "1" * 64)),
    "permit/other-agreement": lambda: assessed(given=permit_with(agreement=OTHER.digest)),
    "permit/expired": lambda: assessed(given=permit_with(conditions=conditions(expires=NOW))),
    "permit/feature-not-permitted": lambda: assessed(
        given=permit_with(conditions=conditions(features=["disease", "sex"]))
    ),
    "permit/epsilon": lambda: assessed(
        given=permit_with(conditions=conditions(epsilon_at_most=0.4999))
    ),
    "agreement/by-country": lambda: assessed(
        by_country(AGREED),
        given=permit(AGREED, by_country(AGREED), conditions=conditions(by_country=True)),
    ),
    "permit/by-country": lambda: assessed(by_country(VISIBLE), VISIBLE),
    "agreement/purpose-not-allowed": lambda: assessed(
        study(AGREED, purpose=purpose(ehds="53-1-b"))
    ),
}
SEVERAL: dict[str, Callable[[], Assessment]] = {
    "ehds/article-54": lambda: assessed(study(AGREED, purpose=purpose(ehds="54-c"))),
    "agreement/purpose-forbidden": lambda: assessed(study(AGREED, purpose=MARKETING)),
    "agreement/register-unknown": lambda: assessed(study(AGREED, population={"register": "staff"})),
}


def cost() -> int:
    return sum(rdp_micro(m, AGREED.honest, 8) for m in ASKED.mechanisms)


def cap() -> int:
    return cap_micro(3.0, 1e-4, 8)


def test_a_country_s_own_sum_is_visible_if_agreement_and_permit_allow_it() -> None:
    asked = by_country(VISIBLE)
    given = permit(VISIBLE, asked, conditions=conditions(by_country=True))
    assert assessed(asked, VISIBLE, given=given).allowed
    assert assessed(asked, VISIBLE, permit=None, act=Act.PROPOSE).allowed
    national = """@id("dk/none") @sentence("Denmark shows no sum of its own.")
    forbid (principal, action, resource) when { context.study.by_country };
    """
    refused = assessed(asked, VISIBLE, given=given, national=national)
    assert [finding.code for finding in refused.findings] == [ReasonCode.POLICY]


def test_the_installed_rules_count_under_an_agreement_with_earlier_ones() -> None:
    earlier = '@id("base/asked")\npermit (principal, action, resource);'
    for agreed, clause in (
        (agreement(policy=earlier), "agreement/by-country"),
        (agreement(policy=earlier, by_country=True), "permit/by-country"),
    ):
        assert clause in clauses(assessed(by_country(agreed), agreed))


def test_without_a_known_register_no_delta_is_compared() -> None:
    assessment = assessed(study(AGREED, population={"register": "staff"}))
    assert "not stated" not in " ".join(finding.sentence for finding in assessment.findings)
    assert "agreement/delta" not in clauses(assessment)
    assert "agreement/delta" in assessment.clauses


def ledger(spent: int, register: str = "patients", order: int = 8) -> LedgerView:
    terms = ledger_terms(AGREED, "patients", NOW)
    return LedgerView(
        register=register,
        period=terms.period,
        order=order,
        cap_micro=terms.cap_micro,
        spent_micro=spent,
        lifetime_micro=spent,
    )


@pytest.mark.parametrize("clause", BROKEN)
def test_each_rule_broken_alone_is_the_only_reason(clause: str) -> None:
    assert clauses(BROKEN[clause]()) == [clause]


@pytest.mark.parametrize("clause", SEVERAL)
def test_rules_that_break_with_others_are_among_the_reasons(clause: str) -> None:
    assert clause in clauses(SEVERAL[clause]())


def base_policies() -> dict[str, dict[str, Any]]:
    policies = json.loads(cedarpy.policies_to_json_str(BASE_POLICY))["staticPolicies"]
    return {policy["annotations"]["id"]: policy for policy in policies.values()}


def test_every_rule_of_the_base_policy_is_broken_by_a_test() -> None:
    forbids = {id_ for id_, policy in base_policies().items() if policy["effect"] == "forbid"}
    assert forbids == {*BROKEN, *SEVERAL}


@pytest.mark.parametrize("clause", [*BROKEN, *SEVERAL])
def test_every_reason_is_a_complete_sentence_and_says_what_to_do(clause: str) -> None:
    assessment = (BROKEN | SEVERAL)[clause]()
    finding = next(f for f in assessment.findings if f.clause == clause)
    assert finding.sentence.rstrip('"').endswith((".", "…"))
    assert "$" not in finding.sentence + finding.fix
    assert "not stated" not in finding.sentence + finding.fix
    assert finding.fix


@pytest.mark.parametrize("id_", base_policies())
def test_every_rule_states_its_code(id_: str) -> None:
    policy = base_policies()[id_]
    if policy["effect"] == "forbid":
        assert ReasonCode(policy["annotations"]["code"])


def test_reasons_have_the_expected_text() -> None:
    findings = {clause: BROKEN[clause]().findings[0] for clause in BROKEN}
    assert "2028-01-01 00:00 UTC" in findings["agreement/sunset"].sentence
    assert "asks SE, which" in findings["agreement/not-a-party"].sentence
    assert "features age." in findings["permit/feature-not-permitted"].sentence
    assert "New advice of the board." in findings["permit/withdrawn"].sentence
    assert "another country, NO." in findings["permit/other-country"].sentence
    assert "at most 0.4999." in findings["permit/epsilon"].sentence
    assert "365 days; the agreement allows 364." in findings["agreement/retention"].sentence
    assert (
        "2 countries; the agreement wants at least 3."
        in findings["agreement/too-few-countries"].sentence
    )
    forbidden = next(
        f for f in SEVERAL["agreement/purpose-forbidden"]().findings if "forbidden" in f.clause
    )
    assert '("Article 4(2)"): "No data of this federation serves marketing."' in forbidden.sentence


def test_a_refusal_has_the_first_reason_s_code_and_clause() -> None:
    with pytest.raises(Refusal) as caught:
        BROKEN["permit/other-study"]().require()
    assert caught.value.code is ReasonCode.NO_PERMIT
    assert caught.value.clause == "permit/other-study"
    assert "another study" in caught.value.why


def test_a_study_can_be_proposed_before_there_is_a_permit() -> None:
    assert assessed(permit=None, act=Act.PROPOSE).allowed


@pytest.mark.parametrize("clause", ["permit/withdrawn", "permit/expired", "permit/other-study"])
def test_a_withdrawal_and_an_invalid_permit_count_in_a_proposal_too(clause: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "permit/withdrawn": {"withdrawal": withdrawal(ASKED)},
        "permit/expired": {"given": permit_with(conditions=conditions(expires=NOW))},
        "permit/other-study": {"given": permit_with(study="sha256:" + "1" * 64)},
    }
    assert clauses(assessed(act=Act.PROPOSE, **changes[clause])) == [clause]


def test_a_withdrawal_for_another_study_passed_by_mistake_still_refuses() -> None:
    stray = Withdrawal(country="NO", study="sha256:" + "2" * 64, reason="No.", issued=NOW)
    assert clauses(assessed(withdrawal=stray)) == ["permit/withdrawn"]


@pytest.mark.parametrize(
    ("now", "allowed"),
    [
        (AGREED.effective, True),
        (AGREED.effective - SECOND, False),
        (ASKED.expires - SECOND, True),
        (ASKED.expires, False),
    ],
)
def test_dates_at_their_limits(now: datetime, allowed: bool) -> None:
    long = permit_with(conditions=conditions(expires=ASKED.expires + DAY))
    assert assessed(now=now, given=long).allowed is allowed


@pytest.mark.parametrize(("spare", "allowed"), [(0, True), (-1, False), (1, True)])
def test_the_budget_at_its_limit(spare: int, allowed: bool) -> None:
    assert assessed(ledger=ledger(cap() - cost() - spare)).allowed is allowed


def test_reserved_budget_is_not_counted_twice() -> None:
    full = ledger(spent=cap())
    assert not assessed(ledger=full).allowed
    assert not assessed(ledger=full, reserved_micro=cost() - 1).allowed
    assert assessed(ledger=full, reserved_micro=cost()).allowed
    assert assessed(ledger=full, reserved_micro=10 * cost()).allowed


@pytest.mark.parametrize("stray", [{"register": "staff"}, {"order": 9}])
def test_a_ledger_view_of_another_register_or_order_offers_no_budget(stray: dict[str, Any]) -> None:
    assessment = assessed(ledger=ledger(0, **stray))
    assert clauses(assessment) == ["agreement/budget"]
    assert assessment.charge is not None
    assert assessment.charge.left_micro == 0


def test_a_cost_above_the_whole_cap_is_refused_without_a_ledger() -> None:
    costly = with_schedule(study(AGREED, privacy={"epsilon": 99.0, "delta": 1e-5}), noise_std=20)
    assert "agreement/budget" in clauses(assessed(costly))


@pytest.mark.parametrize(("limit", "allowed"), [(0.5, True), (0.499999, False), (0.500001, True)])
def test_the_permit_s_epsilon_at_its_limit(limit: float, allowed: bool) -> None:
    limited = permit_with(conditions=conditions(epsilon_at_most=limit))
    assert assessed(given=limited).allowed is allowed


def test_a_permit_may_name_more_features_than_are_used() -> None:
    wide = permit_with(conditions=conditions(features=["age", "disease", "income", "sex"]))
    assert assessed(given=wide).allowed


@pytest.mark.parametrize(
    ("ehds", "use", "allowed"),
    [
        ("53-1-e", "HRESCH", True),
        ("53-1-e-ii", "CLINTRCHNPC", True),
        ("53-1-e-ii", "MLTRAINING", True),
        ("53-1-a", "THREAT", True),
        ("53-1-e", "PUBHLTH", False),
        ("53-1-a", "HRESCH", False),
        ("53-1-e", "HOPERAT", False),
    ],
)
def test_an_allowed_purpose_covers_the_purposes_below_it_only(
    ehds: str, use: str, allowed: bool
) -> None:
    proposed = study(AGREED, purpose=purpose(ehds=ehds, purpose_of_use=use))
    assert assessed(proposed).allowed is allowed


def test_a_national_policy_can_always_forbid_and_may_quote_facts() -> None:
    text = """@id("dk/closed") @code("paused") @sentence("$country is closed to $task.")
              @fix("wait") forbid (principal, action, resource);"""
    (finding,) = assessed(national=text).findings
    assert finding.sentence == 'A rule of the parties says: "DK is closed to stats/histogram."'
    assert finding.code is ReasonCode.PAUSED
    assert finding.clause == "national/dk/closed"


@pytest.mark.parametrize("sentence", ["${study.__class__}", "$unknown", "100 $", "{country}"])
def test_a_national_sentence_is_filled_with_facts_only(sentence: str) -> None:
    text = f'@id("dk/x") @sentence("{sentence}") forbid (principal, action, resource);'
    assert quoted(sentence) in assessed(national=text).findings[0].sentence


def test_an_unknown_code_of_a_national_policy_becomes_policy() -> None:
    text = '@id("dk/x") @code("cancer-in-3-patients") forbid (principal, action, resource);'
    assert assessed(national=text).findings[0].code is ReasonCode.POLICY


def test_ledger_terms_follow_the_agreement() -> None:
    terms = ledger_terms(AGREED, "patients", NOW)
    assert (terms.order, terms.honest, terms.cap_micro) == (8, 2, cap())
    assert terms.period.start == AGREED.effective
    later = ledger_terms(AGREED, "patients", AGREED.effective + 366 * DAY)
    assert later.period.index == 1


@pytest.mark.parametrize(("register", "now"), [("staff", NOW), ("patients", NOW - 3_000 * DAY)])
def test_there_are_no_terms_without_a_budget(register: str, now: datetime) -> None:
    with pytest.raises(DocumentFault, match="no privacy budget"):
        ledger_terms(AGREED, register, now)


def test_more_honest_countries_cost_less() -> None:
    trusting = agreement(honest=3, smallest_countries=4)
    proposed = study(trusting)
    lenient, strict = assessed(proposed, trusting).charge, assessed().charge
    assert lenient is not None
    assert strict is not None
    assert lenient.micro < strict.micro
    assert replace(lenient, micro=0) != strict
