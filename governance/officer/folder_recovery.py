"""`pratique-officer renew --take-over`: the folder is an old copy, and its officer says so."""

from governance.officer.commands_sign import view_if_usable
from governance.officer.delivery import Delivery, remember_node, take_over_and_hand_over
from governance.officer.errors import OfficerFault
from governance.officer.foreign_documents import (
    ForeignDocuments,
    foreign,
    kept,
    names,
)
from governance.officer.session import OfficerSession
from governance.trust.view import TrustedView

QUESTION = "Was your folder restored from an old copy, and did you sign all of this yourself?"


def renew_taking_over(office: OfficerSession, handing: Delivery) -> None:
    """Take over what the exchange shows, or showed, of this country; once the officer agrees."""
    seen = seen_or_kept(office, view_if_usable(office))
    if seen is None:
        raise OfficerFault(
            "There is nothing to take over",
            why="the exchange has shown nothing that this folder did not sign",
            fix="run `pratique-officer renew` to sign your documents as they stand",
        )
    _show(office, seen)
    office.terminal.insist(QUESTION)
    remember_node(office, handing)
    result = take_over_and_hand_over(office, seen, handing)
    office.terminal.answer({"taken_over": seen.version, **result})


def seen_or_kept(office: OfficerSession, view: TrustedView | None) -> ForeignDocuments | None:
    """Return what is shown now; else what was shown before this folder signed above it."""
    published = view.country(office.country) if view else None
    now = foreign(office.own(), office.documents.version, published)
    return now or kept(office.home.foreign_file)


def _show(office: OfficerSession, seen: ForeignDocuments) -> None:
    office.terminal.heading(f"Version {seen.version}, which this folder did not sign, holds")
    for name in names(office.own(), seen) or ("nothing that is not in this folder",):
        office.terminal.say(f"  {name}")
    office.terminal.warn(
        "WHOEVER COPIED YOUR KEY CAN HAVE SIGNED THIS: if you miss no work of yours, answer no, "
        "run `pratique-officer rotate`, and call the coordinator and the other officers"
    )
