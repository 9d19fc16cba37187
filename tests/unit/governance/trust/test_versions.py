"""Who is behind whom: document by document, and a country never seen counts as 0."""

from governance.trust.versions import Versions

from protocols.private_sum.context import DocumentVersions


def test_what_is_older_is_named() -> None:
    mine, theirs = Versions(1, 2, {"DK": 3, "EE": 1}), Versions(2, 2, {"DK": 2, "EE": 4})
    assert mine.behind(theirs) == ("root", "EE")
    assert theirs.behind(mine) == ("DK",)


def test_a_country_that_one_never_saw_counts_as_zero() -> None:
    mine, theirs = Versions(1, 1), Versions(1, 1, {"DK": 1, "EE": 0})
    assert mine.behind(theirs) == ("DK",)
    assert theirs.behind(mine) == ()


def test_a_message_claims_all_of_them() -> None:
    held = Versions(4, 3, {"EE": 2, "DK": 1})
    assert held.claimed() == DocumentVersions(4, 3, {"DK": 1, "EE": 2})
    assert list(held.by_name()) == ["root", "targets", "DK", "EE"]
