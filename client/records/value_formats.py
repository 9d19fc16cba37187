"""How numbers and dates are written in a file of records, as its dictionary declares it.

Nothing is guessed: a text in another form is an error, even if it could be read in one way only.
"""

import re
from calendar import isleap
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from protocols.tasks.features import parse_number

BLANKS = str.maketrans({"\u00a0": " ", "\u202f": " "})
"""Blanks that separate thousands and do not break a line: they count as the blank."""
DATE_PARTS = {"YYYY": r"(?P<year>\d{4})", "MM": r"(?P<month>\d{2})", "DD": r"(?P<day>\d{2})"}
DATE_FORM = re.compile(r"(YYYY|MM|DD)([-./ ]?)(YYYY|MM|DD)([-./ ]?)(YYYY|MM|DD)")
DATE_LIKE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}.*|\d{1,2}([./-])\d{1,2}\1(\d{2}|\d{4})", re.ASCII)
COMMA_DECIMAL = re.compile(r"[+-]?\d+,\d+", re.ASCII)
POINT_GROUPS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?", re.ASCII)
COMMA_GROUPS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", re.ASCII)


@dataclass(frozen=True)
class NumberFormat:
    """The decimal sign, and the sign between groups of three digits (None: no groups)."""

    decimal: str = "."
    thousands: str | None = None

    def parse(self, text: str) -> float:
        """Return the number. Raises ValueError if it is written in another form."""
        if self.thousands is not None:
            text = self._ungrouped(text.translate(BLANKS))
        if self.decimal != ".":
            if "." in text:
                raise ValueError(f"expected a number with the decimal sign `{self.decimal}`")
            text = text.replace(self.decimal, ".")
        return parse_number(text)

    def _ungrouped(self, text: str) -> str:
        sign = self.thousands or ""
        if sign not in text:
            return text
        if not self._groups.fullmatch(text):
            raise ValueError(f"expected groups of three digits, separated by `{sign}`")
        return text.replace(sign, "")

    @cached_property
    def _groups(self) -> re.Pattern[str]:
        sign, decimal = re.escape(self.thousands or ""), re.escape(self.decimal)
        return re.compile(rf"[+-]?\d{{1,3}}({sign}\d{{3}})+({decimal}\d*)?", re.ASCII)


@dataclass(frozen=True)
class DateFormat:
    """The form of a date, such as `DD.MM.YYYY`."""

    form: str

    def __post_init__(self) -> None:
        parts = DATE_FORM.fullmatch(self.form)
        if parts is None or {parts[1], parts[3], parts[5]} != set(DATE_PARTS):
            raise ValueError(
                "a date format has YYYY, MM and DD once each, such as DD.MM.YYYY or YYYY-MM-DD"
            )

    def parse(self, text: str) -> float:
        """Return a date as its year with a fraction: 2 July 1990 is about 1990.5.

        Raises ValueError if it is written in another form, or is no date.
        """
        match = self._pattern.fullmatch(text)
        if match is None:
            raise ValueError(f"expected a date such as {self.form}")
        year, month, day = (int(match[name]) for name in ("year", "month", "day"))
        try:
            begun = date(year, month, day).timetuple().tm_yday - 1
        except ValueError:
            raise ValueError(f"expected a date such as {self.form}; there is no such day") from None
        return year + begun / (366 if isleap(year) else 365)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern = re.escape(self.form)
        for part, digits in DATE_PARTS.items():
            pattern = pattern.replace(part, digits)
        return re.compile(pattern, re.ASCII)


def how_to_read(text: str) -> str:
    """Return which setting would explain a text that is no number; empty if none would."""
    value = text.strip()
    if DATE_LIKE.fullmatch(value):
        return (
            "dates are read only with a form: give the feature `date_format`, such as "
            "`date_format: DD.MM.YYYY`, and it is the year with a fraction; or write an age or a "
            "year instead"
        )
    if POINT_GROUPS.fullmatch(value) and "," in value:
        return "set `decimal: ','` and `thousands: '.'` if the file's numbers are written so"
    if COMMA_GROUPS.fullmatch(value):
        groups = "set `thousands: ','` if the comma separates thousands"
        return f"{groups}, or {_DECIMAL_COMMA}" if COMMA_DECIMAL.fullmatch(value) else groups
    return _DECIMAL_COMMA if COMMA_DECIMAL.fullmatch(value) else ""


_DECIMAL_COMMA = (
    "set `decimal: ','` if the numbers of the whole file have a decimal comma; otherwise write "
    "them with a decimal point"
)
