from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit
from governance.officer.decision_rules import (
    Conditions,
    build_permit,
    build_withdrawal,
    decision_on,
    permit_in_force,
    require_allowed,
    require_open,
    require_permit,
    require_undecided,
)
from governance.officer.errors import OfficerFault
from governance.policy.assessment import Assessment, Finding
from governance.policy.minimum_countries import proposed_minimum
from governance.trust.bundle import CountryDocuments
from protocols.errors import ReasonCode
from tests.support.documents import DAY, NOW, agreement, permit, study, withdrawal

AGREED = agreement()
ASKED = study(AGREED)
NONE = Conditions()
REASON = '2026-09-01: "New advice of the board."'
NAMES = [feature.name for feature in ASKED.features]


def own_documents_with(**changes: Any) -> CountryDocuments:
    fields: dict[str, Any] = {
        "country": "DK",
        "version": 1,
        "signed_at": NOW,
        "expires": NOW + DAY,
        "node": None,
        "permits": {},
        "withdrawals": {},
        "policy": None,
    }
    return CountryDocuments(**fields | changes)


APPROVED = own_documents_with(permits={ASKED.digest: permit(AGREED, ASKED)})
REFUSED = own_documents_with(withdrawals={ASKED.digest: withdrawal(ASKED)})
WITHDRAWN = own_documents_with(permits=APPROVED.permits, withdrawals=REFUSED.withdrawals)


def permitted(conditions: Conditions = NONE, now: datetime = NOW) -> Permit:
    return build_permit(ASKED, AGREED, "DK", "Health data authority", conditions, now)


class TestPermit:
    def test_a_permit_binds_study_and_agreement_by_digest(self) -> None:
        built = permitted()
        assert (built.study, built.agreement) == (ASKED.digest, AGREED.digest)
        assert (built.country, built.approved_by) == ("DK", "Health data authority")
        assert built.issued == NOW

    def test_the_first_permit_has_no_count_field(self) -> None:
        built = permitted()
        assert built.number == 1
        assert b"earlier" not in built.canonical()
        assert Permit.from_canonical(built.canonical()) == built

    def test_a_later_permit_states_how_many_came_before(self) -> None:
        """A restored node charges as many runs as there were permits."""
        former = permitted()
        for number in (2, 3):
            former = build_permit(ASKED, AGREED, "DK", "Authority", NONE, NOW, former=former)
            assert former.number == number
            assert Permit.from_canonical(former.canonical()).number == number

    def test_a_permit_without_conditions_covers_the_study_to_its_end(self) -> None:
        conditions = permitted().conditions
        assert conditions.features is None
        assert conditions.epsilon_at_most is None
        assert conditions.expires == ASKED.expires

    def test_a_permit_states_the_number_of_countries_that_show_says(self) -> None:
        built = permitted()
        assert built.minimum_countries == proposed_minimum(ASKED, AGREED) == 3
        assert Permit.from_canonical(built.canonical()) == built

    @pytest.mark.parametrize("number", [3, 4])
    def test_an_officer_may_demand_more_countries(self, number: int) -> None:
        assert permitted(Conditions(minimum_countries=number)).minimum_countries == number

    @pytest.mark.parametrize("number", [-1, 0, 2, 5, 10**9])
    def test_an_officer_may_demand_neither_fewer_nor_more_than_are_asked(self, number: int) -> None:
        with pytest.raises(OfficerFault, match=r"--minimum-countries cannot be .* from 3 to 4"):
            permitted(Conditions(minimum_countries=number))

    @given(st.lists(st.sampled_from(NAMES), min_size=1))
    def test_a_permit_names_each_feature_once(self, names: list[str]) -> None:
        built = permitted(Conditions(features=" , ".join(names)))
        assert built.conditions.features == tuple(dict.fromkeys(names))

    @given(st.text(max_size=30))
    def test_a_permit_refuses_a_feature_that_the_study_does_not_have(self, text: str) -> None:
        named = {name.strip() for name in text.split(",")}
        if named <= {*NAMES}:
            return
        with pytest.raises(OfficerFault, match="has no feature"):
            permitted(Conditions(features=text))

    @given(st.floats(allow_nan=True, allow_infinity=True))
    def test_a_permit_refuses_an_invalid_epsilon(self, epsilon: float) -> None:
        conditions = Conditions(epsilon_at_most=epsilon)
        if 0 < epsilon <= 100:
            assert permitted(conditions).conditions.epsilon_at_most == epsilon
            return
        with pytest.raises(OfficerFault, match="--epsilon-at-most cannot be used"):
            permitted(conditions)

    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("2026-10-31", datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)),
            ("2026-09-01", datetime(2026, 9, 1, 23, 59, 59, tzinfo=UTC)),
            ("2026-10-31T12:00:00", datetime(2026, 10, 31, 12, tzinfo=UTC)),
            ("2026-10-31T12:00:00+02:00", datetime(2026, 10, 31, 10, tzinfo=UTC)),
            ("2026-10-31 12:00:00.5+00:00", datetime(2026, 10, 31, 12, tzinfo=UTC)),
        ],
    )
    def test_a_permit_ends_when_the_officer_says(self, text: str, end: datetime) -> None:
        assert permitted(Conditions(expires=text)).conditions.expires == end

    @given(st.dates(min_value=NOW.date(), max_value=datetime(2100, 1, 1, tzinfo=UTC).date()))
    def test_a_permit_never_outlives_the_study(self, day: date) -> None:
        end = permitted(Conditions(expires=day.isoformat())).conditions.expires
        assert NOW < end <= ASKED.expires

    @given(st.dates(max_value=NOW.date() - timedelta(days=1)))
    def test_a_permit_is_never_expired_from_the_start(self, day: date) -> None:
        with pytest.raises(OfficerFault, match="is in the past"):
            permitted(Conditions(expires=day.isoformat()))

    @given(st.text(max_size=20))
    def test_a_permit_refuses_an_end_that_is_not_a_date(self, text: str) -> None:
        try:
            datetime.fromisoformat(text)
        except ValueError:
            with pytest.raises(OfficerFault, match="--expires cannot be"):
                permitted(Conditions(expires=text))

    @pytest.mark.parametrize("text", ["a\nb", "\u202erevers", " padded ", "x" * 2_001])
    def test_a_permit_refuses_a_sentence_with_hidden_characters(self, text: str) -> None:
        with pytest.raises(OfficerFault, match="--sentence cannot be used"):
            permitted(Conditions(sentence=text))


