"""A log line has listed fields with values of their kind, and errors without their text."""

from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan

import pytest

from governance.runtime.log_fields import (
    FIELDS,
    LONGEST_CHAIN,
    LONGEST_TEXT,
    MAX_DROPPED,
    admit,
    error_fields,
    moment,
    plain,
    project_path,
    seconds,
    whole,
    word,
)
from protocols.wire.encoding import digest


def test_plain_text_is_one_line_that_hides_nothing() -> None:
    assert plain("a\nb\x1b[2J\u202ec\ud800") == "a\\u{a}b\\u{1b}[2J\\u{202e}c\\u{d800}"
    assert plain("é ε 中") == "é ε 中"
    assert plain("x" * (LONGEST_TEXT + 1)) == "x" * LONGEST_TEXT + "…"


@pytest.mark.parametrize("text", ["no-permit", digest(b"x"), "DK", "[::1]:7443", "v1.2+cpu"])
def test_word_fields_accept_codes_ids_and_addresses(text: str) -> None:
    assert word(text) == text


@pytest.mark.parametrize("text", ["", "two words", "a\nb", "x" * 129, "naïve", b"DK", 3, None])
def test_word_fields_refuse_everything_else(text: object) -> None:
    assert word(text) is None


def test_numbers_are_integers_or_finite_and_not_booleans() -> None:
    assert (whole(7), whole(True), whole(7.0), whole(2**63)) == (7, None, None, None)
    assert (seconds(0.12349), seconds(2), seconds(True)) == (0.123, 2.0, None)
    assert (seconds(nan), seconds(inf), seconds(2**70), seconds("1")) == (None, None, None, None)


def test_times_need_a_zone_and_are_shown_in_utc() -> None:
    aware = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert moment(aware) == "2026-05-01T12:00:00Z"
    assert moment(datetime(2026, 5, 1)) is None  # noqa: DTZ001 (a naive time is what is refused)
    assert moment(aware.astimezone(UTC).isoformat()) is None


def test_fields_that_are_not_listed_or_not_of_their_kind_are_dropped_by_name() -> None:
    fields = {"round": 3, "country": "D K", "age": 41, "why": "it is late", "phase": None}
    assert admit(fields) == {"round": 3, "why": "it is late", "dropped": ["age", "country"]}


def test_no_field_can_hold_values_of_records() -> None:
    assert not {"patient", "id", "value", "row", "age", "name"} & set(FIELDS)


def test_many_dropped_fields_do_not_make_a_long_line() -> None:
    dropped = admit({f"field{n}": n for n in range(100)})["dropped"]
    assert isinstance(dropped, list)
    assert len(dropped) == MAX_DROPPED


def test_errors_are_shown_by_type_and_location_and_never_by_text() -> None:
    try:
        try:
            digest(None)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError("patient 17 is 41 years old") from error
    except ValueError as error:
        logged = error_fields(error)
    assert logged["exception"] == "ValueError from TypeError"
    frames = logged["frames"]
    assert isinstance(frames, list)
    assert frames[-1].startswith("protocols/wire/encoding.py:")
    assert "41" not in str(logged).replace(str(frames), "")


def test_a_chain_of_errors_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert error_fields(first)["exception"] == "ValueError from KeyError"
    deep: Exception = ValueError()
    for _ in range(10):
        outer = RuntimeError()
        outer.__cause__, deep = deep, outer
    assert str(error_fields(deep)["exception"]).count("RuntimeError") == LONGEST_CHAIN


def test_only_files_of_the_packages_have_a_location() -> None:
    assert project_path(admit.__code__.co_filename) == "governance/runtime/log_fields.py"
    assert project_path(__file__) == ""
    assert project_path("/usr/lib/python3/json.py") == ""
