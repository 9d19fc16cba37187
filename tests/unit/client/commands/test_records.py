from client.commands.records import listed
from client.records.unmatched import UnmatchedEntry


def test_a_long_list_is_cut() -> None:
    entries = tuple(UnmatchedEntry(f"p{n}", n) for n in range(1, 8))
    assert listed(entries[:2], 3) == "`p1` (line 1), `p2` (line 2)"
    assert listed(entries, 2) == "`p1` (line 1), `p2` (line 2) and 5 more"
