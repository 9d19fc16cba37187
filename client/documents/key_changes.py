"""Puts new keys of a node and of its officer in force, logs them, and destroys former keys."""

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
    """The key changes of one node and its officer."""

    def __init__(
        self, country: str, identities: IdentityKeys, runs: RunStore, decisions: DecisionLog
    ) -> None:
        self._country, self._identities = country, identities
        self._runs, self._decisions = runs, decisions

    def log_officer_change(self, former: VerifyKey, new: VerifyKey, connection: Connection) -> None:
        """Log that the officer's new key, signed by the former one, counts from now on."""
        self.log(
            EventKind.OFFICER_KEY_CHANGED, new, actor=former.fingerprint, connection=connection
        )
        change = f"from {former.fingerprint} to {new.fingerprint}, signed by the former one"
        _log.warning("the officer's key has changed", extra={"what": change})

    def log(
        self,
        kind: EventKind,
        key: PublicIdentity | VerifyKey,
        *,
        actor: str | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Log an event about a key; the entry holds the digest of the key."""
        subject = Subject(body=digest(key.to_text().encode()))
        self._decisions.event(
            kind, subject, actor=actor, outcome=Outcome.DONE, connection=connection
        )

    def use_successor_if_published(self, own: CountryDocuments, view: TrustedView) -> None:
        """Sign with the node's next key once officer's and published documents both name it."""
        successor = self._identities.successor
        if successor is None:
            return
        published, key = view.node_keys(self._country), successor.public.to_text()
        signed = own.node is not None and own.node.identity_key == key
        if signed and published is not None and published.identity_key == key:
            self._identities.switch_to_successor(self._log_change)

    @property
    def pending(self) -> bool:
        """Return whether the node has a next key that it does not use yet."""
        return self._identities.successor is not None

    def forget_former(self) -> None:
        """Destroy former keys that no live run began with; none if a live run cannot be read."""
        with contextlib.suppress(Refusal):
            live = [self._runs.live(run.run) for run in self._runs.summaries(live=True)]
            self._identities.destroy_former_keys_except(
                {run.peers.get(self._country, "") for run in live}
            )

    def _log_change(self, former: Identity, new: Identity) -> None:
        self.log(EventKind.NODE_KEY_CHANGED, new.public)
        change = f"from {former.public.fingerprint} to {new.public.fingerprint}"
        _log.warning("the node's key has changed", extra={"what": change})
