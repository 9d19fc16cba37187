from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.documents.permit import Permit, PermitConditions
from governance.documents.study import Study
from governance.officer.inbox import (
    MOST_SHOWN,
    Item,
    Matter,
    Waiting,
    ends,
    first_of_each,
    items,
    undecided,
)
from governance.trust.bundle import CountryDocuments
from governance.trust.ceremony import Draft
from tests.support.documents import DAY, NOW, agreement, permit, study, withdrawal

AGREED = agreement()
ASKED = study(AGREED)
SOON = study(AGREED, id="soon", title="A study that ends soon", expires="2026-09-20")
OTHERS = study(AGREED, id="others", countries=["EE", "NO", "PT"])
EXPIRED = study(AGREED, id="expired", expires="2026-08-31")


def own_documents_with(**changes: Any) -> CountryDocuments:
    fields: dict[str, Any] = {
        "country": "DK",
        "version": 3,
        "signed_at": NOW,
        "expires": NOW + 6 * DAY,
        "node": None,
        "permits": {},
        "withdrawals": {},
        "policy": None,
    }
    return CountryDocuments(**fields | changes)


def waiting(**changes: Any) -> list[Item]:
    return items(Waiting(country="DK", now=NOW, **changes))


def permitted(end: datetime, proposed: Study = ASKED) -> dict[str, Permit]:
    return {
        proposed.digest: permit(AGREED, proposed, conditions=PermitConditions(expires=end)),
    }


def test_nothing_is_listed_if_nothing_waits() -> None:
    assert waiting() == []
    assert waiting(own=own_documents_with(), certificate_ends=NOW + 60 * DAY) == []


def test_the_most_urgent_comes_first() -> None:
    items = waiting(
        draft=Draft(version=1, drafted=NOW, agreement=AGREED),
        studies=(ASKED, SOON),
        own=own_documents_with(expires=NOW + DAY, permits=permitted(NOW + DAY, EXPIRED)),
        unsent=("node",),
        certificate_ends=NOW + DAY,
    )
    assert [item.matter for item in items] == [
        Matter.DRAFT,
        Matter.STUDY,
        Matter.STUDY,
        Matter.UNSENT,
        Matter.DOCUMENTS,
        Matter.PERMIT,
        Matter.CERTIFICATE,
    ]
    assert [item.id for item in items[1:3]] == ["soon", "heart-by-sex"]


def test_a_study_is_listed_with_its_deadline_and_the_command_to_read_it() -> None:
    [item] = waiting(studies=(SOON,))
    assert item.sentence == (
        'Decide on "A study that ends soon" by 2026-09-20 00:00 UTC, in 18 days'
    )
    assert item.command == "pratique-officer show soon"
    assert item.digest == SOON.digest


@pytest.mark.parametrize("proposed", [OTHERS, EXPIRED])
def test_a_study_that_does_not_ask_or_has_ended_does_not_wait(proposed: Study) -> None:
    assert waiting(studies=(proposed,)) == []


def test_a_study_that_ends_this_moment_does_not_wait() -> None:
    assert undecided([ASKED], None, "DK", ASKED.expires) == []
    assert undecided([ASKED], None, "DK", ASKED.expires - timedelta(seconds=1)) == [ASKED]


@pytest.mark.parametrize(
    "decided",
    [{"permits": permitted(NOW + 60 * DAY)}, {"withdrawals": {ASKED.digest: withdrawal(ASKED)}}],
)
def test_a_study_decided_on_does_not_wait(decided: dict[str, Any]) -> None:
    assert waiting(studies=(ASKED,), own=own_documents_with(**decided)) == []


def test_another_text_of_a_decided_study_waits_for_a_decision() -> None:
    changed = study(AGREED, question="How many patients have heart disease now?")
    items = waiting(studies=(changed,), own=own_documents_with(permits=permitted(NOW + 60 * DAY)))
    assert [item.digest for item in items] == [changed.digest]


@pytest.mark.parametrize(
    ("left", "listed"),
    [
        (2 * DAY + timedelta(seconds=1), False),
        (2 * DAY, True),
        (timedelta(hours=3), True),
        (-DAY, True),
    ],
)
def test_own_documents_are_listed_two_days_before_they_end(left: timedelta, listed: bool) -> None:
    items = waiting(own=own_documents_with(expires=NOW + left))
    assert [item.matter for item in items] == [Matter.DOCUMENTS] * listed
    assert all(item.command == "pratique-officer renew" for item in items)


