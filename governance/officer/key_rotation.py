"""Replace the country's document key: make a new one, sign it with the former one, publish it.

The former key signs documents until the agreement names the new one; from then on the new key
signs. An interrupted rotation continues when the command is run again, because the new key is in
the key store before any document names it.
"""

from governance.documents.rotation import extended
from governance.officer.delivery import Delivery, sign_and_hand_over, use_node
from governance.officer.errors import OfficerFault
from governance.officer.session import OfficerSession
from governance.trust.signing import OfficerDocuments
from governance.trust.view import TrustedView
from keys.identity import SigningKey

WAITS = "it is in force once the countries have signed an agreement that names it"


def rotate(session: OfficerSession, delivery: Delivery, *, yes: bool) -> None:
    """Make a new document key, sign it with the former one, and deliver it to node and exchange.

    If run again while the new key waits, it delivers everything again.
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
        session.terminal.confirm("Make a new key, and sign it with this one?", yes=yes)
        session.identity = session.identity.with_next(SigningKey.generate())
    use_node(session, delivery)
    published = view.country(session.country)
    result = sign_and_hand_over(session, lambda own: vouch(session, own), delivery, published)
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
        "Use this to replace a key that is old, or that somebody may have copied. Whoever copied "
        "it can do the same: call the coordinator and the other officers at once."
    )


def vouch(session: OfficerSession, documents: OfficerDocuments) -> None:
    """Add the statement in which the key in force signs the next one."""
    new = session.identity.next_key
    history = documents.history()
    if new is None or (history and history.newest == new.public.to_text()):
        return
    longer = extended(history, session.country, session.identity.key, new, session.now())
    documents.set_history(longer)


def _say_next(session: OfficerSession) -> None:
    session.terminal.facts(_keys(session))
    session.terminal.say("Your former key signs until the new one is in force.")
    session.terminal.say(
        "Next: the coordinator drafts an agreement that names the new key. Sign it with "
        "`pratique-officer sign`, and read the new fingerprint out to the other officers."
    )


def _keys(session: OfficerSession) -> dict[str, str]:
    new = session.identity.next_key
    return {
        "key": session.settings.verify_key.fingerprint,
        "new key": new.public.fingerprint if new else "",
    }


def waiting_key(session: OfficerSession, view: TrustedView | None) -> str:
    """Return in words what a new key of this officer waits for; empty if there is none."""
    new = session.identity.next_key
    if new is None:
        return ""
    published = view.country(session.country) if view else None
    if published is None or published.next_key != new.public.to_text():
        return "Your new key has not reached the exchange"
    return f"Your new key {new.public.fingerprint} waits: {WAITS}"
