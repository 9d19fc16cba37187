from collections.abc import Iterator

import pytest

from protocols.errors import ProtocolFault
from protocols.tasks.sizes import MAX_CELLS, Size, product_up_to


@pytest.mark.parametrize(
    ("terms", "fits"),
    [
        ([(MAX_CELLS,)], True),
        ([(MAX_CELLS + 1,)], False),
        ([(10, 100), (MAX_CELLS - 1_000,)], True),
        ([(10, 100), (MAX_CELLS - 999,)], False),
        ([(60, 60, 60, 60)], False),
        ([], True),
    ],
)
def test_a_size_is_the_sum_of_its_products(terms: list[tuple[int, ...]], fits: bool) -> None:
    size = Size.of_table("table", *terms)
    assert size.within is fits
    if not fits:
        with pytest.raises(ProtocolFault, match=f"The table has more than {MAX_CELLS} cells"):
            size.require()


def test_multiplying_ends_at_the_limit() -> None:
    counted: list[int] = []

    def factors() -> Iterator[int]:
        for _ in range(10**9):
            counted.append(1_000)
            yield 1_000

    assert product_up_to(factors(), 10**8) == 10**9
    assert len(counted) == 3


def test_a_product_within_the_limit_is_exact() -> None:
    assert product_up_to([3, 5, 7], 105) == 105
    assert product_up_to([], 1) == 1
