"""Numbers and nouns in sentences: singular and plural, articles, percentages."""

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Context

VOWELS = "aeiou"
SHOWN_DECIMALS = 3
COST_DIGITS = 4
SHOWN_LINES = 10
_UPWARDS = Context(prec=COST_DIGITS, rounding=ROUND_CEILING)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the right form: `1 patient`, `2 patients`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def exact(number: float) -> str:
    """Return the shortest decimal that reads back as this very number: `0.1`, `1e-05`, `120`."""
    return repr(number).removesuffix(".0")


def interval_text(estimate: Mapping[str, float], decimals: int = SHOWN_DECIMALS) -> str:
    """Return a figure and its interval with these decimals, the interval rounded outwards."""
    unit = 10**decimals
    low = math.floor(round(estimate["low"] * unit, SHOWN_DECIMALS)) / unit
    high = math.ceil(round(estimate["high"] * unit, SHOWN_DECIMALS)) / unit
    value, lower, upper = (
        _unsigned_zero(each, decimals) for each in (estimate["value"], low, high)
    )
    return f"{value}  [{lower}, {upper}]"


def _unsigned_zero(number: float, decimals: int) -> str:
    """Return a number with these decimals; zero without the minus of a rounded small number."""
    return f"{round(number, decimals) + 0.0:.{decimals}f}"


def rounded_up(number: float) -> str:
    """Return a number with at most four digits, rounded up: a cost is never shown as less."""
    return exact(float(_UPWARDS.create_decimal(exact(number))))


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article: `a study`, `an agreement`."""
    return f"{'an' if noun[:1].lower() in VOWELS else 'a'} {noun}"


def percent(part: float, whole: float = 1) -> str:
    """Return a part of a whole in per cent: `3.4 %`."""
    return f"{100 * part / whole:.1f} %"


def without_country(sentence: str, country: str) -> str:
    """Return a sentence without the country at its beginning, to be shown after its name."""
    return sentence.removeprefix(f"{country} ")


def lines_text(lines: Sequence[int]) -> str:
    """Return the numbers of lines of a file in words, the first ones if there are many."""
    noun = "line" if len(lines) == 1 else "lines"
    more = ", …" if len(lines) > SHOWN_LINES else ""
    return f"{noun} {', '.join(map(str, lines[:SHOWN_LINES]))}{more}"
