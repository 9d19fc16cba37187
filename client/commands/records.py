"""Reads data, dictionary and opt-out list once, for a command of the operator."""

from dataclasses import dataclass

from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from client.records.quality_report import QualityReport
from client.records.unmatched import UnmatchedEntry, unmatched_entries
from client.settings import NodeSettings

SHOWN = 5
CONFIRM_FIX = (
    "you correct the list, or confirm each of these people as no patient of yours with "
    "`pratique-node opt-out confirm ID ...` (`--number N` for a national list); `pratique-node "
    "opt-out show` lists all"
)


@dataclass(frozen=True)
class ReadRecords:
    """What a command shows of the records; it holds no record."""

    report: QualityReport
    unmatched: tuple[UnmatchedEntry, ...]


def read_records(settings: NodeSettings) -> ReadRecords:
    """Read the files, and return the report and the opt-outs that match nobody.

    Raises RecordFault.
    """
    source = CsvSource(settings.data, read_dictionary(settings.dictionary))
    lines = read_opt_outs(settings.opt_out) if settings.opt_out else {}
    records = source.read(lines)
    unmatched = records.report.unknown_opt_outs
    return ReadRecords(
        records.report, unmatched_entries(unmatched, lines, records.ids) if unmatched else ()
    )


def listed(entries: tuple[UnmatchedEntry, ...], shown: int) -> str:
    """Return the first entries in one sentence."""
    more = f" and {len(entries) - shown} more" if len(entries) > shown else ""
    return ", ".join(entry.sentence() for entry in entries[:shown]) + more
