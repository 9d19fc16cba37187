"""Four countries' nodes and a coordinator in one process: real documents, databases and records.

Nothing is mocked: documents are signed and verified, requests are the real state machine's, each
node keeps its own SQLite database. Only sockets and Flower are left out, and the noise is silent
unless a test asks for another source.
"""

import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from client.border.reply_timing import ReplySlots
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import IDENTITY, NodeKeyring
from client.home import NodeHome
from client.node import Node
from client.settings import Enrolment, NodeSettings
from client.state.tables import MIGRATIONS
from client.wiring import Surroundings, build_node
from governance.documents.study import Study
from governance.runtime.database import open_database
from keys.composite import Suite
from keys.identity import SigningKey
from keys.store import KeyStore
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.noise import NoiseSource
from protocols.private_sum.context import RunTerms
from protocols.private_sum.coordinator_round import CoordinatorRound, OpenedSum, VoidRound
from protocols.private_sum.coordinator_run import CoordinatorRun
from protocols.private_sum.messages import read_reply, sign_request, write_request
from protocols.proto.round_pb2 import Request as Envelope
from protocols.proto.round_pb2 import RequestBody
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import digest
from tests.support import documents as papers_of
from tests.support.documents import COUNTRIES, NOW, Papers, both_key, node_keys, permit, raw_key
from tests.support.keystore import cheap_store, reopen
from tests.support.zero_noise import ZeroNoise

DICTIONARY = """
dictionary: 1
title: Patients of one country
patient: id
features:
  - {name: age, type: numeric, bounds: [0, 120]}
  - {name: sex, type: categorical, codes: {F: female, M: male}}
  - {name: disease, type: boolean}
"""
PATIENTS = 80
"""In each country, all of them forty or older: above the smallest cohort, 50."""
AT_ONCE = ReplySlots(sleep=lambda _: None)
STEPS = ("bundle", "encapsulation", "confirmation")


def records(patients: int = PATIENTS, *, age: int = 40) -> str:
    """Return a CSV of so many patients: every second one a man, every fourth one ill."""
    rows = [f"p{n},{age + n % 40},{'MF'[n % 2]},{int(n % 4 == 0)}" for n in range(patients)]
    return "\n".join(["id,age,sex,disease", *rows]) + "\n"


def keyring_of(country: str, *, both: bool = False) -> NodeKeyring:
    """Return the secrets behind `node_keys(country)`."""
    base = 1_000 + 10 * COUNTRIES.index(country)
    return NodeKeyring(
        identity=both_key(base) if both else raw_key(base),
        log=raw_key(base + 1),
        transport=b"",
        node_auth=b"",
        sealing=bytes([COUNTRIES.index(country) + 1]) * 32,
        split=bytes([COUNTRIES.index(country) + 101]) * 32,
    )


