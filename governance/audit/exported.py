"""Export a log for verification, page by page: its lines, and the signed checkpoint over them.

A log may have millions of entries. So a daemon answers with a page at a time, and a reader goes
through the pages and keeps none of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.audit.checkpoint import open_checkpoint
from governance.audit.log import AuditLog
from governance.errors import LogFault
from protocols.wire.encoding import check_json

PAGE_ENTRIES = 2_000
PAGE_BYTES = 4 * 2**20
"""A page ends after so many entries, or after the entry that makes it longer than so many bytes."""

Ask = Callable[..., Any]
"""Asks a daemon: takes the name of a request and its parameters, returns the answer."""


class LogHead(BaseModel):
    """The signed checkpoint of a log, the number of entries it covers, and the key for it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    checkpoint: str
    verifier: str
    size: int = Field(ge=0)


class LogPage(BaseModel):
    """Exported lines that follow each other, from the index that was asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    entries: tuple[str, ...] = Field(min_length=1)


def export_head(log: AuditLog) -> dict[str, Any]:
    """Return the newest checkpoint as a daemon answers `log_head`. Raises LogFault."""
    checkpoint = log.checkpoint()
    size = open_checkpoint(checkpoint, log.verifier).size
    verifier = log.verifier.to_text()
    return LogHead(checkpoint=checkpoint.decode(), verifier=verifier, size=size).model_dump()


def export_page(log: AuditLog, start: int, end: int) -> dict[str, Any]:
    """Return a page of the lines start ≤ index < end, as a daemon answers `log_entries`."""
    lengths = 0

    def fits(line: bytes) -> bool:
        nonlocal lengths
        before, lengths = lengths, lengths + len(line)
        return before < PAGE_BYTES

    lines = takewhile(fits, log.export(max(0, start), min(end, start + PAGE_ENTRIES)))
    return {"entries": [line.decode() for line in lines]}


def fetch_head(ask: Ask) -> LogHead:
    """Return the head of a daemon's log. Raises LogFault if the answer is none."""
    try:
        return LogHead.model_validate(ask("log_head"))
    except ValidationError:
        raise _not_a_log() from None


def fetch_lines(ask: Ask, start: int, end: int) -> Iterator[bytes]:
    """Yield the exported lines start ≤ index < end of a daemon's log, fetched page by page.

    Raises LogFault if the daemon sends no lines.
    """
    while start < end:
        try:
            page = LogPage.model_validate(ask("log_entries", start=start, end=end))
        except ValidationError:
            raise _not_a_log() from None
        yield from (line.encode() for line in page.entries[: end - start])
        start += len(page.entries)


def entries_in(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield the entry in each exported line, not verified. Raises LogFault for a line without one.

    Of each entry, only the parts that every entry has are checked.
    """
    for line in lines:
        try:
            entry = json.loads(check_json(line))["entry"]
            texts = [type(entry[name]) for name in ("at", "kind", "actor", "outcome")]
            whole = {*texts} == {str} and type(entry["index"]) is int
        except (ValueError, KeyError, TypeError):
            raise _not_a_log() from None
        if not whole:
            raise _not_a_log()
        yield entry


def _not_a_log() -> LogFault:
    return LogFault(
        "The daemon sent no readable log",
        why="its reply does not have the form of a log",
        fix="use the command of the same version as the daemon",
    )
