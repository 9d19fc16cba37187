from keys.errors import KeyFault, PratiqueError


def test_an_error_says_what_why_and_what_to_do_in_sentences() -> None:
    error = KeyFault("It broke", why="The wire was cut.", fix="fix it")
    assert str(error) == "It broke. The wire was cut. To do: fix it."


def test_an_error_without_a_reason_says_only_what_happened() -> None:
    assert str(PratiqueError("It broke")) == "It broke."


def test_key_faults_are_caught_as_the_project_s_errors() -> None:
    assert issubclass(KeyFault, PratiqueError)


def test_the_name_of_a_file_or_field_is_unchanged_at_the_start_of_a_sentence() -> None:
    assert str(PratiqueError("study.yaml is gone", why="features.0.typ: no such field")) == (
        "study.yaml is gone. features.0.typ: no such field."
    )
    assert str(PratiqueError("nope is gone", why="title: it is missing")) == (
        "nope is gone. title: it is missing."
    )


def test_several_problems_are_listed_line_by_line() -> None:
    assert str(PratiqueError("It broke", why="line 1: a\nline 2: b", fix="fix it")) == (
        "It broke.\nLine 1: a\nline 2: b.\nTo do: fix it."
    )


def test_a_small_greek_letter_stays_small_at_the_start_of_a_sentence() -> None:
    assert str(PratiqueError("δ is too large", why="it is above one")) == (
        "δ is too large. It is above one."
    )


def test_what_and_why_make_one_sentence() -> None:
    assert PratiqueError("It broke", why="the wire was cut", fix="fix it").sentence == (
        "It broke; the wire was cut"
    )
    assert PratiqueError("It broke", fix="fix it").sentence == "It broke"


def test_each_part_is_a_separate_sentence() -> None:
    fault = PratiqueError("heart-by-sex is gone", why="nobody keeps it.", fix="ask DK")
    assert fault.sentences == ["heart-by-sex is gone.", "Nobody keeps it.", "To do: ask DK."]
    assert PratiqueError("It broke").sentences == ["It broke."]
