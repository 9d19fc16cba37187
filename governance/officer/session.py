"""What an officer's command works with: unlocked folder, terminal, clock, link to the exchange."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self, get_args

from governance.budget.ledger import LedgerView
from governance.documents.study import Study
from governance.officer.errors import OfficerFault
from governance.officer.exchange_link import (
    Dial,
    Exchange,
    OpenLink,
    dial,
    open_link,
    transport_pair,
)
from governance.officer.home import Identity, OfficerHome, Settings
from governance.officer.node_link import ledger_left, records_warning
from governance.officer.own_documents import own_documents, read_own
from governance.officer.terminal import Terminal
from governance.officer.trust_store import TrustStore
from governance.policy.assessment import Act, Assessment, assess
from governance.runtime.credentials import Credentials, KeptPair
from governance.trust.bundle import CountryDocuments
from governance.trust.layout import FIRST_ROOT
from governance.trust.signing import OfficerDocuments
from governance.trust.view import TrustedView
from keys.clock import utc_now
from protocols.tasks import Task

KNOWN_TASKS = tuple(str(task.model_fields["kind"].default) for task in get_args(get_args(Task)[0]))
"""Task kinds of this version. Only the node knows which of them it has installed."""

OTHER_AGREEMENT = (
    "the agreement in force is not the text that you signed: enough other countries have signed "
    "another one; read it, and call them"
)


@dataclass
class OfficerSession:
    """What every command works with."""

    home: OfficerHome
    settings: Settings
    identity: Identity
    terminal: Terminal
    clock: Callable[[], datetime]
    dial: Dial
    foreign: str = field(default="", init=False)
    """Says which documents of this country the exchange showed and this folder did not sign."""
    chosen_node: Path | None = field(default=None, init=False)
    """The node's folder that this command names; it is stored once documents have reached it."""
    _link: OpenLink | None = field(default=None, init=False)

    @classmethod
    def open(
        cls,
        home: OfficerHome,
        passphrase: bytes,
        terminal: Terminal,
        clock: Callable[[], datetime] = utc_now,
        dial: Dial = dial,
    ) -> Self:
        """Unlock the folder. Raises OfficerFault or KeyFault; changes nothing."""
        settings = home.settings()
        return cls(home, settings, Identity.open(home, settings, passphrase), terminal, clock, dial)

    @property
    def country(self) -> str:
        """The officer's country."""
        return self.settings.country

    @property
    def exchange(self) -> Exchange:
        """The channel to the exchange, opened at first use; renews its certificate when due."""
        credentials = Credentials(self.pair, self.home.authority_file, clock=self.clock)
        if self._link is None:
            self._link = open_link(self.home, self.settings, credentials, self.dial)
        self._link.keep_current(self.home, credentials, self.terminal)
        return self._link.exchange

    @property
    def pair(self) -> KeptPair:
        """The transport key and its certificate."""
        return transport_pair(self.home, self.identity)

    @property
    def trust(self) -> TrustStore:
        """The root and the document versions that the officer trusts."""
        return TrustStore(self.home.trust, self.settings)

    @property
    def node(self) -> Path | None:
        """The folder of the officer's node, if it was named, now or before."""
        stored = Path(self.settings.node) if self.settings.node else None
        return self.chosen_node or stored

    def remember_node(self) -> None:
        """Store the node's folder that this command names."""
        if self.chosen_node and str(self.chosen_node) != self.settings.node:
            self.save(self.settings.model_copy(update={"node": str(self.chosen_node)}))

    @property
    def documents(self) -> OfficerDocuments:
        """The country's documents."""
        return own_documents(self.home, self.settings)

    def now(self) -> datetime:
        """Return the time in whole seconds, as documents state it."""
        return self.clock().replace(microsecond=0)

    def save(self, settings: Settings) -> None:
        """Store changed settings."""
        self.home.save(settings)
        self.settings = settings

    def close(self) -> None:
        """Close the channel, if one was opened."""
        if self._link is not None:
            self._link.exchange.close()

    def view(self) -> TrustedView:
        """Return the verified documents, fetched now. Raises LinkFault, OfficerFault."""
        view = self.trust.view(self.exchange.fetch, self.now())
        for sentence in (*view.ignored, *self._other_agreement(view)):
            self.terminal.warn(sentence)
        self._take_up_new_key(view)
        return view

    def _take_up_new_key(self, view: TrustedView) -> None:
        """Destroy the former key once the agreement names the new one.

        The settings decide which key is in force; after a crash the next command finishes the rest.
        """
        new, party = self.identity.next_key, view.agreement.party(self.country)
        if new is None or party is None or party.officer_key != new.public.to_text():
            return
        settings = self.settings.model_copy(update={"document_key": party.officer_key})
        self.home.write_key_file(settings)
        self.save(settings)
        self.identity = Identity(self.identity.store, new).settled()
        self.documents.adopt_next()
        self.home.foreign_file.unlink(missing_ok=True)  # signed by the former key: void now
        self.terminal.warn(
            f"your new key {new.public.fingerprint} is in force; the former one is destroyed"
        )

    def _other_agreement(self, view: TrustedView) -> tuple[str, ...]:
        """Return a warning if the agreement in force is not the text that this officer signed.

        The root fixes keys and thresholds only: enough other countries can sign another text.
        """
        draft = self.trust.draft()
        if (
            draft is None
            or draft.version != view.versions.root
            or draft.agreement == view.agreement
        ):
            return ()
        return (OTHER_AGREEMENT,)

    def view_if_published(self) -> TrustedView | None:
        """Return the view; None before the first agreement is published."""
        return self.view() if self.is_published() else None

    def is_published(self) -> bool:
        """Whether an agreement is published. Raises OfficerFault if the exchange hides a known one.

        Without this check an exchange could hide the agreement and show a changed one as the first,
        and nobody would compare it with the one in force.
        """
        shown = self.exchange.fetch(FIRST_ROOT) is not None
        if not shown and self.trust.knows_root:
            raise OfficerFault(
                "The exchange hides the agreement",
                why=f"it shows no {FIRST_ROOT}, and your folder knows that there is one",
                fix="sign nothing that it shows; call the coordinator and the other officers",
            )
        return shown

    def own(self) -> CountryDocuments | None:
        """Return the country's documents as they were signed last, expired or not."""
        return read_own(self.home, self.settings, self.now())

    def ledger(self, study: Study, view: TrustedView) -> LedgerView | None:
        """Return the node's ledger for the study's register; None if the node cannot be asked."""
        register = study.population.register_name
        return ledger_left(self.node, view.agreement, register, self.now())

    def records_warning(self) -> str:
        """Return what the officer should know of the node's records; empty if nothing."""
        return records_warning(self.node)

    def weigh(self, study: Study, view: TrustedView, ledger: LedgerView | None) -> Assessment:
        """Assess the study by the agreement and the national policy, whatever was decided."""
        own = self.own()
        return assess(
            study,
            view.agreement,
            country=self.country,
            now=self.now(),
            act=Act.PROPOSE,
            national=own.policy if own else None,
            installed_tasks=KNOWN_TASKS,
            ledger=ledger,
        )
