"""Logs of daemons: JSON lines, listed fields only, no text of errors or library arguments."""

import ast
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.runtime.log_fields import FIELDS, ROOMS
from governance.runtime.logs import FOREIGN_EVENT, LONGEST_LINE, LineFormatter
from tests.support.captured_logs import Configure, Lines

ROOT = Path(__file__).parents[4]
SECRET = "Kowalski 1961-04-12"


def test_a_line_is_one_json_object_with_its_fields(lines: Lines) -> None:
    logging.getLogger("pratique.run").info("round", extra={"country": "AT", "round": 3})
    line = lines.only()
    assert (line["event"], line["country"], line["round"]) == ("round", "AT", 3)
    assert (line["level"], line["logger"]) == ("info", "pratique.run")
    assert line["timestamp"].endswith("Z")
    assert "dropped" not in line


@pytest.mark.parametrize("field", ["patient", "value", "record", "passphrase", "token", "fields"])
def test_a_field_that_is_not_listed_is_dropped_and_named(lines: Lines, field: str) -> None:
    assert field not in FIELDS
    logging.getLogger("pratique.door").info("sum", extra={field: SECRET})
    assert "Kowalski" not in lines.getvalue()
    assert lines.only()["dropped"] == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("country", "Jan Kowalski"),
        ("run", "a\nb"),
        ("round", "7"),
        ("round", True),
        pytest.param("round", 10**5000, id="huge"),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("seconds", "1"),
        ("what", ["a", "list"]),
        ("why", {"a": "mapping"}),
        ("why", ValueError(SECRET)),
        ("expires", "tomorrow"),
        ("code", "x" * 200),
    ],
)
def test_a_value_of_another_kind_is_dropped(lines: Lines, field: str, value: object) -> None:
    logging.getLogger("pratique").info("x", extra={field: value})
    line = lines.only()
    assert field not in line
    assert line["dropped"] == [field]


def test_a_field_without_a_value_is_left_out_silently(lines: Lines) -> None:
    logging.getLogger("pratique").info("x", extra={"run": None})
    assert not {"run", "dropped"} & set(lines.only())


def test_a_line_end_in_a_field_makes_no_second_line(lines: Lines) -> None:
    for end in ("\n", "\r", "\u2028", "\u2029", "\x85", "\x1e"):
        logging.getLogger("pratique").warning("x", extra={"why": f'a{end}{{"event": "forged"}}'})
    assert [line["event"] for line in lines.read_all()] == ["x"] * 6


def test_terminal_control_characters_are_escaped(lines: Lines) -> None:
    logging.getLogger("pratique").warning("x", extra={"why": "\x1b[2J \u202egnirts \ud800"})
    assert "\x1b" not in lines.getvalue()
    assert lines.only()["why"] == "\\u{1b}[2J \\u{202e}gnirts \\u{d800}"


def test_arguments_never_reach_the_log(lines: Lines) -> None:
    logging.getLogger("pratique").info("patient %s", SECRET)
    logging.getLogger("sqlalchemy").warning("row %s", SECRET)
    assert [line["event"] for line in lines.read_all()] == ["patient %s", "row %s"]


def test_a_library_s_line_is_logged_by_location_only_if_its_text_may_hold_values(
    lines: Lines,
) -> None:
    logging.getLogger("alembic").error(f"bad value {SECRET}")  # noqa: G004 (as a library could do)
    line = lines.only()
    assert line["event"] == FOREIGN_EVENT
    assert line["place"].startswith("test_logs.py:")
    assert "Kowalski" not in lines.getvalue()


