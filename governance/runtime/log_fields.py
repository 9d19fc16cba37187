"""What a log line may hold: the list of its fields, each with the kind of value that it allows.

A log is read by people who may not read records, and copied to machines that may not hold them.
So only what is listed is logged: a field that is not listed, or a value that is not of its field's
kind, is left out, and its name is noted. Errors are shown by their type and by the places in our
own code that they passed, never by their text or their values.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from governance.runtime.safe_text import escaped

Value = str | int | float | bool | list[str]
Kind = Callable[[object], Value | None]
"""Returns a value as the log shows it; None if it is not of the kind."""

LONGEST_TEXT = 400
LONGEST_NAME = 64
MAX_DROPPED = 8
MAX_FRAMES = 16
LONGEST_CHAIN = 4
LARGEST_NUMBER = 2**63
ROOMS = ("keys", "protocols", "governance", "client", "server")
_ROOT = Path(__file__).parents[2]
_WORD = re.compile(r"[A-Za-z0-9_.:/@+\[\]-]{1,128}")


def plain(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return text as one line that is safe to show: cut, and what shows nothing is escaped."""
    return escaped(text[:longest]) + ("" if len(text) <= longest else "…")


def word(value: object) -> str | None:
    """Admit a code, an id, a country, an address: no spaces, no line ends, nothing long."""
    text = str(value) if isinstance(value, str) else ""
    return text if _WORD.fullmatch(text) else None


def sentence(value: object) -> str | None:
    """Admit a sentence of this program, cut to a length."""
    return plain(str(value)) if isinstance(value, str) else None


def whole(value: object) -> int | None:
    """Admit a whole number."""
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER
    return int(value) if fits and isinstance(value, int) else None


def seconds(value: object) -> float | None:
    """Admit a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
        return None
    return round(float(value), 3) if math.isfinite(value) else None


def moment(value: object) -> str | None:
    """Admit an aware time, shown in UTC."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


FIELDS: Mapping[str, Kind] = {
    "address": word,
    "attempt": whole,
    "attempts_left": whole,
    "code": word,
    "count": whole,
    "country": word,
    "expires": moment,
    "federation": word,
    "needed": whole,
    "path": sentence,
    "percent": whole,
    "phase": word,
    "process": word,
    "role": word,
    "round": whole,
    "run": word,
    "seconds": seconds,
    "study": word,
    "until": word,
    "version": whole,
    "what": sentence,
    "why": sentence,
}
"""The fields that a log line may have beside time, level, logger and event.

`what` and `why` are sentences of this program. The sentences of a RecordFault may quote a record
and are never logged; a test runs a node on planted records and looks for them in every line.
"""


def admit(fields: Mapping[str, object]) -> dict[str, Value]:
    """Return the fields that may be logged; `dropped` names those that may not."""
    given = {name: value for name, value in fields.items() if value is not None}
    listed = {name: FIELDS[name](value) for name, value in given.items() if name in FIELDS}
    admitted: dict[str, Value] = {name: v for name, v in listed.items() if v is not None}
    dropped = sorted(plain(name, LONGEST_NAME) for name in given if name not in admitted)
    return {**admitted, "dropped": dropped[:MAX_DROPPED]} if dropped else admitted


def error_fields(error: BaseException) -> dict[str, Value]:
    """Return an error's types, outermost first, and the lines of our code that it passed."""
    chain = list(_chain(error))[:LONGEST_CHAIN]
    frames = [frame for link in chain for frame in _frames(link.__traceback__)]
    kinds = " from ".join(plain(type(link).__name__, LONGEST_NAME) for link in chain)
    shown: dict[str, Value] = {"exception": kinds}
    return {**shown, "frames": frames[-MAX_FRAMES:]} if frames else shown


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if name := project_path(code.co_filename):
            yield f"{name}:{trace.tb_lineno} {plain(code.co_name, LONGEST_NAME)}"
        trace = trace.tb_next


def project_path(file: str) -> str:
    """Return the path of a file within the project; empty for any other file."""
    path = Path(file)
    inside = path.is_relative_to(_ROOT) and path.relative_to(_ROOT)
    return inside.as_posix() if inside and inside.parts[0] in ROOMS else ""
