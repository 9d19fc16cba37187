import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from governance.documents.permit import Permit, PermitConditions
from governance.documents.study import Study
from governance.officer.commands_decide import _show_permit
from governance.officer.studies import keep_study
from governance.officer.terminal import Terminal
from tests.support.document_fields import others, places
from tests.support.documents import (
    COUNTRIES,
    NOW,
    agreement,
    node_keys,
    permit,
    study,
    study_fields,
    training_fields,
)
from tests.support.narrowing import present
from tests.support.officers import OfficerCommands, agreed_with, new_officer, unreachable

SEX_IS_OURS = """@id("dk/no-sex") @sentence("Denmark does not share the sex of patients.")
forbid (principal, action, resource) when { context.study.features.contains("sex") };
"""

BY_COUNTRY: dict[str, Any] = {
    "features": [
        *study_fields(agreement())["features"],
        {"name": "country", "type": "categorical", "levels": list(COUNTRIES)},
    ],
    "task": {
        "kind": "stats/count",
        "strata": [{"feature": "country"}],
        "patients_bound": 10_000,
        "by_country": True,
    },
}


@pytest.fixture
def proposed(agreed: OfficerCommands) -> Study:
    """A study that waits for DK's decision."""
    return propose(agreed)


def propose(officer: OfficerCommands, **changes: Any) -> Study:
    proposed = study(officer.documents.agreed, **changes)
    officer.documents.propose(proposed)
    return proposed


