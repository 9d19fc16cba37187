from client.records.unmatched import UnmatchedEntry, loose, unmatched_entries


def test_an_id_that_differs_in_form_only_is_named() -> None:
    lines = {"p-12": 4, "７": 2, "zz": 1}
    found = unmatched_entries(tuple(lines), lines, ("P0012", "P12", "007"))
    assert found == (
        UnmatchedEntry("zz", 1),
        UnmatchedEntry("７", 2, "007"),
        UnmatchedEntry("p-12", 4, "P12"),
    )
    assert found[1].sentence() == "`７` (line 2), but the records have `007`"
    assert found[0].sentence() == "`zz` (line 1)"


def test_zeros_capitals_and_signs_do_not_count() -> None:
    assert len({loose(text) for text in ("0012-a", "12 A", "１２a", "12_á"[:-1] + "a")}) == 1
    assert loose("120") != loose("12")
