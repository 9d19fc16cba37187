"""Sign the draft of an agreement, the node's keys and the national policy; renew documents."""

from collections.abc import Sequence
from pathlib import Path

from governance.cedar.engine import check_national
from governance.cedar.texts import BASE_POLICY
from governance.documents.models import MAX_BYTES
from governance.documents.permit import NodeKeys
from governance.documents.reading import read_file
from governance.errors import DocumentFault
from governance.officer.agreement_text import (
    agreement_in_words,
    changes,
    identity_in_words,
    spoken_digest,
)
from governance.officer.delivery import Delivery, sign_and_hand_over, use_node
from governance.officer.errors import OfficerFault
from governance.officer.session import OfficerSession
from governance.runtime.safe_text import escaped
from governance.trust.bundle import CountryDocuments
from governance.trust.ceremony import Draft, sign_draft
from governance.trust.view import TrustedView
from keys.errors import PratiqueError, reason_of
from keys.identity import SigningKey, VerifyKey
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.encoding import digest

DRAFT = "draft"
POLICY_SUFFIX = ".cedar"


def sign_waiting_draft(
    session: OfficerSession, *, lost_keys: Sequence[str] = (), yes: bool
) -> None:
    """Show the draft at the exchange, and sign it once the officer agrees.

    `lost_keys` are the countries whose new key is accepted without the former key's signature.
    """
    draft = waiting_draft(session)
    if draft is None:
        session.terminal.say("No agreement waits for your signature.")
        session.terminal.answer({"signed": False, "waiting": False})
        return
    require_own_key(session, draft)
    if session.trust.has_signed(draft):
        session.terminal.say("You have signed this draft; it waits for other countries.")
        session.terminal.answer({"signed": True, "draft": draft.digest})
        return
    view = session.view_if_published()
    if view is not None:
        require_vouched_keys(session, draft, view, lost_keys)
    show_draft(session, draft, view)
    session.terminal.confirm("Sign this agreement for your country?", yes=yes)
    _sign(session, draft, view)


def waiting_draft(session: OfficerSession) -> Draft | None:
    """Return the draft at the exchange, if any. Raises DocumentFault if it is not a valid draft."""
    data = session.exchange.fetch(DRAFT)
    return None if data is None else Draft.from_canonical(data)


def require_own_key(session: OfficerSession, draft: Draft) -> None:
    """Raise OfficerFault unless the draft names this officer's key for this country."""
    party = draft.agreement.party(session.country)
    if party is None:
        raise OfficerFault(
            f"The draft that waits does not name {session.country}",
            why=f"its parties are {', '.join(draft.agreement.countries)}",
            fix="ask the coordinator; do not sign it",
        )
    if party.officer_key not in {key.public.to_text() for key in session.identity.keys}:
        theirs = VerifyKey.from_text(party.officer_key).fingerprint
        raise OfficerFault(
            f"The draft names another document key for {session.country} than yours",
            why=f"it names {theirs}; yours is {session.settings.verify_key.fingerprint}",
            fix="do not sign it; compare the fingerprints with the coordinator by voice",
        )


def require_vouched_keys(
    session: OfficerSession, draft: Draft, view: TrustedView, lost_keys: Sequence[str]
) -> None:
    """Raise OfficerFault if the draft gives a country a key that its former key did not sign.

    A coordinator could have inserted its own key. `lost_keys` are countries whose officers have
    confirmed by voice that the former key is lost.
    """
    for party in draft.agreement.parties:
        former, published = view.agreement.party(party.country), view.country(party.country)
        if (
            former is None
            or former.officer_key == party.officer_key
            or (party.country == session.country)
        ):
            continue
        history = published.history if published else None
        if history and history.proves_succession(former.officer_key, party.officer_key):
            continue
        if party.country not in lost_keys:
            raise _unvouched(party.country, party.officer_key)