@dataclass
class NodeFederation:
    """Nodes of four countries over one document store, and a coordinator with its key at hand."""

    folder: Path
    noise: NoiseSource = field(default_factory=ZeroNoise)
    nodes: dict[str, Node] = field(default_factory=dict)
    papers: Papers = field(init=False)
    changes: dict[str, Any] = field(default_factory=dict)
    began: datetime = NOW

    def __post_init__(self) -> None:
        known = self.folder.exists()
        agreed = papers_of.agreement(**self.changes)
        self.papers = Papers(self.folder / "papers", agreed=agreed, now=self.began)
        if not known:
            self.papers.begin()
        for country in COUNTRIES:
            if not known:
                self.papers.folders[country].set_node(node_keys(country, both=self.both))
                self._settle(country)
            self.nodes[country] = self.start(country)
            if not known:
                self.hand_over(country)

    def copied(self, folder: Path) -> "NodeFederation":
        """Return the same federation, at the same moment, in another folder."""
        self.close()
        shutil.copytree(self.folder, folder)
        return NodeFederation(folder, noise=self.noise, changes=self.changes)

    @property
    def both(self) -> bool:
        """Whether the agreement asks for both signatures; nodes and coordinator have them then."""
        return self.papers.agreed.signatures is Suite.COMPOSITE

    def clock(self) -> datetime:
        """Return the time that every party believes."""
        return self.papers.now

    def home(self, country: str) -> NodeHome:
        """Return a node's folder."""
        return NodeHome(self.folder / country)

    def _settle(self, country: str) -> None:
        home = self.home(country)
        home.officer.mkdir(mode=0o700, parents=True)
        home.path.chmod(0o700)
        (home.path / "records.csv").write_text(records())
        (home.path / "dictionary.yaml").write_text(DICTIONARY)

    def settings(self, country: str, **changes: Any) -> NodeSettings:
        """Return the settings of an enrolled node."""
        path = self.home(country).path
        officer = self.papers.officers[country].public
        fields: dict[str, Any] = {
            "country": country,
            "data": path / "records.csv",
            "dictionary": path / "dictionary.yaml",
            "officer_key": officer.to_text(),
            "enrolment": Enrolment(
                federation=self.papers.agreed.federation,
                exchange="exchange.example:7443",
                authority_digest=digest(b"authority"),
                root_digest=digest(self.papers.pinned),
            ),
        }
        return NodeSettings(**fields | changes)

    def start(self, country: str, **changes: Any) -> Node:
        """Return a node on its own database, as after any crash; `changes` go to its maker.

        Raises NodeFault where the database is not the newest.
        """
        node = self.made(country, **changes)
        node.parts.log_head.move()
        node.parts.record_store.refresh()
        return node

    def made(self, country: str, **changes: Any) -> Node:
        """Return a node that has not been started."""
        settings = changes.pop("settings", self.settings(country))
        identities = changes.pop("identities", None) or IdentityKeys(self.store(country))
        root = changes.pop("pinned_root", self.papers.pinned)
        around = Surroundings(
            fetch=self.papers.store.read, noise=self.noise, clock=self.clock, slots=AT_ONCE
        )
        home = self.home(country)
        return build_node(
            home,
            settings,
            keyring_of(country),
            open_database(home.database, MIGRATIONS),
            identities=identities,
            pinned_root=root,
            around=replace(around, **changes),
        )

    def store(self, country: str) -> KeyStore:
        """Return a node's key store, which holds the key that the officer vouched for first."""
        place = self.home(country).keys
        if place.exists():
            return reopen(place)
        made = cheap_store(place)
        made.put(IDENTITY, keyring_of(country, both=self.both).identity.to_bytes())
        return made

    def restart(self, country: str, **changes: Any) -> Node:
        """Replace a node by a new one on the same database."""
        self.nodes[country].parts.engine.dispose()
        self.nodes[country] = self.start(country, **changes)
        return self.nodes[country]

    def close(self) -> None:
        """Let go of every database."""
        for node in self.nodes.values():
            node.parts.engine.dispose()

    def hand_over(self, country: str) -> None:
        """Sign a country's documents as they stand; exchange and own node have them at once."""
        bundle = self.papers.give(country)
        self.nodes[country].deliver(bundle)

    def later(self, pause: timedelta) -> None:
        """Let time pass, with documents that stay fresh."""
        self.papers.now += pause
        for country in self.nodes:
            self.hand_over(country)
        self.papers.refresh()

    def sync(self) -> None:
        """Let every node fetch what is published."""
        for node in self.nodes.values():
            node.sync()

    def study(self, **changes: Any) -> Study:
        """Return a priced study under the federation's agreement."""
        return papers_of.study(self.papers.agreed, **changes)

    def approved(self, *without: str, **changes: Any) -> Study:
        """Propose a study and let every country approve it but those named."""
        study = self.study(**changes)
        self.papers.propose(study)
        for country in COUNTRIES:
            if country not in without:
                self.permit(country, study)
        self.sync()
        return study

    def permit(self, country: str, study: Study, **changes: Any) -> None:
        """Let one country approve a study."""
        self.papers.folders[country].approve(
            permit(self.papers.agreed, study, country, issued=self.papers.now, **changes)
        )
        self.hand_over(country)

    def withdraw(self, country: str, study: Study) -> None:
        """Let one country withdraw from a study."""
        self.papers.folders[country].withdraw(papers_of.withdrawal(study, country))
        self.hand_over(country)

    def terms(self, study: Study, run_id: bytes | None = None, **changes: Any) -> RunTerms:
        """Return what an honest coordinator's run of a study is about."""
        made = run_id or secrets.token_bytes(16)
        terms = study.run_terms(self.papers.agreed, made, study.countries)
        return replace(terms, **changes)

    @property
    def versions(self) -> DocumentVersions:
        """The document versions that the coordinator holds."""
        return self.papers.view().versions

    @property
    def verified(self) -> DocumentVersions:
        """The document versions that are published, also of what has ended."""
        return self.papers.view().verified

    def run(self, study: Study, run_id: bytes | None = None, **changes: Any) -> "Run":
        """Return a run in which nothing has been said; `changes` go to the coordinator."""
        terms = changes.pop("terms", None) or self.terms(study, run_id)
        peers = {
            country: keyring_of(country, both=self.both).identity.public for country in terms.roster
        }
        sign = both_key(1).sign if self.both else raw_key(1).sign
        made: dict[str, Any] = {"peers": peers, "sign": sign, "versions": self.versions}
        made["published"] = lambda: self.verified
        return Run(self, CoordinatorRun(terms, **made | changes), terms)

    def ready(self, study: Study, run_id: bytes | None = None) -> "Run":
        """Return a run whose set-up is complete."""
        run = self.run(study, run_id)
        run.set_up()
        return run


