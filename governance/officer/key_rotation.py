"""A new document key for the country: made, vouched for by the former one, and put in force.

Nothing is taken back on the way: until the agreement names the new key the former one signs as
before, and from then on the new one does. Whatever is interrupted goes on where it was when the
command is given again: the new key lies in the key store before anything names it.
"""

from governance.documents.rotation import extended
from governance.officer.delivery import Delivery, remember_node, sign_and_hand_over
from governance.officer.errors import OfficerFault
from governance.officer.session import OfficerSession
from governance.trust.signing import OfficerDocuments
from governance.trust.view import TrustedView
from keys.identity import SigningKey

WAITS = "the agreement names it once the countries have signed that"


def rotate(session: OfficerSession, handing: Delivery, *, yes: bool) -> None:
    """Make a new document key and let the former one vouch for it, here and at the exchange.

    Given again while the new key waits, it hands everything over once more.
    """
    view = session.view_if_published()
    if view is None:
        raise OfficerFault(
            "There is no agreement yet in which a key could be replaced",
            why="the first agreement names the key that you were admitted with",
            fix="wait until it is published, or enrol with a new folder",
        )
    _require_own(session, view)
    if session.identity.next_key is None:
        _introduce(session)
        session.terminal.confirm("Make a new key, vouched for by this one?", yes=yes)
        session.identity = session.identity.with_next(SigningKey.generate())
    remember_node(session, handing)
    published = view.country(session.country)
    result = sign_and_hand_over(session, lambda own: vouch(session, own), handing, published)
    _say_next(session)
    session.terminal.answer({"rotated": False, **_keys(session), **result})


def _require_own(session: OfficerSession, view: TrustedView) -> None:
    party = view.agreement.party(session.country)
    if party is None or party.officer_key != session.settings.document_key:
        raise OfficerFault(
            "The agreement in force names another key for your country than yours",
            why=f"yours is {session.settings.verify_key.fingerprint}",
            fix="compare fingerprints with the coordinator by voice; nothing was changed",
        )


def _introduce(session: OfficerSession) -> None:
    session.terminal.heading(f"A new document key for {session.country}")
    session.terminal.facts({"key now": session.settings.verify_key.fingerprint})
    session.terminal.say(
        "Use this to replace a key that is old, or that another may have copied. Whoever copied "
        "it can do the same: call the coordinator and the other officers at once."
    )


def vouch(session: OfficerSession, documents: OfficerDocuments) -> None:
    """Add the statement in which the key in force signs the one to come."""
    new = session.identity.next_key
    history = documents.history()
    if new is None or (history and history.newest == new.public.to_text()):
        return
    made = extended(history, session.country, session.identity.key, new, session.now())
    documents.set_history(made)


def _say_next(session: OfficerSession) -> None:
    session.terminal.facts(_keys(session))
    session.terminal.say("Your former key signs until the new one is in force.")
    session.terminal.say(
        "Next: the coordinator lays the agreement out with the new key. Sign it with "
        "`pratique-officer sign`, and read the new fingerprint out to the other officers."
    )


def _keys(session: OfficerSession) -> dict[str, str]:
    new = session.identity.next_key
    return {
        "key": session.settings.verify_key.fingerprint,
        "new key": new.public.fingerprint if new else "",
    }


def waiting_key(session: OfficerSession, view: TrustedView | None) -> str:
    """Return in words what a new key of this officer waits for; nothing if there is none."""
    new = session.identity.next_key
    if new is None:
        return ""
    vouched = view.country(session.country) if view else None
    if vouched is None or vouched.next_key != new.public.to_text():
        return "Your new key has not reached the exchange"
    return f"Your new key {new.public.fingerprint} waits: {WAITS}"