def _unvouched(country: str, key: str) -> OfficerFault:
    return OfficerFault(
        f"The draft gives {country} a new key that its former key has not signed",
        why=f"the new one is {VerifyKey.from_text(key).fingerprint}; anyone may have made it",
        fix=f"call the officer of {country}; only if the former key is lost and the fingerprint is "
        f"theirs, sign with --lost-key {country}",
    )


def show_draft(session: OfficerSession, draft: Draft, view: TrustedView | None) -> None:
    """Explain in plain words what the draft would bind the country to."""
    terminal, agreement = session.terminal, draft.agreement
    for part in agreement_in_words(agreement, session.country):
        terminal.heading(part.heading)
        terminal.facts(part.facts)
    if agreement.policy != BASE_POLICY:
        terminal.heading("Its policy, which is not the standard one")
        terminal.verbatim(agreement.policy)
    if view is not None:
        terminal.heading("What it changes in the agreement in force")
        terminal.facts(changes(view.agreement, agreement) or {"nothing": "only the version"})
    terminal.heading("Compare by voice with the officers of the other countries")
    terminal.facts({"this draft": spoken_digest(draft.digest), "its version": str(draft.version)})


def _sign(session: OfficerSession, draft: Draft, view: TrustedView | None) -> None:
    previous = None if view is None else newest_root(session, view)
    keys = _keys_for(session, draft)
    signatures = sign_draft(draft, *keys, previous_root=previous, now=session.now())
    session.trust.keep_draft(draft)
    session.exchange.submit(SubmitRequest.DRAFT_SIGNATURES, signatures)
    session.trust.mark_signed(draft)
    session.terminal.say()
    session.terminal.say("Signed and submitted.")
    session.terminal.say(
        "Your folder has pinned the root of trust of this draft: it accepts documents only if "
        "this root, or a later one that the countries signed, leads to them."
    )
    session.terminal.say(
        "Next: the other countries sign; then `pratique-officer inbox` shows more."
    )
    session.terminal.answer(
        {"signed": True, "draft": draft.digest, "spoken": spoken_digest(draft.digest)}
    )


def _keys_for(session: OfficerSession, draft: Draft) -> tuple[SigningKey, ...]:
    """Return the keys that sign the draft: both, if it names the new one, as others check both."""
    party, (current, *later) = draft.agreement.party(session.country), session.identity.keys
    named = [key for key in later if party and party.officer_key == key.public.to_text()]
    return (current, *named)


def newest_root(session: OfficerSession, view: TrustedView) -> bytes:
    """Return the root in force: from the view, or the pinned root, which no view contains."""
    name = f"metadata/{view.versions.root}.root.json"
    return view.files.get(name) or session.trust.root(session.exchange.fetch)


def sign_file(session: OfficerSession, path: Path, delivery: Delivery, *, yes: bool) -> None:
    """Sign a file of the officer's country: a national policy (.cedar), or the node's keys."""
    if path.suffix == POLICY_SUFFIX:
        sign_policy(session, path, delivery, yes=yes)
    else:
        sign_node_keys(session, path, delivery, yes=yes)


def sign_node_keys(session: OfficerSession, path: Path, delivery: Delivery, *, yes: bool) -> None:
    """Show the keys of the officer's node, and sign them once the officer agrees."""
    keys = read_file(NodeKeys, path)
    if keys.country != session.country:
        raise OfficerFault(
            f"These are keys of a node of {keys.country}",
            why=f"you sign for {session.country}; nothing was signed",
            fix="ask the operator of your node for node-keys.json",
        )
    published = _published(session)
    _show_node_keys(session, keys)
    _require_succession(session, keys)
    session.terminal.confirm("Do you vouch for this node with your country's key?", yes=yes)
    use_node(session, delivery)
    result = sign_and_hand_over(session, lambda own: own.set_node(keys), delivery, published)
    session.terminal.say("Next: `pratique-officer inbox`.")
    session.terminal.answer({"signed": "node", "digest": keys.digest, **result})


