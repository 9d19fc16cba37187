"""Daemons' logs: JSON lines, named fields only."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from governance.logs import FIELDS, configure_logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("pratique")
    before = (root.handlers[:], root.level, ours.level)
    stream = io.StringIO()
    configure_logs(stream)
    yield stream
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_named_fields(lines: io.StringIO) -> None:
    extra = {"country": "AT", "round": 3}
    logging.getLogger("pratique.run").info("round", extra=extra)
    (line,) = read(lines)
    assert (line["event"], line["country"], line["round"]) == ("round", "AT", 3)
    assert (line["level"], line["logger"]) == ("info", "pratique.run")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("field", ["patient", "value", "record", "passphrase", "token"])
def test_a_field_that_is_not_named_does_not_reach_the_log(lines: io.StringIO, field: str) -> None:
    assert field not in FIELDS
    logging.getLogger("pratique.door").info("sum", extra={field: "CANARY"})
    assert "CANARY" not in lines.getvalue()
    assert "sum" in lines.getvalue()


def test_a_line_end_in_a_field_makes_no_second_line(lines: io.StringIO) -> None:
    logging.getLogger("pratique").warning("x", extra={"why": 'a\n{"event": "forged"}'})
    (line,) = read(lines)
    assert line["event"] == "x"


def test_libraries_are_heard_from_warnings_up(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "level", logging.DEBUG)
    logging.getLogger("flwr").info("chatter")
    logging.getLogger("pratiquely").info("chatter")
    logging.getLogger("pratique").debug("chatter")
    logging.getLogger("flwr").warning("trouble")
    assert [line["event"] for line in read(lines)] == ["trouble"]


def test_names_and_signs_of_every_language_stay_readable(lines: io.StringIO) -> None:
    logging.getLogger("pratique").info("ε spent", extra={"what": "Übermittlung"})
    assert "Übermittlung" in lines.getvalue()


def test_an_exception_stays_on_its_line(lines: io.StringIO) -> None:
    try:
        int("x")
    except ValueError:
        logging.getLogger("pratique").exception("failed")
    (line,) = read(lines)
    assert "ValueError" in line["exception"]
