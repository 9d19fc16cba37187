"""Prints the status of a node as plain lines."""

from collections.abc import Iterator, Sequence

from client.state.decision_log import KeptRefusal
from client.state.incarnation import IF_COPIED
from client.state.opt_out_confirmations import unconfirmed_sentence
from client.state.restored import Restored
from client.status.model import (
    DataStatus,
    DocumentStatus,
    LedgerStatus,
    NodeStatus,
    StudyStatus,
)
from governance.runtime.safe_text import named, quoted
from governance.runtime.wording import counted, exact, percent, rounded_up
from keys.errors import PratiqueError

SHOWN_REFUSALS = 5
DISPUTED = f"another one has signed in with it, from a copy of this folder; {IF_COPIED}"

RESTORED_WARNING = (
    "If you have the newest copy of this node's folder, restore that, and do not continue.",
    "Every run that this node takes part in will end.",
    "Each study that your officer has permitted will be charged in full, unless it already is.",
    "To run a study again, your officer must approve it again. This cannot be undone.",
)


def status_lines(status: NodeStatus) -> Iterator[str]:
    """Yield the lines that `status` prints."""
    yield f"Node of {status.country} in {status.federation}"
    yield f"Now: {status.waiting_for}"
    if status.disputed:
        yield f"TWO MACHINES have this node's identity: {DISPUTED}"
    if status.clock:
        yield f"Clock: {status.clock}; set it, and synchronise it with NTP"
    yield from _document_lines(status.documents)
    yield from _data_lines(status.data)
    yield _ledger_line(status.ledger)
    yield from _study_lines(status.studies)
    yield from _refusal_lines(status.refusals)
    yield from _restored_lines(status.restored)
    yield f"Log: {status.log.origin}, {counted(status.log.size, 'entry', 'entries')}"


def restored_lines(outcome: Restored) -> Iterator[str]:
    """Yield the lines that `restored` prints at its end."""
    yield f"{outcome.sentence()}."
    for study in sorted(set(outcome.assumed)):
        yield f"  {study}: charged {counted(outcome.assumed.count(study), 'time')}"
    yield "A pause, and the refusals that `status` shows, are those of the copy: check them."
    yield "Next: pratique-node up"
    yield (
        "Your officer must then run `pratique-officer log verify`, which reports that entries are "
        "gone, and run it again with --accept-restored. To run a study again, your officer runs "
        "`pratique-officer approve STUDY --reconsider`."
    )


def _restored_lines(outcome: Restored | None) -> Iterator[str]:
    if outcome:
        before = "an unknown number" if outcome.before is None else outcome.before
        yield (
            f"Restored on {outcome.at[:10]} from a copy of "
            f"{counted(outcome.entries, 'log entry', 'log entries')}; the log had {before} before; "
            f"{outcome.charged}"
        )


def _document_lines(documents: DocumentStatus) -> Iterator[str]:
    if documents.agreement:
        yield f"Agreement: {quoted(documents.agreement)}; documents fresh until {documents.expires}"
        yield f"  messages are signed with {documents.signatures}"
    if documents.own:
        yield (
            f"Your officer's documents: version {documents.own.version}, "
            f"until {documents.own.expires}"
        )
    announced = documents.officer.announced
    if announced:
        yield f"  a new key of your officer waits for an agreement that names it: {announced}"
    for country, why in documents.absent.items():
        yield f"  {country}: {why}"
    for sentence in documents.ignored:
        yield f"  ignored: {sentence}"


def _data_lines(data: DataStatus) -> Iterator[str]:
    patients = f"{counted(data.patients or 0, 'patient')} in {data.file}"
    if data.fault and data.version:
        yield f"Records: {patients}, as they were loaded last; the file as it is now: {data.fault}"
    else:
        yield f"Records: {data.fault or patients}"
    if data.unmatched_opt_outs:
        yield (
            f"  FAIL: {unconfirmed_sentence(data.unmatched_opt_outs)}; run `pratique-node opt-out "
            "show`"
        )


def _ledger_line(ledger: LedgerStatus | None) -> str:
    if ledger is None:
        return "Budget: not known until the agreement is here"
    return (
        f"Budget of {ledger.register_name} until {ledger.period_end[:10]}: "
        f"{percent(ledger.share_spent)} of the budget spent, "
        f"{percent(1 - ledger.share_spent)} left (counted in Rényi terms; as ε alone "
        f"{rounded_up(ledger.epsilon_spent)} of {exact(ledger.epsilon)} "
        f"at δ = {exact(ledger.delta)}); "
        f"over all periods ε = {rounded_up(ledger.epsilon_lifetime)}"
    )


def _study_lines(studies: Sequence[StudyStatus]) -> Iterator[str]:
    if studies:
        yield "Studies:"
    for study in studies:
        yield f"  study {named(study.id)}: {study.standing}"


def _refusal_lines(refusals: Sequence[KeptRefusal]) -> Iterator[str]:
    if refusals:
        yield "Last refusals:"
    for refusal in refusals[:SHOWN_REFUSALS]:
        sentences = PratiqueError(refusal.what, why=refusal.why, fix=refusal.fix)
        clause = f" [{named(refusal.clause)}]" if refusal.clause else ""
        yield f"  {refusal.at}  {refusal.code}{clause}: {sentences}"