class TestApproval:
    def test_an_approval_is_a_permit_that_everyone_can_verify(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done(
            "approve", proposed.id, "--sentence", "For our patients.", answer="y\n"
        )
        permit = present(agreed.published().permit(proposed.digest))
        assert permit == agreed.own().permit(proposed.digest)
        assert permit.agreement == agreed.documents.agreed.digest
        assert permit.approved_by == "Health data authority of DK"
        assert permit.sentence == "For our patients."
        assert permit.issued == NOW
        assert permit.conditions.expires == proposed.expires
        assert permit.conditions.features is None
        assert permit.conditions.epsilon_at_most is None
        assert proposed.digest in output
        assert "ε = 0.5 at δ = 1e-05" in output

    def test_an_approval_shows_the_complete_text_that_is_signed(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        """The text that `show` printed may have been another: an exchange may change it."""
        output = agreed.done("approve", proposed.id, answer="y\n")
        permit_text = " ".join(output[: output.index("Permit of DK")].split())
        assert proposed.digest in permit_text
        assert proposed.purpose.sentence in permit_text
        assert proposed.recipients[0] in permit_text

    def test_an_approval_has_the_given_conditions(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        options = ("--features", "age, sex,disease", "--epsilon-at-most", "0.7")
        agreed.done("approve", proposed.id, *options, "--expires", "2026-10-31", "--yes")
        conditions = present(agreed.own().permit(proposed.digest)).conditions
        assert conditions.features == ("age", "sex", "disease")
        assert conditions.epsilon_at_most == 0.7
        assert present(conditions.expires).isoformat() == "2026-10-31T23:59:59+00:00"

    def test_an_approval_may_allow_the_calibration_of_the_model(
        self, agreed: OfficerCommands
    ) -> None:
        proposed = propose(agreed, **training_fields(1))
        asked = " ".join(agreed.done("show", proposed.id).split())
        assert "unless you approve with --calibrate" in asked
        agreed.done("approve", proposed.id, "--yes")
        shown = " ".join(agreed.done("show", proposed.id).split())
        assert "your node may not fit the released model to its own records" in shown
        assert "--calibrate" not in shown
        assert not present(agreed.own().permit(proposed.digest)).conditions.calibrate
        options = ("--calibrate", "--reconsider")
        output = " ".join(agreed.done("approve", proposed.id, *options, answer="y\n").split())
        allowed = "your node may fit the released model to its own records, until the permit ends"
        assert output.count(allowed) == 2  # in the study's text, and in the permit
        assert present(agreed.own().permit(proposed.digest)).conditions.calibrate
        assert allowed in " ".join(agreed.done("show", proposed.id).split())

    def test_a_table_cannot_be_calibrated(self, agreed: OfficerCommands, proposed: Study) -> None:
        output = agreed.refused("approve", proposed.id, "--calibrate", "--yes")
        assert "releases no model" in output
        assert "nothing was signed" in output
        assert "Calibration" not in agreed.done("show", proposed.id)

    def test_an_approval_shows_and_states_the_fewest_countries(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "a sum is opened over at least 3 of them" in agreed.done("show", proposed.id)
        option = ("--minimum-countries", "4")
        output = agreed.done("approve", proposed.id, *option, answer="y\n")
        assert "a sum is opened over all of them, or not at all" in output
        assert "no sum over fewer than 4" in output
        assert present(agreed.own().permit(proposed.digest)).minimum_countries == 4
        assert "over all of them, or not at all" in agreed.done("show", proposed.id)

    def test_an_approval_for_more_countries_than_are_asked_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        result = agreed.run("approve", proposed.id, "--minimum-countries", "5", "--yes")
        assert result.exit_code == 1
        assert "--minimum-countries cannot be 5" in result.stderr
        assert "nothing was signed" in result.stderr

    def test_an_approval_warns_of_conditions_that_the_study_does_not_meet(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        result = agreed.run("approve", proposed.id, "--features", "age,disease", "--yes")
        assert result.exit_code == 0
        assert "does not cover the features sex" in result.stderr
        assert "Your node will refuse it as it is proposed now" in result.stderr
        assert "may propose a study that keeps them" in result.stdout
        result = agreed.run(
            "approve", proposed.id, "--epsilon-at-most", "0.1", "--yes", "--reconsider"
        )
        assert "allows at most 0.1" in result.stderr

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ((), 'sentence      "Approved."'),
            (("--epsilon-at-most", "0.1"), 'sentence      "Approved with conditions."'),
            (("--expires", "2026-10-31"), 'sentence      "Approved with conditions."'),
            (("--sentence", "For us."), 'in your words  "For us."'),
        ],
    )
    def test_an_approval_shows_as_the_officer_s_words_only_what_the_officer_wrote(
        self, agreed: OfficerCommands, proposed: Study, words: tuple[str, ...], line: str
    ) -> None:
        output = agreed.done("approve", proposed.id, *words, "--yes")
        assert " ".join(line.split()) in " ".join(output.split())
        assert ("in your words" in output) is ("--sentence" in words)

    def test_a_wrong_condition_is_named_without_library_terms(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.refused("approve", proposed.id, "--epsilon-at-most", "-1", "--yes")
        assert "expected a number above 0, found -1.0" in output.replace("Expected", "expected")

    def test_an_approval_without_conditions_has_no_warning(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "will refuse" not in agreed.run("approve", proposed.id, "--yes").stderr

    @pytest.mark.parametrize("shorten", [71, 64, 20])
    def test_an_approval_accepts_a_digest_as_well(
        self, agreed: OfficerCommands, proposed: Study, shorten: int
    ) -> None:
        agreed.done("approve", proposed.digest[:shorten], "--yes")
        assert agreed.own().permit(proposed.digest)

    def test_an_approval_prints_json_on_request(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        answer = json.loads(agreed.run("approve", proposed.id, "--yes", "--json").stdout)
        assert answer["decision"] == "approved"
        assert answer["study"] == proposed.digest
        assert answer["version"] == answer["exchange_has"] == 1

    def test_an_approval_says_that_every_country_must_permit(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        """The node is named only if it does not have the permit yet."""
        output = " ".join(agreed.done("approve", proposed.id, "--yes").split())
        assert "once your node has the permit and every country of the study" in output
        node = agreed.make_node()
        again = agreed.done("approve", proposed.id, "--yes", "--reconsider", "--node", node)
        assert "Next: once every country of the study has permitted it" in " ".join(again.split())

    def test_an_approval_needs_confirmation(self, agreed: OfficerCommands, proposed: Study) -> None:
        assert "answered no" in agreed.refused("approve", proposed.id, answer="n\n")
        assert "Nobody answered" in agreed.refused("approve", proposed.id)

    def test_an_approval_never_outlasts_the_study(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("approve", proposed.id, "--expires", "2029-01-01", "--yes")
        assert present(agreed.own().permit(proposed.digest)).conditions.expires == proposed.expires


@pytest.fixture
def visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfficerCommands:
    """An officer of an agreement under which a country's own sum may be visible."""
    officer = new_officer(tmp_path, monkeypatch, lambda key: agreed_with(key, by_country=True))
    return officer.enrol().agree()


class TestByCountry:
    def test_without_the_officer_s_own_permission_it_is_refused_in_words(
        self, visible: OfficerCommands
    ) -> None:
        asked = propose(visible, **BY_COUNTRY)
        error = " ".join(visible.refused("approve", asked.id, "--yes").split())
        assert "needs another permission from you: your country's own sum is visible" in error
        assert "approve it with --by-country, or refuse it" in error

    def test_it_is_shown_asked_for_and_signed(self, visible: OfficerCommands) -> None:
        asked = propose(visible, **BY_COUNTRY)
        assert "your country's own sum is visible, with noise only" in visible.done(
            "show", asked.id
        )
        assert "answered no" in visible.refused("approve", asked.id, "--by-country", answer="n\n")
        output = visible.done("approve", asked.id, "--by-country", answer="y\ny\n")
        assert "May your country's own sum be visible, with noise only?" in output
        assert "visible, with noise only" in output[output.index("Permit of DK") :]
        conditions = present(visible.own().permit(asked.digest)).conditions
        assert conditions.by_country

    def test_other_studies_do_not_get_it(self, visible: OfficerCommands) -> None:
        asked = propose(visible)
        error = visible.refused("approve", asked.id, "--by-country", "--yes")
        assert "shows no country's own sum" in error
        visible.done("approve", asked.id, "--yes")
        assert not present(visible.own().permit(asked.digest)).conditions.by_country

    def test_an_agreement_without_the_term_forbids_it(self, agreed: OfficerCommands) -> None:
        asked = propose(agreed, **BY_COUNTRY)
        error = agreed.refused("approve", asked.id, "--by-country", "--yes")
        assert "agreement/by-country" in error


class TestApprovalRefused:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (("--features", "age,sexx"), "no feature 'sexx'; did you mean sex?"),
            (("--features", ""), "no feature ''"),
            (("--epsilon-at-most", "0"), "--epsilon-at-most cannot be used"),
            (("--epsilon-at-most", "nan"), "--epsilon-at-most cannot be used"),
            (("--epsilon-at-most", "-1"), "--epsilon-at-most cannot be used"),
            (("--expires", "soon"), "--expires cannot be 'soon'"),
            (("--expires", "2026-13-01"), "--expires cannot be"),
            (("--expires", "2026-08-31"), "is in the past"),
            (("--sentence", "two\nlines"), "--sentence cannot be used"),
            (("--sentence", "\u202eevil"), "--sentence cannot be used"),
        ],
    )
    def test_an_approval_with_invalid_conditions_is_refused(
        self, agreed: OfficerCommands, proposed: Study, options: tuple[str, str], why: str
    ) -> None:
        assert why in agreed.refused("approve", proposed.id, *options, "--yes")

    def test_an_approval_for_an_unknown_study_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.refused("approve", "heart-by-age", "--yes")
        assert f"no study 'heart-by-age'; did you mean {proposed.id}?" in output
        assert f"The published studies are: {proposed.id}" in output

    def test_an_approval_for_an_unknown_digest_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert "There is no study" in agreed.refused("approve", "sha256:" + "0" * 64, "--yes")
        assert "There is no study" in agreed.refused("approve", proposed.digest[:12], "--yes")

    def test_an_approval_for_an_already_approved_study_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("approve", proposed.id, "--yes")
        output = agreed.refused("approve", proposed.id, "--yes")
        assert "You approved it on 2026-09-01" in output
        assert "--reconsider" in output

    def test_an_approval_for_an_already_refused_study_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("refuse", proposed.id, "--reason", "Too early.", "--yes")
        assert 'You refused it on 2026-09-01: "Too early."' in agreed.refused(
            "approve", proposed.id, "--yes"
        )
        agreed.done("approve", proposed.id, "--yes", "--reconsider")
        assert agreed.own().permit(proposed.digest)
        assert agreed.own().withdrawal(proposed.digest) is None

    def test_a_second_permit_counts_those_before(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("approve", proposed.id, "--yes")
        agreed.done("withdraw", proposed.id, "--reason", "Too early.", "--yes")
        agreed.done("approve", proposed.id, "--yes", "--reconsider")
        again = agreed.own().permit(proposed.digest)
        assert again is not None
        assert again.number == 2

    def test_an_approval_for_an_expired_study_is_refused(self, agreed: OfficerCommands) -> None:
        expired = propose(agreed, expires="2026-08-31")
        assert "expired on 2026-08-31" in agreed.refused("approve", expired.id, "--yes")

    def test_an_approval_for_a_study_of_other_countries_is_refused(
        self, agreed: OfficerCommands
    ) -> None:
        other = propose(agreed, countries=["EE", "NO", "PT"])
        assert "does not ask DK" in agreed.refused("approve", other.id, "--yes")

    def test_an_approval_for_a_purpose_that_the_agreement_forbids_is_refused(
        self, agreed: OfficerCommands
    ) -> None:
        purpose = {"ehds": "53-1-e", "purpose_of_use": "HMARKT", "sentence": "To sell."}
        forbidden = propose(agreed, purpose=purpose)
        output = agreed.refused("approve", forbidden.id, "--yes")
        assert "No data of this federation serves marketing." in output
        assert "(agreement/purpose-forbidden)" in output
        assert "Article 4(2)" in output

    def test_an_approval_for_a_cost_above_the_whole_budget_is_refused(
        self, agreed: OfficerCommands
    ) -> None:
        proposed = study(agreed.documents.agreed, privacy={"epsilon": 50.0, "delta": 1e-5})
        loud = proposed.with_mechanisms(
            tuple(m.model_copy(update={"noise_std": 3}) for m in proposed.mechanisms)
        )
        agreed.documents.propose(loud)
        assert "(agreement/budget)" in agreed.refused("approve", loud.id, "--yes")

    def test_an_approval_that_the_national_policy_forbids_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("sign", agreed.file("dk.cedar", SEX_IS_OURS), "--yes")
        assert "(national/dk/no-sex)" in agreed.refused("approve", proposed.id, "--yes")

    def test_an_approval_while_the_exchange_is_down_is_refused(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.exchange.down = True
        assert "does not answer" in agreed.refused("approve", proposed.id, "--yes")

    def test_an_approval_before_the_agreement_is_in_force_is_refused(
        self, enrolled: OfficerCommands
    ) -> None:
        assert "not published yet" in enrolled.refused("approve", "any", "--yes")


class TestRefusal:
    def test_a_refusal_is_a_withdrawal_with_its_reason(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        output = agreed.done("refuse", proposed.id, "--reason", "Not our question.", answer="y\n")
        published = agreed.published()
        assert present(published.withdrawal(proposed.digest)).reason == "Not our question."
        assert "The other parties will read the reason" in output

    def test_a_refusal_removes_the_study_from_the_inbox(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        assert proposed.title in agreed.done("inbox")
        agreed.done("refuse", proposed.id, "--reason", "No.", "--yes")
        assert proposed.title not in agreed.done("inbox")

    @pytest.mark.parametrize("reason", ["", "two\nlines", "\u200bhidden", "x" * 2_001])
    def test_a_refusal_needs_a_plain_reason(
        self, agreed: OfficerCommands, proposed: Study, reason: str
    ) -> None:
        output = agreed.refused("refuse", proposed.id, "--reason", reason, "--yes")
        assert "--reason cannot be used" in output

    def test_a_refusal_cannot_withdraw_a_permit(
        self, agreed: OfficerCommands, proposed: Study
    ) -> None:
        agreed.done("approve", proposed.id, "--yes")
        output = agreed.refused("refuse", proposed.id, "--reason", "No.", "--yes")
        assert "withdraw" in output

    def test_a_study_can_be_refused_once(self, agreed: OfficerCommands, proposed: Study) -> None:
        agreed.done("refuse", proposed.id, "--reason", "No.", "--yes")
        assert "decided" in agreed.refused("refuse", proposed.id, "--reason", "No.", "--yes")

    def test_refusing_an_expired_study_gives_an_error(self, agreed: OfficerCommands) -> None:
        expired = propose(agreed, expires="2026-08-31")
        assert "expired" in agreed.refused("refuse", expired.id, "--reason", "No.", "--yes")

    def test_refusing_an_unknown_study_gives_an_error(self, agreed: OfficerCommands) -> None:
        output = agreed.refused("refuse", "nothing", "--reason", "No.", "--yes")
        assert "The published studies are: none yet" in output


class TestWithdrawal:
    @pytest.fixture
    def permitted(self, agreed: OfficerCommands, proposed: Study) -> Study:
        agreed.done("approve", proposed.id, "--yes")
        return proposed

    def test_a_withdrawal_outweighs_the_permit(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        output = agreed.done("withdraw", permitted.id, "--reason", "New advice.", "--yes")
        published = agreed.published()
        assert present(published.withdrawal(permitted.digest)).reason == "New advice."
        assert "cannot be called back, and stays charged" in output

    def test_a_withdrawal_reaches_the_node_without_an_exchange(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        node = agreed.make_node()
        agreed.exchange.down = True
        result = agreed.run("withdraw", permitted.id, "--reason", "Now.", "--yes", "--node", node)
        assert result.exit_code == 1
        assert "Version 2 is signed and kept" in result.stderr
        assert "pratique-officer renew" in result.stderr
        assert agreed.own().withdrawal(permitted.digest)
        assert b'\\"withdrawal\\"' in (node / "officer" / "country-DK.json").read_bytes()

    def test_a_withdrawal_reaches_the_exchange_later(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        agreed.exchange.down = True
        agreed.run("withdraw", permitted.id, "--reason", "Now.", "--yes")
        agreed.exchange.down = False
        assert "have not reached the exchange" in agreed.done("inbox")
        agreed.done("renew")
        assert agreed.published().withdrawal(permitted.digest)
        assert "have not reached" not in agreed.done("inbox")

    def test_a_withdrawal_reaches_the_node_before_any_call_to_the_exchange(
        self, agreed: OfficerCommands, permitted: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exchange on which every call hangs does not delay documents that stop the node."""
        node = agreed.make_node()
        stopped_before: list[bool] = []

        def fetch(_path: str) -> bytes | None:
            stopped_before.append((node / "officer" / "country-DK.json").exists())
            raise unreachable()

        monkeypatch.setattr(agreed.exchange, "fetch", fetch)
        agreed.run("withdraw", permitted.id, "--reason", "Now.", "--yes", "--node", node)
        assert stopped_before
        assert all(stopped_before)

    def test_a_withdrawal_accepts_a_digest_without_an_exchange(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        agreed.exchange.down = True
        agreed.run("withdraw", permitted.digest, "--reason", "Now.", "--yes")
        assert agreed.own().withdrawal(permitted.digest)

    def test_a_withdrawal_applies_to_the_text_that_was_permitted(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        """Another text under the same id must not hide the permitted one."""
        other = study(agreed.documents.agreed, question="How many patients have heart disease now?")
        keep_study(agreed.home.studies, other)
        agreed.done("withdraw", permitted.id, "--reason", "Stop.", "--yes")
        assert agreed.own().withdrawal(permitted.digest)

    def test_a_withdrawal_needs_a_permit(self, agreed: OfficerCommands, proposed: Study) -> None:
        output = agreed.refused("withdraw", proposed.id, "--reason", "No.", "--yes")
        assert "You have not approved it" in output

    def test_a_permit_can_be_withdrawn_once(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        agreed.done("withdraw", permitted.id, "--reason", "No.", "--yes")
        output = agreed.refused("withdraw", permitted.id, "--reason", "Again.", "--yes")
        assert "withdrew the permit on 2026-09-01" in output

    def test_a_withdrawal_needs_confirmation(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        output = agreed.refused("withdraw", permitted.id, "--reason", "No.", answer="n\n")
        assert "answered no" in output

    def test_a_withdrawal_of_an_unknown_study_is_refused(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        assert "no study" in agreed.refused("withdraw", "other", "--reason", "No.", "--yes")

    def test_a_permit_of_an_expired_study_can_be_withdrawn(
        self, agreed: OfficerCommands, permitted: Study
    ) -> None:
        agreed.documents.now = agreed.now = NOW + timedelta(days=200)
        agreed.certified().documents.refresh()
        agreed.done("withdraw", permitted.id, "--reason", "Late.", "--yes")
        assert agreed.own().withdrawal(permitted.digest)


def test_a_folder_restored_from_an_old_copy_undoes_no_withdrawal(
    agreed: OfficerCommands, proposed: Study
) -> None:
    agreed.done("approve", proposed.id, "--yes")
    copy = {path: path.read_bytes() for path in agreed.home.documents.rglob("*.json")}
    agreed.done("withdraw", proposed.id, "--reason", "Stop.", "--yes")
    agreed.done("sign", agreed.file("node-keys.json", node_keys("DK").canonical()), "--yes")
    for path, content in copy.items():
        path.write_bytes(content)
    result = agreed.run("renew")
    assert "THIS FOLDER DID NOT SIGN: version 3 of your country's, with the keys" in result.stderr
    renewed = agreed.published()
    assert renewed.version == 4
    assert present(renewed.withdrawal(proposed.digest)).reason == "Stop."
    assert renewed.node is None


def test_a_change_of_any_field_of_a_permit_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    agreed = agreement()
    asked = study(agreed)
    session: Any = SimpleNamespace(terminal=Terminal(), country="DK")

    def shown(given: Permit) -> str:
        _show_permit(session, asked, given, "sentence")
        return capsys.readouterr().out

    limits = PermitConditions(features=("age", "sex"), epsilon_at_most=0.25, expires=NOW)
    given = permit(agreed, asked, conditions=limits, earlier=1)
    before = shown(given)
    hidden = {
        path[-1]
        for path, value, put in places(given)
        for variant in map(put, others(value) if value is not None else [])
        if shown(variant) == before
    }
    assert hidden <= {"kind", "schema_version", "study"}  # one value; named from the study itself
