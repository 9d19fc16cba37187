"""Finds ids that an entry of the opt-out list, which matches nobody, may have meant."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from governance.runtime.safe_text import in_backticks

SHOWN = 20


@dataclass(frozen=True)
class UnmatchedEntry:
    """An entry that matches nobody, its line, and a similar id of the records, if there is one."""

    entry: str
    line: int
    similar: str = ""

    def sentence(self) -> str:
        """Return the entry with its line and the similar id."""
        hint = f", but the records have {in_backticks(self.similar)}" if self.similar else ""
        return f"{in_backticks(self.entry)} (line {self.line}){hint}"


def unmatched_entries(
    entries: Sequence[str], lines: Mapping[str, int], ids: Sequence[str]
) -> tuple[UnmatchedEntry, ...]:
    """Return the entries in the order of the list, each with an id that differs in form only."""
    listed = sorted(entries, key=lambda entry: lines.get(entry, 0))
    wanted = {loose(entry) for entry in listed[:SHOWN]}
    similar = {form: patient for patient in ids if (form := loose(patient)) in wanted}
    return tuple(
        UnmatchedEntry(entry, lines.get(entry, 0), similar.get(loose(entry), ""))
        for entry in listed
    )


def loose(text: str) -> str:
    """Return what remains of an id without zeros before it, capitals, signs and marks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(sign for sign in plain if sign.isalnum()).lstrip("0")
