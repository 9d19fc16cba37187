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


def rotate(office: OfficerSession, handing: Delivery, *, yes: bool) -> None:
    """Make a new document key and let the former one vouch for it, here and at the exchange.

    Given again while the new key waits, it hands everything over once more.
    """
    view = office.view_if_published()
    if view is None:
        raise OfficerFault(
            "There is no agreement yet in which a key could be replaced",
            why="the first agreement names the key that you were let in with",
            fix="wait until it is published, or enrol with a new folder",
        )
    _require_own(office, view)
    if office.identity.next_key is None:
        _introduce(office)
        office.terminal.confirm("Make a new key, vouched for by this one?", yes=yes)
        office.identity = office.identity.with_next(SigningKey.generate())
    remember_node(office, handing)
    published = view.country(office.country)
    result = sign_and_hand_over(office, lambda own: vouch(office, own), handing, published)
    _say_next(office)
    office.terminal.answer({"rotated": False, **_keys(office), **result})


def _require_own(office: OfficerSession, view: TrustedView) -> None:
    party = view.agreement.party(office.country)
    if party is None or party.officer_key != office.settings.document_key:
        raise OfficerFault(
            "The agreement in force names another key for your country than yours",
            why=f"yours is {office.settings.verify_key.fingerprint}",
            fix="compare fingerprints with the coordinator by voice; nothing was changed",
        )


def _introduce(office: OfficerSession) -> None:
    office.terminal.heading(f"A new document key for {office.country}")
    office.terminal.facts({"key now": office.settings.verify_key.fingerprint})
    office.terminal.say(
        "Use this to replace a key that is old, or that another may have copied. Whoever copied "
        "it can do the same: call the coordinator and the other officers at once."
    )


def vouch(office: OfficerSession, documents: OfficerDocuments) -> None:
    """Add the statement in which the key in force signs the one to come."""
    new = office.identity.next_key
    history = documents.history()
    if new is None or (history and history.newest == new.public.to_text()):
        return
    made = extended(history, office.country, office.identity.key, new, office.now())
    documents.set_history(made)


def _say_next(office: OfficerSession) -> None:
    office.terminal.facts(_keys(office))
    office.terminal.say("Your former key signs until the new one is in force.")
    office.terminal.say(
        "Next: the coordinator lays the agreement out with the new key. Sign it with "
        "`pratique-officer sign`, and read the new fingerprint out to the other officers."
    )


def _keys(office: OfficerSession) -> dict[str, str]:
    new = office.identity.next_key
    return {
        "key": office.settings.verify_key.fingerprint,
        "new key": new.public.fingerprint if new else "",
    }


def waiting_key(office: OfficerSession, view: TrustedView | None) -> str:
    """Return in words what a new key of this officer waits for; nothing where there is none."""
    new = office.identity.next_key
    if new is None:
        return ""
    vouched = view.country(office.country) if view else None
    if vouched is None or vouched.next_key != new.public.to_text():
        return "Your new key has not reached the exchange"
    return f"Your new key {new.public.fingerprint} waits: {WAITS}"
