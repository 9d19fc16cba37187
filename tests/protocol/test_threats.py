"""The tests that show that the private sum withstands each attack and threat.

The lines are those of the design's list and of the table of threats; tests are named by function.
Most tests run an attack against real countries and check what a liar could open
(`tests.support.lying_coordinator`).
"""

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

WITHSTOOD = {
    "swaps keys": (
        "test_keys_swapped_for_those_of_the_liar_open_nothing",
        "test_keys_swapped_by_the_coordinator_stop_the_set_up",
    ),
    "encapsulates in another's name": (
        "test_a_ciphertext_in_the_name_of_another_country_opens_nothing",
        "test_a_ciphertext_in_the_name_of_another_country_is_refused",
    ),
    "equivocates on roster": (
        "test_two_rosters_open_nothing",
        "test_another_roster_than_the_documents_give_is_refused",
    ),
    "equivocates on model": (
        "test_two_models_open_one_set_at_most",
        "test_masks_cancel_between_countries_only_when_all_saw_one_model",
    ),
    "replays a round": (
        "test_a_replayed_round_gives_no_second_vector",
        "test_signatures_on_a_set_are_not_valid_in_the_next_round",
    ),
    "replays a run": (
        "test_a_replayed_run_opens_nothing",
        "test_bundles_of_another_run_are_refused",
    ),
    "shows different U to different countries": (
        "test_different_sets_for_different_countries_open_nothing",
        "test_no_set_that_is_too_small_and_no_two_sets_open",
    ),
    "mixes the roster path for some with a smaller U for others": (
        "test_showing_the_roster_to_some_and_a_smaller_set_to_others_opens_one_of_them",
        "test_no_set_that_is_too_small_and_no_two_sets_open",
    ),
    "claims a false drop-out and lets the contribution arrive late": (
        "test_a_late_contribution_is_not_opened",
        "test_a_contribution_that_was_held_back_is_not_opened",
    ),
    "asks twice": (
        "test_a_country_signs_one_set_a_round",
        "test_a_country_answers_for_one_set_once",
        "test_a_restart_forgets_neither_a_signature_nor_an_answer",
    ),
    "shrinks the roster": (
        "test_a_shrunk_roster_opens_nothing",
        "test_a_set_that_is_too_small_or_has_strangers_is_neither_signed_nor_answered",
    ),
    "changes the study between phases": ("test_a_study_changed_between_phases_opens_nothing",),
    "substitutes shares": ("test_a_substituted_share_opens_for_nobody_and_reveals_nothing",),
    "sends NaN, huge, negative or truncated vectors": (
        "test_any_model_opens_the_sum_of_all_and_no_part_of_it",
        "test_a_vector_of_another_length_is_refused_and_a_correct_one_may_follow",
    ),
    "up to c colluding countries": (
        "test_colluders_need_as_many_answers_as_the_threshold_says",
        "test_two_sets_signed_by_colluders_open_nothing_beside_each_other",
    ),
    "a country that dies at any point": (
        "test_a_country_killed_at_any_point_opens_nothing_to_the_liar",
        "test_any_set_of_countries_may_be_missing_from_any_step_on",
    ),
    "a country that sends garbage": (
        "test_garbage_of_colluders_opens_nothing_in_addition",
        "test_a_wrong_mask_key_of_a_member_voids_the_round_and_the_next_one_opens",
    ),
    "a node seized later": (
        "test_all_nodes_seized_after_answering_open_no_more_than_was_open",
        "test_all_nodes_seized_after_the_next_round_began_open_no_void_round",
    ),
}
"""The lines of the design's list, and the promise about seized nodes, each with its tests."""

THREATS = {
    "captured request replayed": WITHSTOOD["replays a round"],
    "one country speaks as another": (
        "test_one_country_cannot_sign_as_another",
        "test_only_signatures_of_t_members_on_this_very_set_count",
    ),
    "unsafe deserialisation": ("test_bytes_from_outside_open_or_are_refused",),
    "coordinator swaps round keys": WITHSTOOD["swaps keys"],
    "both shares of one country asked for": WITHSTOOD["asks twice"],
    "tiny cohort or threshold": (
        "test_the_smallest_set_is_the_largest_of_h_plus_c_the_agreement_and_t",
        "test_the_floor_is_the_smallest_cohort_of_the_agreement_with_room_for_the_noise",
    ),
    "weak masks": (
        "test_contributions_are_uniform",
        "test_a_known_answer",
    ),
    "different models shown to different countries": WITHSTOOD["equivocates on model"],
    "sums differenced across rounds, cohorts or rosters": (
        "test_two_rounds_share_no_mask_and_no_value",
        "test_a_kind_of_round_runs_no_more_often_than_it_was_charged_for",
    ),
    "refusal, timing or failure depends on a record": ("test_neighbouring_cohorts_look_the_same",),
    "a country drops at any stage": WITHSTOOD["a country that dies at any point"],
    "NaN, infinity, huge update": ("test_no_patient_exceeds_the_bound_whatever_the_vector",),
    "floating-point leak of noise": (
        "test_the_low_bits_of_an_opened_sum_reveal_nothing_about_the_values",
    ),
    "predictable noise": ("test_seeding_every_other_generator_changes_nothing",),
    "the mechanism is weaker than it says": (
        "test_the_complete_path_has_the_privacy_that_it_claims",
        "test_half_the_noise_is_detected",
    ),
}
"""The rows of the table of threats that concern sums."""


@cache
def all_tests() -> frozenset[str]:
    """Return the names of all tests."""
    files = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    return frozenset(name for text in files for name in re.findall(r"^def (test_\w+)", text, re.M))


@pytest.mark.parametrize("line", [*WITHSTOOD, *THREATS])
def test_every_line_has_its_tests(line: str) -> None:
    named = (WITHSTOOD | THREATS)[line]
    assert named
    assert not set(named) - all_tests()