def test_expired_own_documents_are_listed() -> None:
    [item] = waiting(own=own_documents_with(expires=NOW - DAY))
    assert "have expired on 2026-08-31 12:00 UTC, 24 hours ago" in item.sentence


@pytest.mark.parametrize(
    ("left", "listed"),
    [(8 * DAY, False), (7 * DAY, True), (timedelta(hours=1), True), (timedelta(0), False)],
)
def test_a_permit_is_listed_a_week_before_it_ends(left: timedelta, listed: bool) -> None:
    items = waiting(studies=(ASKED,), own=own_documents_with(permits=permitted(NOW + left)))
    assert [item.matter for item in items] == [Matter.PERMIT] * listed


def test_a_permit_that_was_withdrawn_is_not_listed() -> None:
    mine = own_documents_with(
        permits=permitted(NOW + DAY), withdrawals={ASKED.digest: withdrawal(ASKED)}
    )
    assert waiting(studies=(ASKED,), own=mine) == []


def test_a_permit_for_a_study_no_longer_published_is_listed_by_digest() -> None:
    [item] = waiting(own=own_documents_with(permits=permitted(NOW + DAY)))
    assert ASKED.digest in item.sentence
    assert item.id is None


def test_a_certificate_is_listed_two_weeks_before_it_ends() -> None:
    assert waiting(certificate_ends=NOW + 15 * DAY) == []
    [item] = waiting(certificate_ends=NOW + 14 * DAY)
    assert item.matter is Matter.CERTIFICATE
    assert "invitation" in item.command


def test_an_amendment_and_a_first_agreement_are_listed_differently() -> None:
    [item] = waiting(draft=Draft(version=2, drafted=NOW, agreement=AGREED))
    assert item.sentence.startswith("A changed agreement waits")


def test_parties_without_the_newest_documents_are_named() -> None:
    [item] = waiting(own=own_documents_with(), unsent=("node", "exchange"))
    assert item.sentence == "Your newest documents have not reached the node and exchange"


def test_json_has_times_and_names() -> None:
    [item] = waiting(studies=(SOON,))
    assert item.to_json() == {
        "matter": "study-to-decide",
        "sentence": item.sentence,
        "due": "2026-09-20T00:00:00+00:00",
        "id": "soon",
        "digest": SOON.digest,
        "command": "pratique-officer show soon",
    }


@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=4_000)))
def test_remaining_and_past_time_are_shown_in_the_same_form(span: timedelta) -> None:
    later, earlier = ends(NOW + span, NOW), ends(NOW - span, NOW)
    shown_span = later.rpartition(", in ")[2]
    assert earlier.endswith(f", {shown_span} ago")
    assert later.startswith(f"on {NOW + span:%Y-%m-%d %H:%M} UTC, ")


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(hours=5), "5 hours"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=2, hours=23), "2 days"),
    ],
)
def test_spans_are_shown_in_days_from_two_days_on(span: timedelta, words: str) -> None:
    assert ends(NOW + span, NOW).endswith(f", in {words}")


@given(st.permutations([ASKED, SOON, OTHERS, EXPIRED]))
def test_the_order_of_proposals_does_not_matter(studies: list[Study]) -> None:
    assert waiting(studies=tuple(studies)) == waiting(studies=(ASKED, SOON))


def test_a_new_key_is_listed_with_what_it_waits_for() -> None:
    (item,) = waiting(new_key="Your new key waits")
    assert (item.matter, item.sentence) == (Matter.KEY, "Your new key waits")
    assert item.command == "pratique-officer rotate"


@pytest.mark.parametrize(("days", "count"), [(61, 0), (60, 1), (1, 1), (-1, 1)])
def test_the_countries_signatures_are_renewed_before_they_end(days: int, count: int) -> None:
    items = waiting(signed_until=NOW + days * DAY)
    assert [item.matter for item in items] == [Matter.SIGNATURES] * count
    assert all("agreement renew" in item.command for item in items)


def test_many_studies_do_not_hide_what_comes_after_them() -> None:
    studies = tuple(study(AGREED, id=f"number-{n}") for n in range(MOST_SHOWN + 7))
    every = waiting(studies=studies, unsent=("node",))
    assert len(every) == MOST_SHOWN + 8
    shown = first_of_each(every)
    assert len(shown) == MOST_SHOWN + 2
    assert shown[MOST_SHOWN].sentence == "And 7 more items like the last one"
    assert shown[-1].matter is Matter.UNSENT
    assert first_of_each(every[-1:]) == every[-1:]
