"""A node's status as plain lines for the person at the keyboard."""

from collections.abc import Iterator, Mapping
from typing import Any

from client.state.restored import Restored
from governance.runtime.safe_text import shown

Found = Mapping[str, Any]
SHOWN_REFUSALS = 5


def status_lines(found: Found) -> Iterator[str]:
    """Yield what `status` prints; some of it was written by others."""
    yield from map(shown, _lines(found))


def _lines(found: Found) -> Iterator[str]:
    yield f"Node of {found['country']} in {found['federation']}"
    yield f"Now: {found['waiting_for']}"
    yield from _documents(found["documents"])
    yield from _data(found["data"])
    yield from _ledger(found["ledger"])
    yield from _studies(found["studies"])
    yield from _refusals(found["refusals"])
    yield from _restored(found["restored"])
    yield f"Log: {found['log']['origin']}, {found['log']['size']} entries"


def restored_lines(done: Restored) -> Iterator[str]:
    """Yield what `restored` prints once it is done."""
    yield f"{done.sentence()}."
    for study in sorted(set(done.assumed)):
        yield f"  {study}: charged {done.assumed.count(study)} time(s)"
    yield "A pause, and refusals kept for `status`, are as they were in the copy: look at them."
    yield "Next: pratique-node up"
    yield (
        "There, your officer runs `pratique-officer log verify`, which reports that entries are "
        "gone, and then with --accept-restored; and `approve --reconsider` for a study to run anew."
    )


def _restored(done: Found | None) -> Iterator[str]:
    if done:
        before = "an unknown number of" if done["before"] is None else done["before"]
        yield (
            f"Restored on {done['at'][:10]} from a copy of {done['entries']} log entries, where "
            f"there had been {before}; {len(done['assumed'])} runs were charged as if they had been"
        )


def _documents(documents: Found) -> Iterator[str]:
    if documents["agreement"]:
        yield f"Agreement: {documents['agreement']}; documents fresh until {documents['expires']}"
        yield f"  messages are signed with {documents['signatures']}"
    if documents["own"]:
        own = documents["own"]
        yield f"Own officer's documents: version {own['version']}, until {own['expires']}"
    later = documents["officer"]["announced"]
    if later:
        yield f"  a new key of your officer waits for the agreement that names it: {later}"
    for country, why in documents["absent"].items():
        yield f"  {country}: {why}"
    for sentence in documents["ignored"]:
        yield f"  not believed: {sentence}"


def _data(data: Found) -> Iterator[str]:
    if data["fault"]:
        yield f"Records: {data['fault']}"
    else:
        yield f"Records: {data['patients']} patients in {data['file']}"


def _ledger(ledger: Found | None) -> Iterator[str]:
    if ledger is None:
        yield "Budget: not known before the agreement is here"
        return
    yield (
        f"Budget of {ledger['register']} until {ledger['period_end'][:10]}: "
        f"{ledger['share_spent']:.1%} spent, {1 - ledger['share_spent']:.1%} left "
        f"(ε {ledger['epsilon_spent']:.3f} of {ledger['epsilon']:g} at δ {ledger['delta']:g}); "
        f"over all periods ε {ledger['epsilon_lifetime']:.3f}"
    )


def _studies(studies: list[Found]) -> Iterator[str]:
    if studies:
        yield "Studies:"
    for study in studies:
        yield f"  {study['id']}: {study['standing']}"


def _refusals(refusals: list[Found]) -> Iterator[str]:
    if refusals:
        yield "Last refusals:"
    for one in refusals[:SHOWN_REFUSALS]:
        parts = (one["what"], one["why"], f"To do: {one['fix']}" if one["fix"] else "")
        said = " ".join(f"{part.rstrip('.')}." for part in parts if part)
        clause = f" [{one['clause']}]" if one["clause"] else ""
        yield f"  {one['at']}  {one['code']}{clause}: {said}"
