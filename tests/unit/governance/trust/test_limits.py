"""How much a party may publish, counted on signed lists."""

import pytest
from tuf.api.metadata import TargetFile

from governance.documents.models import MAX_BYTES
from governance.trust.limits import (
    MIB,
    MOST_ROLE_BYTES,
    MOST_TIMESTAMP_BYTES,
    MOST_TOP_BYTES,
    OF_COORDINATOR,
    OF_COUNTRY,
    Allowance,
    most_bytes,
    most_mirrored,
)

SMALL = Allowance(documents=3, total=1_000)


def listed(*lengths: int) -> list[TargetFile]:
    return [TargetFile(n, {"sha256": "0" * 64}, f"file-{i}") for i, n in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [(), (1_000,), (500, 499, 1)])
def test_what_fits_is_no_excess(lengths: tuple[int, ...]) -> None:
    assert SMALL.excess(listed(*lengths)) == ""
    assert SMALL.fitting(listed(*lengths)) == listed(*lengths)


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ((1, 1, 1, 1), "lists 4 documents, and at most 3 count"),
        ((500, 501), "lists documents of 1001 bytes, and at most 1000 count"),
    ],
)
def test_an_excess_is_named(lengths: tuple[int, ...], says: str) -> None:
    assert SMALL.excess(listed(*lengths)) == says


def test_one_large_document_is_an_excess() -> None:
    assert OF_COUNTRY.excess(listed(MAX_BYTES)) == ""
    assert "262145 bytes, and each may have 262144" in OF_COUNTRY.excess(listed(MAX_BYTES + 1))
    assert OF_COUNTRY.fitting(listed(MAX_BYTES + 1, 1)) == listed(MAX_BYTES + 1, 1)[1:]


def test_the_first_documents_that_fit_are_chosen() -> None:
    assert [t.length for t in SMALL.fitting(listed(600, 500, 300, 50, 50))] == [600, 300, 50]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("metadata/timestamp.json", MOST_TIMESTAMP_BYTES),
        ("metadata/7.root.json", MOST_TOP_BYTES),
        ("metadata/7.snapshot.json", MOST_TOP_BYTES),
        ("metadata/1.targets.json", MOST_TOP_BYTES),
        ("metadata/3.country-DK.json", MOST_ROLE_BYTES),
        ("metadata/3.coordinator.json", MOST_ROLE_BYTES),
        (f"targets/{'0' * 64}.agreement.json", MAX_BYTES),
    ],
)
def test_each_file_has_a_largest_size(name: str, limit: int) -> None:
    assert most_bytes(name) == limit


def test_a_mirror_of_all_countries_of_a_union_has_less_than_128_mib() -> None:
    assert most_mirrored(countries=27, roots=20) < 128 * MIB
    one_more = most_mirrored(countries=28, roots=20) - most_mirrored(countries=27, roots=20)
    assert one_more == OF_COUNTRY.total + MOST_ROLE_BYTES
    assert OF_COORDINATOR.total < one_more * 27