class TestWithdrawal:
    def test_a_withdrawal_names_the_study_and_the_reason(self) -> None:
        built = build_withdrawal(ASKED.digest, "DK", "New advice.", NOW)
        assert (built.study, built.reason, built.issued) == (ASKED.digest, "New advice.", NOW)

    def test_a_withdrawal_needs_a_reason(self) -> None:
        with pytest.raises(OfficerFault, match="--reason cannot be used"):
            build_withdrawal(ASKED.digest, "DK", "", NOW)


class TestWhatMayBeDecided:
    def test_a_current_study_that_names_the_country_may_be_decided(self) -> None:
        require_open(ASKED, "DK", NOW)

    def test_a_study_of_other_countries_may_not_be_decided(self) -> None:
        with pytest.raises(OfficerFault, match="does not ask SE"):
            require_open(ASKED, "SE", NOW)

    def test_a_study_that_ends_at_this_moment_may_not_be_decided(self) -> None:
        require_open(ASKED, "DK", ASKED.expires - timedelta(seconds=1))
        with pytest.raises(OfficerFault, match="expired on 2026-12-31"):
            require_open(ASKED, "DK", ASKED.expires)

    @pytest.mark.parametrize("standing", [APPROVED, REFUSED, WITHDRAWN])
    @pytest.mark.parametrize("verb", ["approve", "refuse"])
    def test_a_decided_study_may_not_be_decided_again(
        self, standing: CountryDocuments, verb: str
    ) -> None:
        with pytest.raises(OfficerFault, match="decided on heart-by-sex already"):
            require_undecided(ASKED, standing, verb=verb)

    @pytest.mark.parametrize("standing", [None, own_documents_with()])
    def test_an_undecided_study_may_be_decided(self, standing: CountryDocuments | None) -> None:
        require_undecided(ASKED, standing, verb="approve")

    @pytest.mark.parametrize("standing", [None, own_documents_with(), REFUSED, WITHDRAWN])
    def test_a_withdrawal_needs_a_permit(self, standing: CountryDocuments | None) -> None:
        with pytest.raises(OfficerFault, match="no permit for heart-by-sex to withdraw"):
            require_permit(ASKED, standing)

    def test_a_permit_may_be_withdrawn(self) -> None:
        require_permit(ASKED, APPROVED)

    @pytest.mark.parametrize(
        ("standing", "expected"),
        [
            (None, ""),
            (own_documents_with(), ""),
            (APPROVED, "you approved it on 2026-09-01, until 2026-10-31 12:00 UTC"),
            (REFUSED, f"you refused it on {REASON}"),
            (WITHDRAWN, f"you approved it on 2026-09-01 and withdrew the permit on {REASON}"),
        ],
    )
    def test_the_decision_in_force_is_shown(
        self, standing: CountryDocuments | None, expected: str
    ) -> None:
        assert decision_on(ASKED.digest, standing) == expected

    @pytest.mark.parametrize(
        ("standing", "agreed", "days"),
        [
            (None, AGREED, 0),
            (WITHDRAWN, AGREED, 0),
            (REFUSED, AGREED, 0),
            (APPROVED, agreement(title="Amended"), 0),
            (APPROVED, AGREED, 60),
        ],
        ids=["none", "withdrawn", "refused", "amended", "expired"],
    )
    def test_a_permit_that_a_node_does_not_follow_is_not_in_force(
        self, standing: CountryDocuments | None, agreed: Agreement, days: int
    ) -> None:
        assert permit_in_force(ASKED, AGREED, APPROVED, NOW) is APPROVED.permit(ASKED.digest)
        assert permit_in_force(ASKED, agreed, standing, NOW + days * DAY) is None

    def test_every_clause_that_forbids_is_shown(self) -> None:
        findings = (
            Finding(ReasonCode.POLICY, "agreement/retention", "Kept too long.", "keep it less"),
            Finding(ReasonCode.POLICY, "national/dk/no-sex", "Not the sex.", "leave it out"),
        )
        no = Assessment("DK", allowed=False, findings=findings, clauses=(), charge=None)
        with pytest.raises(OfficerFault) as fault:
            require_allowed(ASKED, no)
        assert "Kept too long. (agreement/retention)" in fault.value.why
        assert "Not the sex. (national/dk/no-sex)" in fault.value.why
        assert "keep it less" in fault.value.fix

    def test_an_allowed_study_passes(self) -> None:
        require_allowed(ASKED, Assessment("DK", True, (), (), None))