@dataclass
class Run:
    """A coordinator's run against the nodes of a federation."""

    federation: NodeFederation
    coordinator: CoordinatorRun
    terms: RunTerms

    @property
    def id(self) -> str:
        """The run's id as the ledger names it."""
        return self.terms.run_id.hex()

    def request(self, step: str, country: str) -> bytes:
        """Return a set-up request: step is `bundle`, `encapsulation` or `confirmation`."""
        asks: dict[str, Callable[[str], bytes]] = {
            "bundle": self.coordinator.bundle_request,
            "encapsulation": self.coordinator.encapsulate_request,
            "confirmation": self.coordinator.confirm_request,
        }
        return asks[step](country)

    def take(self, step: str, country: str, reply: bytes) -> None:
        """Hand a set-up reply to the coordinator."""
        takes: dict[str, Callable[[str, bytes], None]] = {
            "bundle": self.coordinator.take_bundle,
            "encapsulation": self.coordinator.take_encapsulation,
            "confirmation": self.coordinator.take_confirmation,
        }
        takes[step](country, reply)

    def set_up(self, *, until: str | None = None) -> None:
        """Take every country through set-up, or through the steps before `until`."""
        for step in STEPS:
            if step == until:
                return
            for country in self.terms.roster:
                node = self.federation.nodes[country]
                self.take(step, country, node.handle(self.request(step, country)))

    def contributed(
        self, number: int, phase: str, model: bytes = b"", without: Collection[str] = ()
    ) -> CoordinatorRound:
        """Return a round to which every country contributed, but for those it goes without."""
        opened = self.coordinator.begin_round(number, phase, model)
        for country in self.terms.roster:
            if country not in without:
                request = opened.contribute_request(country)
                opened.take_contribution(country, self.federation.nodes[country].handle(request))
        return opened

    def agreed(self, opened: CoordinatorRound) -> CoordinatorRound:
        """Close a round on those who contributed, and have them agree where others did not."""
        chosen = opened.close()
        for country in chosen if opened.smaller else ():
            request = opened.agree_request(country)
            opened.take_assent(country, self.federation.nodes[country].handle(request))
        return opened

    def sum(
        self, number: int, phase: str, model: bytes = b"", without: Collection[str] = ()
    ) -> OpenedSum | VoidRound:
        """Return what a whole round opens."""
        opened = self.agreed(self.contributed(number, phase, model, without))
        for country in opened.contributed:
            request = opened.answer_request(country)
            opened.take_answer(country, self.federation.nodes[country].handle(request))
        return opened.open()


def code_of(reply: bytes) -> ReasonCode | None:
    """Return the code in a refusal, None in any other reply."""
    try:
        read_reply(reply, "XX", "refused")
    except Refusal as refusal:
        return None if "did not reply" in refusal.why else refusal.code
    return None


def last_refusal(node: Node) -> Mapping[str, Any]:
    """Return the refusal that a node's operator saw last."""
    return asdict(node.parts.decisions.refusals()[0])


def retold(frame: bytes, change: Callable[[RequestBody], object], key: SigningKey) -> bytes:
    """Return a request that says something else, signed by `key` in the same envelope."""
    envelope = Envelope.FromString(frame)
    signed, body = envelope.signed, RequestBody.FromString(envelope.signed.body)
    change(body)
    told = sign_request(key.sign, context=signed.context, phase=signed.phase, body=body)
    return write_request(told, model=envelope.model, parts=envelope.parts)
