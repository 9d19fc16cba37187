"""Reads the country of each row of a file to predict, for a model with a baseline a country.

A country that did not train the model, and an empty value, are no errors: the model has a rule for
them, and a note names the lines.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from governance.runtime.safe_text import in_backticks
from governance.runtime.wording import counted, lines_text
from protocols.tasks import Feature, Task
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import COUNTRY
from protocols.tasks.features import by_name

Read = Callable[[str], float]
Rows = Sequence[tuple[int, Mapping[str, str]]]
"""For each row, its line number and its texts by feature."""
CODE = re.compile(r"[A-Z]{2}", re.ASCII)
MISSING = ("", "?")


def country_reader(features: Sequence[Feature], baselines: CountryBaselines) -> Read:
    """Return what reads a country: its level, or NaN if the model's rule for others applies.

    The reader raises ValueError for a text that is no country code.
    """
    levels = by_name(features)[COUNTRY].levels

    def read(text: str) -> float:
        code = text.strip()
        if code in baselines.countries:
            return float(levels.index(code))
        if code in MISSING or CODE.fullmatch(code):
            return math.nan
        raise ValueError("expected the code of a country, such as DE, or nothing")

    return read


def unseen_countries(task: Task, baselines: CountryBaselines, rows: Rows) -> Iterator[str]:
    """Yield a note for each country of the file that did not train the model, and for none."""
    lines: dict[str, list[int]] = {}
    for line, fields in rows:
        code = fields[COUNTRY].strip()
        if code not in baselines.countries:
            lines.setdefault("" if code in MISSING else code, []).append(line)
    for code, on in lines.items():
        why = f"the model was not trained in {in_backticks(code)}" if code else "it is empty"
        yield (
            f"column `{COUNTRY}`: {why}, so the model uses {baselines.rule(task)}; "
            f"{counted(len(on), 'row')}, {lines_text(on)}"
        )