def test_libraries_are_logged_from_warnings_up(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tuf"), "level", logging.DEBUG)
    logging.getLogger("tuf").info("chatter")
    logging.getLogger("pratiquely").info("chatter")
    logging.getLogger("pratique").debug("chatter")
    logging.getLogger("tuf").warning("trouble %d", 1)
    assert [line["event"] for line in lines.read_all()] == ["trouble %d"]


def test_flower_s_own_handlers_get_nothing(lines: Lines) -> None:
    flower, seen = logging.getLogger("flwr"), Lines()
    handler = logging.StreamHandler(seen)
    flower.addHandler(handler)
    try:
        flower.warning("no reply from %s", SECRET)
        flower.info("chatter")
    finally:
        flower.removeHandler(handler)
    assert seen.getvalue() == ""
    assert lines.only()["event"] == "no reply from %s"


def test_names_and_signs_of_every_language_stay_readable(lines: Lines) -> None:
    logging.getLogger("pratique").info("ε spent", extra={"what": "Übermittlung"})
    assert "Übermittlung" in lines.getvalue()


def fails(text: str) -> None:
    """Fail in the project's code, with a value in the error."""
    try:
        int(text)
    except ValueError as error:
        raise RuntimeError(text) from error


def test_an_error_is_logged_by_types_and_locations_without_values(lines: Lines) -> None:
    from protocols.wire.encoding import digest  # noqa: PLC0415

    try:
        digest(SECRET)  # type: ignore[arg-type]
    except TypeError:
        logging.getLogger("pratique").exception("failed")
    line = lines.only()
    assert line["exception"] == "TypeError"
    assert any(frame.startswith("protocols/wire/encoding.py:") for frame in line["frames"])
    assert "Kowalski" not in lines.getvalue()


def test_an_error_s_cause_is_named(lines: Lines) -> None:
    try:
        fails(SECRET)
    except RuntimeError:
        logging.getLogger("pratique").exception("failed")
    assert lines.only()["exception"] == "RuntimeError from ValueError"
    assert "Kowalski" not in lines.getvalue()


def test_an_uncaught_error_is_logged_without_its_text(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = threading.Thread(target=fails, args=(SECRET,))
    thread.start()
    thread.join()
    try:
        fails(SECRET)
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert [line["exception"] for line in lines.read_all()] == ["RuntimeError from ValueError"] * 2
    assert "Kowalski" not in lines.getvalue() + capsys.readouterr().err


def test_warnings_are_logged_without_their_text(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(SECRET, stacklevel=1)
    assert lines.only()["event"] == FOREIGN_EVENT
    assert "Kowalski" not in lines.getvalue() + capsys.readouterr().err


def test_a_line_is_never_longer_than_its_bound(lines: Lines) -> None:
    wild = dict.fromkeys(("what", "why", "path"), "\U000e0001" * 5000)
    logging.getLogger("pratique." + "x" * 500).error("\U000e0001" * 5000, extra=wild)
    assert len(lines.getvalue().encode()) <= LONGEST_LINE
    assert lines.only()["dropped"]


def test_lines_on_a_terminal_are_readable_text(configured: Configure) -> None:
    lines = Lines()
    lines.isatty = lambda: True  # type: ignore[method-assign]
    configured(stream=lines)
    logging.getLogger("pratique").info("connected", extra={"country": "AT", "patient": SECRET})
    assert "connected" in lines.getvalue()
    assert "Kowalski" not in lines.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines.only()


def test_a_broken_message_is_dropped_and_not_printed(
    lines: Lines, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise ValueError(SECRET)

    monkeypatch.setattr(LineFormatter, "format", broken)
    logging.getLogger("pratique").info("x", extra={"what": SECRET})
    assert "Kowalski" not in lines.getvalue() + capsys.readouterr().err


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a logger in the five packages."""
    levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    for file in (f for room in ROOMS for f in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in levels and ast.unparse(node.func.value) == "_log":
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def test_every_message_in_the_code_is_a_constant_without_arguments() -> None:
    log_calls = list(calls())
    assert len(log_calls) > 10
    for where, call in log_calls:
        assert len(call.args) == 1, where
        assert isinstance(call.args[0], ast.Constant), where


def test_every_field_that_the_code_logs_is_listed() -> None:
    for where, call in calls():
        for extra in (keyword.value for keyword in call.keywords if keyword.arg == "extra"):
            if isinstance(extra, ast.Dict):
                names = {ast.literal_eval(key) for key in extra.keys if key is not None}
                assert names <= set(FIELDS), where
