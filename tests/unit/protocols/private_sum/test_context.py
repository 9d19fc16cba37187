from dataclasses import replace

import pytest

from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import CHECK_COORDINATES, Scope
from protocols.numerics.packing import lanes
from protocols.private_sum.context import LARGEST_ROUND, RoundTerms, RunTerms
from tests.support.protocol_world import COUNT, TRAIN, terms_of

ROUND = RoundTerms(
    run=terms_of(3),
    bundles=(b"1" * 32, b"2" * 32, b"3" * 32),
    transcript=b"t" * 32,
    round_number=1,
    phase_kind="train",
    model_digest="sha256:" + "0" * 64,
)


def refusal_of(**changes: object) -> ReasonCode:
    with pytest.raises(Refusal) as refusal:
        terms_of(3, **changes)
    return refusal.value.code


@pytest.mark.parametrize(
    ("size", "colluding", "threshold"),
    [(3, 1, 3), (4, 2, 4), (4, 1, 3), (2, 0, 2), (6, 2, 5), (100, 30, 66)],
)
def test_the_threshold_is_one_more_than_half_of_countries_and_colluding(
    size: int, colluding: int, threshold: int
) -> None:
    roster = tuple(f"{chr(65 + i // 26)}{chr(65 + i % 26)}" for i in range(size))
    terms = terms_of(3, roster=roster, colluding=colluding, honest=2)
    assert terms.threshold == threshold
    assert terms.colluding < terms.threshold <= size


@pytest.mark.parametrize(
    "changes",
    [
        {"roster": ("AT", "BE")},
        {"roster": ("AT", "CZ", "BE")},
        {"roster": ("AT", "AT", "BE")},
        {"roster": ("AT", "BE", "cz")},
        {"roster": ("AT", "BE", "CZE")},
        {"roster": ("AT", "BE", "CZ\n")},
        {"roster": ()},
        {"honest": 1, "colluding": 0},
        {"honest": 0, "colluding": 0},
        {"honest": -5, "colluding": 2},
        {"colluding": -1},
        {"colluding": 2},
        {"smallest_countries": 4},
    ],
    ids=str,
)
def test_invalid_rosters_and_minimums_are_refused(changes: dict[str, object]) -> None:
    assert refusal_of(**changes) is ReasonCode.ROSTER


@pytest.mark.parametrize(
    "changes",
    [
        {"agreement": "sha256:short"},
        {"study": ""},
        {"study": "sha256:" + "a" * 64 + "\n"},
        {"run_id": b""},
        {"run_id": bytes(17)},
        {"mechanisms": ()},
        {"mechanisms": (TRAIN, TRAIN)},
    ],
    ids=str,
)
def test_malformed_ids_and_schedules_are_refused(changes: dict[str, object]) -> None:
    assert refusal_of(**changes) is ReasonCode.MALFORMED


def test_the_minimum_is_honest_plus_colluding_or_smallest_countries_if_larger() -> None:
    assert terms_of(4).minimum_countries == 4
    assert terms_of(4, honest=2, colluding=1).minimum_countries == 3
    assert terms_of(4, honest=2, colluding=1, smallest_countries=4).minimum_countries == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"agreement": "sha256:" + "1" * 64},
        {"study": "sha256:" + "1" * 64},
        {"run_id": bytes(16)},
        {"roster": ("AT", "BE", "DK", "EE")},
        {"colluding": 0},
        {"honest": 3},
        {"smallest_countries": 4},
        {"task_kind": "stats/count"},
        {"mechanisms": (COUNT, TRAIN)},
        {"mechanisms": (TRAIN,)},
        {"mechanisms": (TRAIN.model_copy(update={"sampling_rate": 0.5}), COUNT)},
    ],
    ids=str,
)
def test_every_term_changes_the_context_of_the_run(changes: dict[str, object]) -> None:
    base: dict[str, object] = {"honest": 2, "colluding": 1}
    assert terms_of(4, **{**base, **changes}).context != terms_of(4, **base).context


def test_equal_terms_have_equal_contexts() -> None:
    assert terms_of(3).context == terms_of(3).context
    assert replace(ROUND).context == ROUND.context
    assert len(ROUND.context) == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"run": terms_of(3, run_id=bytes(16))},
        {"bundles": (b"2" * 32, b"1" * 32, b"3" * 32)},
        {"transcript": b"u" * 32},
        {"round_number": 2},
        {"phase_kind": "count"},
        {"model_digest": "sha256:" + "1" * 64},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_term_changes_the_context_of_the_round(changes: dict[str, object]) -> None:
    assert replace(ROUND, **changes).context != ROUND.context  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, -1, LARGEST_ROUND + 1])
def test_round_numbers_have_a_range(number: int) -> None:
    with pytest.raises(Refusal):
        replace(ROUND, round_number=number)


def test_there_is_one_bundle_for_each_country() -> None:
    with pytest.raises(Refusal):
        replace(ROUND, bundles=ROUND.bundles[:2])


def test_the_phase_of_a_round_is_in_the_schedule() -> None:
    assert ROUND.mechanism is TRAIN
    assert replace(ROUND, phase_kind="count").mechanism is COUNT
    with pytest.raises(Refusal) as refusal:
        _ = replace(ROUND, phase_kind="evaluate").mechanism
    assert refusal.value.code is ReasonCode.TASK_UNKNOWN


@pytest.mark.parametrize("phase", ["train", "count"])
def test_words_have_room_for_the_vector_and_its_check_coordinates(phase: str) -> None:
    terms = replace(ROUND, phase_kind=phase)
    needed = terms.mechanism.dimension + CHECK_COORDINATES
    assert terms.words * lanes(terms.lane_bits) >= needed
    assert (terms.words - 1) * lanes(terms.lane_bits) < needed


def test_terms_are_immutable() -> None:
    assert isinstance(terms_of(3), RunTerms)
    with pytest.raises(AttributeError):
        terms_of(3).colluding = 0  # type: ignore[misc]


def test_a_run_whose_sums_may_overflow_a_word_is_refused() -> None:
    """Node and coordinator both refuse when they create the terms, before any message."""
    changes = {"clip_norm": 1e6, "scale": 2**24, "patients_bound": 10**9}
    wide = TRAIN.model_copy(update=changes)
    with pytest.raises(Refusal, match="may overflow a word") as refusal:
        terms_of(3, mechanisms=(COUNT, wide))
    assert refusal.value.code is ReasonCode.MALFORMED
    assert "patients_bound" in refusal.value.fix


def test_a_local_release_is_not_checked_for_overflow() -> None:
    changes = {"clip_norm": 1e6, "scale": 2**24, "patients_bound": 10**9, "phase": "local-step"}
    local = TRAIN.model_copy(update={**changes, "scope": Scope.LOCAL})
    assert terms_of(3, mechanisms=(TRAIN, local)).mechanisms[1] == local
