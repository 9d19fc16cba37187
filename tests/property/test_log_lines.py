"""Whatever is logged is one line of bounded, valid JSON, with listed fields of their kinds only."""

import json
import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from governance.runtime.log_fields import FIELDS, LONGEST_TEXT, plain
from governance.runtime.logs import LONGEST_LINE, LineFormatter
from governance.runtime.safe_text import INVISIBLE

FORMATTER = LineFormatter()
ALWAYS = {"timestamp", "level", "logger", "event"}
NOTED = {"dropped", "exception", "frames", "place"}
TAKEN = set(vars(logging.makeLogRecord({})))

anything: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=2000),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Co"]), max_size=600),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=50),
    st.datetimes(),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.builds(ValueError, st.text()),
)
SEEN = st.characters(categories=["L", "N", "P", "S"], include_characters=" ").filter(
    lambda character: not INVISIBLE.match(character)
)
names = st.one_of(st.sampled_from(sorted(FIELDS)), st.text(min_size=1, max_size=80)).filter(
    lambda name: name not in TAKEN
)
records = st.builds(
    lambda name, message, args, extra: logging.makeLogRecord(
        {**extra, "name": name, "msg": message, "args": args, "levelno": 30, "levelname": "WARNING"}
    ),
    st.one_of(st.just("pratique.x"), st.text(max_size=200)),
    anything,
    st.one_of(st.none(), st.tuples(anything)),
    st.dictionaries(names, anything, max_size=25),
)


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    line = FORMATTER.format(record)
    assert len(line.splitlines()) == 1
    assert len(line.encode("utf-8")) < LONGEST_LINE
    fields: dict[str, Any] = json.loads(line, parse_constant=lambda name: 1 / 0)
    return fields


@given(records)
def test_any_record_is_one_bounded_line_of_json(record: logging.LogRecord) -> None:
    line = line_of(record)
    assert set(line) >= ALWAYS
    assert set(line) - ALWAYS - NOTED <= set(FIELDS)
    for name, value in line.items():
        assert isinstance(value, str | int | float | list), name


@given(records, st.sampled_from(["Kowalski 1961", "CPR 120461-1234"]))
def test_values_planted_in_fields_and_arguments_are_not_logged(
    record: logging.LogRecord, planted: str
) -> None:
    record.patient, record.note, record.run = planted, [planted], f"{planted} x"
    record.args, record.exc_info = (planted,), (ValueError, ValueError(planted), None)
    assert planted not in json.dumps(line_of(record), ensure_ascii=False)


@given(st.text())
def test_plain_text_can_be_shown_anywhere(text: str) -> None:
    displayed = plain(text)
    assert displayed.isprintable()
    assert plain(displayed[:LONGEST_TEXT]) == displayed[:LONGEST_TEXT]


@given(st.text(SEEN, max_size=LONGEST_TEXT))
def test_text_that_a_reader_sees_stays_as_it_is(text: str) -> None:
    assert plain(text) == text
