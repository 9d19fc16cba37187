"""One officer at work: an unlocked folder, a terminal, a clock and a way to the exchange."""

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
    kept_pair,
    open_link,
)
from governance.officer.home import Identity, OfficerHome, Settings
from governance.officer.node_link import ledger_left
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
"""Task kinds of this version. Which of them the node has, only the node knows."""

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
    """In a sentence: what the exchange showed of this country that this folder did not sign."""
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
        """The channel to the exchange, opened at first use; the certificate is renewed by it."""
        held = Credentials(self.pair, self.home.authority_file, clock=self.clock)
        if self._link is None:
            self._link = open_link(self.home, self.settings, held, self.dial)
        self._link.keep_current(self.home, held, self.terminal)
        return self._link.exchange

    @property
    def pair(self) -> KeptPair:
        """The transport key and its certificate."""
        return kept_pair(self.home, self.identity)

    @property
    def trust(self) -> TrustStore:
        """What the officer believes of everyone's documents."""
        return TrustStore(self.home.trust, self.settings)

    @property
    def node(self) -> Path | None:
        """The folder of the officer's node, if it was named."""
        return Path(self.settings.node) if self.settings.node else None

    @property
    def documents(self) -> OfficerDocuments:
        """The country's documents."""
        return own_documents(self.home, self.settings)

    def now(self) -> datetime:
        """Return the time, in whole seconds as documents hold it."""
        return self.clock().replace(microsecond=0)

    def save(self, settings: Settings) -> None:
        """Keep changed settings."""
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
        """Once the agreement names the new key, it is the only one: the former is destroyed.

        The settings decide which key it is; what a crash leaves undone, the next command does.
        """
        new, party = self.identity.next_key, view.agreement.party(self.country)
        if new is None or party is None or party.officer_key != new.public.to_text():
            return
        settings = self.settings.model_copy(update={"document_key": party.officer_key})
        self.home.write_key_file(settings)
        self.save(settings)
        self.identity = Identity(self.identity.store, new).settled()
        self.documents.adopt_next()
        self.home.foreign_file.unlink(missing_ok=True)  # a thief's, or lost: the key is another
        self.terminal.warn(
            f"your new key {new.public.fingerprint} is in force; the former one is destroyed"
        )

    def _other_agreement(self, view: TrustedView) -> tuple[str, ...]:
        """The root binds keys and thresholds; enough others may agree on another text under it."""
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
        """Whether there is an agreement. Raises OfficerFault where a known one is not shown.

        Without this an exchange could hide the agreement and show a changed one as the first:
        nothing would be compared with what is in force.
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
        """Return the node's ledger of the study's register; None if it cannot be asked."""
        register = study.population.register_name
        return ledger_left(self.node, view.agreement, register, self.now())

    def weigh(self, study: Study, view: TrustedView, ledger: LedgerView | None) -> Assessment:
        """Return what agreement and national policy say to the study, whatever was decided."""
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
