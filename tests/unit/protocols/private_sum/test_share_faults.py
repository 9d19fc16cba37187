"""Who is at fault for an unusable share: the holder, the owner, or one of the two."""

import os
from typing import Any

import pytest

from protocols.private_sum import shares
from protocols.private_sum.contribution import seal_share
from protocols.private_sum.dealt_shares import DealtShares
from protocols.private_sum.share_faults import (
    DISPUTED_BY_MANY,
    FALSE_REPORT,
    HANDED_IN,
    INCONSISTENT,
    SEALED_ANOTHER,
    ShareReport,
    judge,
)

CONTEXT, MARK = os.urandom(32), os.urandom(32)
ROSTER = ("AT", "BE", "CZ", "DK")
KEY, SHARE, OTHER = os.urandom(32), shares.draw_element(os.urandom), os.urandom(32)


def dealt(committed: bytes = SHARE, sealed: bytes = SHARE) -> dict[str, DealtShares]:
    """Return what each country sent; every share is the same, sealed with KEY."""
    return {
        owner: DealtShares(
            {h: shares.commit(CONTEXT, owner, h, committed) for h in ROSTER},
            {h: seal_share(CONTEXT, KEY, owner, h, sealed, MARK) for h in ROSTER if h != owner},
            MARK,
        )
        for owner in ROSTER
    }


def report(holder: str = "AT", owner: str = "BE", **changes: Any) -> ShareReport:
    fields: dict[str, Any] = {"handed_in": False, "compared": True, "key": KEY}
    return ShareReport(holder=holder, owner=owner, **fields | changes)


@pytest.mark.parametrize(
    ("given", "sent", "convicted"),
    [
        (report(handed_in=True), dealt(), {"AT": HANDED_IN}),
        (report(), dealt(), {"AT": FALSE_REPORT}),
        (report(), dealt(sealed=OTHER), {"BE": SEALED_ANOTHER}),
        (report(), dealt(committed=OTHER), {"BE": SEALED_ANOTHER}),
        (report(owner="AT", handed_in=True, compared=False), dealt(), {"AT": HANDED_IN}),
        (report(owner="AT"), dealt(), {"AT": HANDED_IN}),
    ],
)
def test_a_signature_shows_who_is_at_fault(
    given: ShareReport, sent: dict[str, DealtShares], convicted: dict[str, str]
) -> None:
    faults = judge(CONTEXT, [given], sent, [], 1)
    assert (faults.convicted, faults.disputed, faults.undecided) == (convicted, (), "")


@pytest.mark.parametrize(
    "given",
    [
        report(key=os.urandom(32)),
        report(key=None, compared=False),
        report(handed_in=True, compared=False, key=None),
    ],
    ids=["another key", "a report without a key", "a holder that does not compare"],
)
def test_nobody_is_named_if_no_signature_decides(given: ShareReport) -> None:
    faults = judge(CONTEXT, [given], dealt(), [], 1)
    assert (faults.convicted, faults.disputed) == ({}, (("AT", "BE"),))
    assert "no signature shows" in faults.undecided
    assert not any(country in faults.undecided for country in ROSTER)


@pytest.mark.parametrize(
    ("holders", "colluding", "named"),
    [
        (["AT"], 1, False),
        (["AT"], 0, False),
        (["AT", "CZ"], 1, True),
        (["AT", "CZ"], 0, True),
        (["AT", "CZ"], 2, False),
        (["AT", "CZ", "DK"], 2, True),
    ],
)
def test_a_country_in_dispute_with_more_than_may_collude_is_named(
    holders: list[str], colluding: int, named: bool
) -> None:
    reports = [report(holder, "BE", key=os.urandom(32)) for holder in holders]
    faults = judge(CONTEXT, reports, dealt(), [], colluding)
    assert faults.convicted == ({"BE": DISPUTED_BY_MANY} if named else {})
    assert faults.disputed == (() if named else tuple((holder, "BE") for holder in holders))


def test_a_liar_that_reports_everybody_names_only_itself() -> None:
    reports = [report("AT", owner, key=os.urandom(32)) for owner in ("BE", "CZ", "DK")]
    assert judge(CONTEXT, reports, dealt(), [], 1).convicted == {"AT": DISPUTED_BY_MANY}


def test_committed_shares_of_another_seed_name_their_owner() -> None:
    assert judge(CONTEXT, [], dealt(), ["CZ"], 1).convicted == {"CZ": INCONSISTENT}
