"""Key changes of this node and its officer: put in force, logged, and former keys destroyed."""

import contextlib
import logging

from sqlalchemy import Connection

from client.credentials.identity_keys import IdentityKeys
from client.state.decision_log import DecisionLog, Subject
from client.state.runs import RunStore
from governance.audit.events import EventKind, Outcome
from governance.trust.bundle import CountryDocuments
from governance.trust.view import TrustedView
from keys.composite import Identity, PublicIdentity
from keys.identity import VerifyKey
from protocols.errors import Refusal
from protocols.wire.encoding import digest

_log = logging.getLogger("pratique.node")


class KeyChanges:
    """The key changes of one country's node."""

    def __init__(
        self, country: str, identities: IdentityKeys, runs: RunStore, decisions: DecisionLog
    ) -> None:
        self._country, self._identities = country, identities
        self._runs, self._decisions = runs, decisions

    def officer_followed(self, former: VerifyKey, new: VerifyKey, connection: Connection) -> None:
        """Log that the officer's former key has signed its successor, which counts from now on."""
        subject = Subject(body=digest(new.to_text().encode()))
        self._decisions.event(
            EventKind.OFFICER_KEY_CHANGED,
            subject,
            actor=former.fingerprint,
            outcome=Outcome.DONE,
            connection=connection,
        )
        change = f"from {former.fingerprint} to {new.fingerprint}, signed by the former one"
        _log.warning("the officer's key has changed", extra={"what": change})

    def log(self, kind: EventKind, key: PublicIdentity) -> None:
        """Log an event about a key, which the entry names by its digest."""
        subject = Subject(body=digest(key.to_text().encode()))
        self._decisions.event(kind, subject, outcome=Outcome.DONE)

    def take_up(self, own: CountryDocuments, view: TrustedView) -> None:
        """Sign with the node's next key once the officer's and the published documents name it."""
        following = self._identities.following
        if following is None:
            return
        shown, named = view.node_keys(self._country), following.public.to_text()
        signed = own.node is not None and own.node.identity_key == named
        if signed and shown is not None and shown.identity_key == named:
            self._identities.move(self._changed)

    @property
    def pending(self) -> bool:
        """Whether the node has a next key that it does not use yet."""
        return self._identities.following is not None

    def forget_former(self) -> None:
        """Destroy the former keys that no live run began with; none while one cannot be read."""
        with contextlib.suppress(Refusal):
            live = [self._runs.live(run.run) for run in self._runs.summaries(live=True)]
            self._identities.forget_all_but({run.peers.get(self._country, "") for run in live})

    def _changed(self, former: Identity, new: Identity) -> None:
        self.log(EventKind.NODE_KEY_CHANGED, new.public)
        change = f"from {former.public.fingerprint} to {new.public.fingerprint}"
        _log.warning("the node's key has changed", extra={"what": change})