def _show_node_keys(session: OfficerSession, keys: NodeKeys) -> None:
    session.terminal.heading(f"The keys of the node of {keys.country}")
    session.terminal.facts(
        {
            "key for messages": identity_in_words(keys.identity_key),
            "key of its log": VerifyKey.from_text(keys.log_key).fingerprint,
            "name of its log": keys.log_origin,
            "key for Flower": spoken_digest(digest(keys.node_auth.encode())),
        }
    )
    session.terminal.say("Sign them only if the operator of your node gave you this very file.")


def _require_succession(session: OfficerSession, keys: NodeKeys) -> None:
    """Check that the node's former key has signed these keys; ask the officer if it has not.

    Somebody between the node and the officer could have inserted other keys.
    """
    own = session.own()
    former, succession, terminal = own.node if own else None, keys.succession, session.terminal
    if former is None or former == keys:
        return
    terminal.warn("these replace the keys that you signed before")
    if keys.log_key != former.log_key:
        terminal.warn("the key of the node's log is another one: its log and ledger start empty")
    if succession is not None and succession.former == former.identity_key:
        terminal.say("The node's former key has signed these keys.")
        return
    terminal.warn("THE FORMER KEY HAS NOT SIGNED THESE: anyone may have made them")
    terminal.say(
        "Call your node's operator: compare the fingerprints above, and ask why its keys are not "
        "made with `pratique-node rotate-keys`."
    )
    terminal.insist("Is the former key lost, and did the operator read out these fingerprints?")


def sign_policy(session: OfficerSession, path: Path, delivery: Delivery, *, yes: bool) -> None:
    """Check and show the national policy, and sign it once the officer agrees."""
    text = read_policy(path)
    published = _published(session)
    session.terminal.heading(f"National policy of {session.country}: what it forbids")
    session.terminal.verbatim(text)
    session.terminal.confirm("Sign these rules for your country?", yes=yes)
    use_node(session, delivery)
    result = sign_and_hand_over(session, lambda own: own.set_policy(text), delivery, published)
    session.terminal.say("Your node follows them from its next decision on.")
    session.terminal.answer({"signed": "policy", "digest": digest(text.encode()), **result})


def read_policy(path: Path) -> str:
    """Read a national policy. Raises DocumentFault unless it only forbids."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise DocumentFault(
            f"The file {path} cannot be read",
            why=reason_of(error),
            fix="check the name of the file and that you may read it",
        ) from None
    except UnicodeDecodeError:
        raise DocumentFault(f"The file {path} is not UTF-8 text", fix="save it as UTF-8") from None
    lines = [line.expandtabs().rstrip("\r") for line in text.split("\n")]
    if any(escaped(line) != line for line in lines):
        raise DocumentFault(
            f"The file {path.name} cannot be signed",
            why="it contains control or invisible characters, so a reader may see another text",
            fix="remove them, comments included",
        )
    check_national(text)
    return text


def renew(session: OfficerSession, delivery: Delivery) -> None:
    """Sign the country's documents again, unchanged, and deliver them to whoever is reachable."""
    if session.own() is None:
        raise OfficerFault(
            "There is nothing to renew yet",
            why="you have signed nothing for your country",
            fix="sign your node's keys first: `pratique-officer sign node-keys.json`",
        )
    use_node(session, delivery)
    view = view_if_usable(session)
    published = view.country(session.country) if view else None
    result = sign_and_hand_over(session, lambda _own: None, delivery, published)
    session.terminal.answer(result)


def _published(session: OfficerSession) -> CountryDocuments | None:
    """Return the country's documents that the exchange shows; None if it shows none yet."""
    if session.settings.exchange is None:
        return None
    view = session.view_if_published()
    return view.country(session.country) if view else None


def view_if_usable(session: OfficerSession) -> TrustedView | None:
    """Return the view, or None if the exchange cannot be reached or trusted now.

    Delivery to the officer's node must not depend on the exchange.
    """
    try:
        return session.view_if_published() if session.settings.exchange else None
    except PratiqueError as fault:
        session.terminal.warn(str(fault))
        return None
