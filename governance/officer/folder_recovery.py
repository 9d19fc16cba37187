"""`pratique-officer renew --take-over`: update an officer's folder that is an old copy."""

from governance.officer.commands_sign import view_if_usable
from governance.officer.delivery import Delivery, take_over_and_hand_over, use_node
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


def renew_taking_over(session: OfficerSession, delivery: Delivery) -> None:
    """Take over what the exchange shows or showed for this country, once the officer agrees."""
    seen = seen_or_kept(session, view_if_usable(session))
    if seen is None:
        raise OfficerFault(
            "There is nothing to take over",
            why="the exchange has shown nothing that this folder did not sign",
            fix="run `pratique-officer renew` to sign your documents as they stand",
        )
    _show(session, seen)
    session.terminal.insist(QUESTION)
    use_node(session, delivery)
    result = take_over_and_hand_over(session, seen, delivery)
    session.terminal.answer({"taken_over": seen.version, **result})


def seen_or_kept(session: OfficerSession, view: TrustedView | None) -> ForeignDocuments | None:
    """Return what is shown now; else what was shown before this folder signed a higher version."""
    published = view.country(session.country) if view else None
    now = foreign(session.own(), session.documents.version, published)
    return now or kept(session.home.foreign_file)


def _show(session: OfficerSession, seen: ForeignDocuments) -> None:
    session.terminal.heading(f"Version {seen.version}, which this folder did not sign, contains")
    for name in names(session.own(), seen) or ("nothing that is not in this folder",):
        session.terminal.say(f"  {name}")
    session.terminal.warn(
        "SOMEBODY WITH A COPY OF YOUR KEY CAN HAVE SIGNED THIS: if you did not, answer no, run "
        "`pratique-officer rotate`, and call the coordinator and the other officers"
    )
