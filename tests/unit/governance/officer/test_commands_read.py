import json
from datetime import timedelta
from typing import Any

import pytest

from governance.documents.study import Study
from governance.policy.calibration import ALLOWED, UNDECIDED
from protocols.wire.channel import LinkFault
from tests.support.documents import NOW, node_keys, study, training_fields
from tests.support.officers import OfficerCommands


def propose(officer: OfficerCommands, **changes: Any) -> Study:
    proposed = study(officer.documents.agreed, **changes)
    officer.documents.propose(proposed)
    return proposed


def forward(officer: OfficerCommands, days: int) -> None:
    officer.documents.now = officer.now = NOW + timedelta(days=days)
    officer.documents.refresh()


class TestShow:
    @pytest.fixture
    def proposed(self, agreed: OfficerCommands) -> Study:
        return propose(agreed)

    def test_show_says_who_asks_what_and_why(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done("show", proposed.id)
        for fact in (
            proposed.title,
            proposed.digest,
            "Regional institute",
            proposed.question,
            proposed.purpose.sentence,
            "53-1-e",
            "scientific research in health or care",
            "DSRCH",
            "GDPR Art. 6(1)(e)",
        ):
            assert fact in output

    def test_show_says_which_features_and_patients(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done("show", proposed.id)
        assert "age at least 40" in output
        assert "age (0 to 120)" in output
        assert 'sex ("female", "male")' in output

    def test_show_says_what_it_costs(self, agreed: OfficerCommands, proposed: Study) -> None:
        output = agreed.done("show", proposed.id)
        assert "ε = 0.5, δ = 1e-05" in output
        assert "ε = 3 at δ = 0.0001 for register patients from 2026-01-01 to 2027-01-01" in output
        assert "% of this period's budget" in output
        assert "changes the probability of any result by at most a factor of 1.649" in output
        assert "this may fail with probability 1 in 100,000" in output

    def test_show_says_what_is_released_to_whom(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done("show", proposed.id)
        assert 'a table of noisy counts, to "Regional institute"' in output
        assert "the public" in output
        assert "365 days" in output

    def test_show_says_what_was_decided_and_what_comes_next(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done("show", proposed.id)
        assert "you have not decided" in output
        assert f"pratique-officer approve {proposed.id}" in output
        agreed.done("approve", proposed.id, "--yes")
        output = agreed.done("show", proposed.id)
        assert "you approved it on 2026-09-01" in output
        assert f"pratique-officer withdraw {proposed.id}" in output
        agreed.done("withdraw", proposed.id, "--reason", "Stop.", "--yes")
        output = agreed.done("show", proposed.id)
        assert "you approved it on 2026-09-01 and withdrew the permit" in " ".join(output.split())
        assert '2026-09-01: "Stop."' in output
        assert f"pratique-officer approve {proposed.id} --reconsider" in output

    def test_show_says_nothing_of_a_calibration_that_a_withdrawn_permit_allowed(
        self, agreed: OfficerCommands
    ) -> None:
        asked = propose(agreed, **training_fields(3))
        agreed.done("approve", asked.id, "--calibrate", "--yes")
        assert ALLOWED in " ".join(agreed.done("show", asked.id).split())
        agreed.done("withdraw", asked.id, "--reason", "Stop.", "--yes")
        output = " ".join(agreed.done("show", asked.id).split())
        assert ALLOWED not in output
        assert UNDECIDED in output

    def test_show_says_what_live_permits_may_take_already(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "up to 0.0 % of it, by your valid permits" in agreed.done("show", proposed.id)
        agreed.done("approve", proposed.id, "--yes")
        other = propose(agreed, id="other")
        share = float(agreed.done("show", other.id).partition("up to ")[2].split()[0])
        assert share > 0
        agreed.done("withdraw", proposed.id, "--reason", "Stop.", "--yes")
        assert "up to 0.0 % of it, by your valid permits" in agreed.done("show", other.id)

    def test_show_says_which_clause_forbids_it(self, agreed: OfficerCommands) -> None:
        purpose = {"ehds": "53-1-e", "purpose_of_use": "HMARKT", "sentence": "To sell."}
        forbidden = propose(agreed, purpose=purpose)
        output = agreed.done("show", forbidden.id)
        assert "[agreement/purpose-forbidden]" in output
        assert "It cannot be approved" in output
        assert "pratique-officer refuse" in output

    def test_show_says_whether_the_national_policy_was_evaluated(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "you have signed no national policy" in agreed.done("show", proposed.id)
        policy = '@id("dk/x")\nforbid (principal, action, resource)\n'
        policy += 'when { context.study.features.contains("sex") };'
        agreed.done("sign", agreed.file("dk.cedar", policy), "--yes")
        output = agreed.done("show", proposed.id)
        assert "your national policy was checked as well" in output
        assert "national/dk/x" in output

    def test_show_says_that_an_expired_study_needs_no_decision(
        self, agreed: OfficerCommands
    ) -> None:
        expired = propose(agreed, expires="2026-08-31")
        assert "there is nothing to decide" in agreed.done("show", expired.id)

    def test_show_prints_json_on_request(self, agreed: OfficerCommands, proposed: Study) -> None:
        answer = json.loads(agreed.run("show", proposed.id, "--json").stdout)
        assert answer["digest"] == proposed.digest
        assert answer["allowed"] is True
        assert answer["findings"] == []
        assert 0 < answer["charge"]["micro"] <= answer["charge"]["cap_micro"]
        assert answer["decision"] is None
        assert Study.model_validate(answer["study"]) == proposed

    def test_show_of_an_unknown_study_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "did you mean heart-by-sex" in agreed.refused("show", "heart-by-sez")

    def test_show_changes_nothing(self, agreed: OfficerCommands, proposed: Study) -> None:
        before = agreed.contents()
        agreed.done("show", proposed.id)
        agreed.done("inbox")
        assert agreed.contents() == before


class TestInbox:
    def test_the_inbox_lists_a_draft_first(self, enrolled: OfficerCommands) -> None:
        enrolled.documents.store.draft(enrolled.documents.agreed, NOW)
        assert enrolled.done("inbox").startswith("1. A first agreement waits for your signature")
        enrolled.done("sign", "--yes")
        assert "Nothing waits" in enrolled.done("inbox")

    def test_the_inbox_lists_a_draft_that_cannot_be_trusted(
        self, enrolled: OfficerCommands
    ) -> None:
        enrolled.exchange.tampered["draft"] = b"{}"
        output = enrolled.done("inbox")
        assert "cannot be trusted" in output
        assert "do not sign it" in output

    def test_the_inbox_lists_studies_to_decide(self, agreed: OfficerCommands) -> None:
        proposed = propose(agreed)
        output = agreed.done("inbox")
        assert f'Decide on "{proposed.title}" by 2026-12-31 00:00 UTC, in 120 days' in output
        assert f"pratique-officer show {proposed.id}" in output

    def test_the_inbox_lists_documents_that_are_about_to_expire(
        self, agreed: OfficerCommands
    ) -> None:
        file = agreed.file("node-keys.json", node_keys("DK").canonical())
        agreed.done("sign", file, "--yes")
        forward(agreed, 4)
        assert "documents" not in agreed.done("inbox")
        forward(agreed, 5)
        assert "documents expire on 2026-09-08 12:00 UTC, in 2 days" in agreed.done("inbox")
        forward(agreed, 8)
        assert "documents have expired" in agreed.done("inbox")

    def test_the_inbox_lists_permits_that_are_about_to_expire(
        self, agreed: OfficerCommands
    ) -> None:
        proposed = propose(agreed)
        agreed.done("approve", proposed.id, "--expires", "2026-09-06", "--yes")
        assert f'Your permit for "{proposed.title}" ends on 2026-09-06' in agreed.done("inbox")

    def test_the_inbox_lists_a_certificate_that_is_about_to_expire(
        self, agreed: OfficerCommands
    ) -> None:
        agreed.exchange.renewal_refusal = LinkFault("The exchange refused the call")
        forward(agreed, 80)
        output = agreed.done("inbox")
        assert "Your certificate for the exchange ends" in output
        assert output.count("certificate was not renewed") == 1

    def test_the_inbox_prints_json_on_request(self, agreed: OfficerCommands) -> None:
        proposed = propose(agreed)
        [item] = json.loads(agreed.run("inbox", "--json").stdout)
        assert item["matter"] == "study-to-decide"
        assert item["digest"] == proposed.digest

    def test_the_inbox_prints_json_when_nothing_waits(self, agreed: OfficerCommands) -> None:
        assert json.loads(agreed.run("inbox", "--json").stdout) == []

    def test_the_inbox_reports_an_exchange_that_must_not_be_trusted(
        self, agreed: OfficerCommands
    ) -> None:
        """If an exchange shows an older state, nothing is listed."""
        old = dict(agreed.documents.snapshot_of_store())
        propose(agreed)
        agreed.done("inbox")
        agreed.exchange.tampered.update(old)
        assert "cannot be trusted" in agreed.refused("inbox")

    def test_the_inbox_fails_while_the_exchange_is_down(self, agreed: OfficerCommands) -> None:
        agreed.exchange.down = True
        assert "does not answer" in agreed.refused("inbox")
