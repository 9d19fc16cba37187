"""Four countries' nodes and a coordinator in one process: real documents, databases and records.

Nothing is mocked: documents are signed and verified, requests come from the real state machine, and
each node has its SQLite database. Only sockets and Flower are left out, and the noise is zero
unless a test passes another source.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
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
from governance.trust.view import TrustedView
from governance.trust.view_cache import ViewCache
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
from tests.support.documents import (
    COUNTRIES,
    NOW,
    FederationDocuments,
    agreement,
    node_keys,
    permit,
    raw_key,
    two_algorithm_key,
    withdrawal,
)
from tests.support.documents import study as draft_study
from tests.support.keystore import fast_store, reopen
from tests.support.prepared import PREPARED, Kept, Look, PreparationResult, State, look, put
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
"""Patients of each country, all of them forty or older: more than the smallest cohort, 50."""
AT_ONCE = ReplySlots(sleep=lambda _: None)
STEPS = ("bundle", "encapsulation", "confirmation")


def records(patients: int = PATIENTS, *, age: int = 40) -> str:
    """Return a CSV with this many patients: every second one is a man, every fourth one is ill."""
    rows = [f"p{n},{age + n % 40},{'MF'[n % 2]},{int(n % 4 == 0)}" for n in range(patients)]
    return "\n".join(["id,age,sex,disease", *rows]) + "\n"


def keyring_of(country: str, *, both: bool = False) -> NodeKeyring:
    """Return the secrets behind `node_keys(country)`."""
    base = 1_000 + 10 * COUNTRIES.index(country)
    return NodeKeyring(
        identity=two_algorithm_key(base) if both else raw_key(base),
        log_key=raw_key(base + 1),
        transport_key=b"",
        node_auth_key=b"",
        sealing_key=bytes([COUNTRIES.index(country) + 1]) * 32,
        split_key=bytes([COUNTRIES.index(country) + 101]) * 32,
    )


class Nodes(MutableMapping[str, Node]):
    """Nodes by country; each is started when it is first used.

    The effect is as if it had been started at once: its folder must not have changed until then.
    """

    def __init__(self, start: Callable[[str], Node]) -> None:
        self._start, self._countries = start, list(COUNTRIES)
        self.running: dict[str, Node] = {}

    def __getitem__(self, country: str) -> Node:
        if country not in self._countries:
            raise KeyError(country)
        if country not in self.running:
            self.running[country] = self._start(country)
        return self.running[country]

    def __setitem__(self, country: str, node: Node) -> None:
        self.running[country] = node

    def __delitem__(self, country: str) -> None:
        self._countries.remove(country)
        self.running.pop(country, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._countries)

    def __len__(self) -> int:
        return len(self._countries)


@dataclass
class NodeFederation:
    """Nodes of four countries over one document repository, and a coordinator with its key.

    The first steps of a federation, in methods that use `prepare_once`, are done once in a process.
    """

    folder: Path
    noise: NoiseSource = field(default_factory=ZeroNoise)
    nodes: Nodes = field(init=False)
    documents: FederationDocuments = field(init=False)
    changes: dict[str, Any] = field(default_factory=dict)
    began: datetime = NOW
    state: State | None = None

    def __post_init__(self) -> None:
        self.nodes, self._views = Nodes(self._start_late), ViewCache()
        agreed = agreement(**self.changes)
        known = self.folder.exists()
        if not known:
            self.folder.mkdir(parents=True)
            self.state = State((repr(sorted(self.changes.items())),), {})
        self.documents = FederationDocuments(
            self.folder / "documents", agreed=agreed, now=self.began
        )
        self._looks: dict[str, Look] = {}
        if not known:
            self.prepare_once("founded", self._found)
        else:
            self._stop_nodes()

    def _found(self) -> PreparationResult:
        self.documents.publish_agreement()
        for country in COUNTRIES:
            self.documents.folders[country].set_node(node_keys(country, both=self.both))
            self._settle(country)
            self.nodes[country] = self.start(country)
            self.hand_over(country)
        return ()

    def prepare_once(self, work: str, do: Callable[[], PreparationResult]) -> PreparationResult:
        """Do a step, or copy the folder that the same step left after the same earlier steps.

        Afterwards, if only such steps were done so far, no node runs until it is used.
        """
        before, self.state = self.state, None
        if before is None or not self._untouched(before):
            return do()
        works = (*before.works, f"{work} by {self.documents.signers}")
        kept = PREPARED.find(works)
        if kept is None:
            result = do()
            self._stop_nodes()
            PREPARED.keep(works, self.folder, self.documents.now, result)
        else:
            result = self._put(kept)
        self.state = State(works, look(self.folder))
        return result

    def _untouched(self, state: State) -> bool:
        usable = PREPARED.usable and type(self) is NodeFederation and not self.nodes.running
        return usable and look(self.folder) == state.look

    def _put(self, kept: Kept) -> PreparationResult:
        put(kept, self.folder)
        self.documents.now = kept.now
        self._stop_nodes()
        return kept.result

    def _stop_nodes(self) -> None:
        """Stop every node; each starts again when it is used."""
        self.close()
        self.nodes.running.clear()
        self._looks = {country: look(self.home(country).path) for country in COUNTRIES}
        self._settings = {country: self.settings(country) for country in COUNTRIES}
        self._then = self.documents.now

    def _start_late(self, country: str) -> Node:
        if look(self.home(country).path) != self._looks[country]:
            raise AssertionError(f"use the node of {country} before its folder is changed")
        now, self.documents.now = self.documents.now, self._then
        try:
            return self.start(country, settings=self._settings[country])
        finally:
            self.documents.now = now

    def copied(self, folder: Path) -> "NodeFederation":
        """Return the same federation, at the same moment, in another folder."""
        state = self.state if self.state and self._untouched(self.state) else None
        self.close()
        put(Kept(self.folder, self.documents.now, ()), folder)
        return NodeFederation(folder, noise=self.noise, changes=self.changes, state=state)

    @property
    def both(self) -> bool:
        """Whether the agreement requires both signatures; then nodes and coordinator have both."""
        return self.documents.agreed.signatures is Suite.COMPOSITE

    def clock(self) -> datetime:
        """Return the time of every party's clock."""
        return self.documents.now

    def home(self, country: str) -> NodeHome:
        """Return a node's folder."""
        return NodeHome(self.folder / country)

    def _settle(self, country: str) -> None:
        home = self.home(country)
        home.officer.mkdir(mode=0o700, parents=True)
        home.path.chmod(0o700)
        (home.path / "records.csv").write_text(records())
        (home.path / "dictionary.yaml").write_text(DICTIONARY)

    def put_records(self, country: str, text: str) -> None:
        """Replace a country's records while its node runs."""
        assert self.nodes[country]
        (self.home(country).path / "records.csv").write_text(text, encoding="utf-8")

    def settings(self, country: str, **changes: Any) -> NodeSettings:
        """Return the settings of an enrolled node."""
        path = self.home(country).path
        officer = self.documents.officers[country].public
        fields: dict[str, Any] = {
            "country": country,
            "data": path / "records.csv",
            "dictionary": path / "dictionary.yaml",
            "officer_key": officer.to_text(),
            "enrolment": Enrolment(
                federation=self.documents.agreed.federation,
                exchange="exchange.example:7443",
                authority_digest=digest(b"authority"),
                root_digest=digest(self.documents.pinned),
            ),
        }
        return NodeSettings(**fields | changes)

    def start(self, country: str, **changes: Any) -> Node:
        """Start a node on its database, as after any crash; `changes` are passed to `made`.

        Raises NodeFault if the database is not the newest one.
        """
        node = self.made(country, **changes)
        node.parts.log_head.move()
        node.parts.record_store.refresh()
        return node

    def made(self, country: str, **changes: Any) -> Node:
        """Return a node that has not been started; `unsigned`: its state was never signed."""
        settings = changes.pop("settings", self.settings(country))
        identities = changes.pop("identities", None) or IdentityKeys(self.store(country))
        root = changes.pop("pinned_root", self.documents.pinned)
        around = Surroundings(
            fetch=self.documents.store.read, noise=self.noise, clock=self.clock, slots=AT_ONCE
        )
        home = self.home(country)
        unsigned = changes.pop("unsigned", not home.database.exists())
        keyring = replace(keyring_of(country), signs_state=not unsigned)
        return build_node(
            home,
            settings,
            keyring,
            open_database(home.database, MIGRATIONS),
            identities=identities,
            pinned_root=root,
            around=replace(around, **changes),
        )

    def store(self, country: str) -> KeyStore:
        """Return a node's key store, with the key that its officer signed first."""
        directory = self.home(country).keys
        if directory.exists():
            return reopen(directory)
        store = fast_store(directory)
        store.put(IDENTITY, keyring_of(country, both=self.both).identity.to_bytes())
        return store

    def restart(self, country: str, **changes: Any) -> Node:
        """Replace a node by a new one on the same database."""
        self.nodes[country].parts.engine.dispose()
        self.nodes[country] = self.start(country, **changes)
        return self.nodes[country]

    def close(self) -> None:
        """Close every database."""
        for node in self.nodes.running.values():
            node.parts.engine.dispose()

    def hand_over(self, country: str) -> None:
        """Sign a country's documents, and give them to the exchange and to its node."""
        self.prepare_once(f"hand over {country}", lambda: self._hand_over(country))

    def _hand_over(self, country: str) -> PreparationResult:
        bundle = self.documents.sign_and_submit(country)
        self.nodes[country].deliver(bundle)
        return ()

    def later(self, pause: timedelta) -> None:
        """Move the clock, and renew all documents."""
        self.prepare_once(f"later {pause}", lambda: self._later(pause))

    def _later(self, pause: timedelta) -> PreparationResult:
        self.documents.now += pause
        for country in self.nodes:
            self.hand_over(country)
        self.documents.refresh()
        return ()

    def sync(self) -> None:
        """Have every node fetch what is published."""
        self.prepare_once("sync", self._sync)

    def _sync(self) -> PreparationResult:
        for node in self.nodes.values():
            node.sync()
        return ()

    def study(self, **changes: Any) -> Study:
        """Return a study with its schedule, under the federation's agreement."""
        return draft_study(self.documents.agreed, **changes)

    def approved(self, *without: str, **changes: Any) -> Study:
        """Propose a study and have every country approve it except those in `without`."""
        return self.approve(self.study(**changes), *without)

    def approve(self, study: Study, *without: str) -> Study:
        """Propose this study and have every country approve it except those in `without`."""
        self.prepare_once(
            f"approved {without} {study.digest}", lambda: self._approved(study, without)
        )
        return study

    def propose(self, study: Study) -> None:
        """Publish a study."""
        self.prepare_once(f"propose {study.digest}", lambda: self._propose(study))

    def _propose(self, study: Study) -> PreparationResult:
        self.documents.propose(study)
        return ()

    def _approved(self, study: Study, without: Collection[str]) -> PreparationResult:
        self.documents.propose(study)
        for country in COUNTRIES:
            if country not in without:
                self.permit(country, study)
        return self._sync()

    def permit(self, country: str, study: Study, **changes: Any) -> None:
        """Have one country approve a study."""
        work = f"permit {country} {study.digest} {changes}"
        self.prepare_once(work, lambda: self._permit(country, study, changes))

    def _permit(self, country: str, study: Study, changes: Mapping[str, Any]) -> PreparationResult:
        self.documents.folders[country].approve(
            permit(self.documents.agreed, study, country, issued=self.documents.now, **changes)
        )
        return self._hand_over(country)

    def withdraw(self, country: str, study: Study) -> None:
        """Have one country withdraw from a study."""
        work = f"withdraw {country} {study.digest}"
        self.prepare_once(work, lambda: self._withdraw(country, study))

    def _withdraw(self, country: str, study: Study) -> PreparationResult:
        self.documents.folders[country].withdraw(withdrawal(study, country))
        return self._hand_over(country)

    def terms(self, study: Study, run_id: bytes | None = None, **changes: Any) -> RunTerms:
        """Return the terms of an honest coordinator's run of a study."""
        chosen = run_id or secrets.token_bytes(16)
        terms = study.run_terms(self.documents.agreed, chosen, study.countries)
        return replace(terms, **changes)

    @property
    def versions(self) -> DocumentVersions:
        """The document versions that the coordinator has."""
        return self._view().versions

    @property
    def verified(self) -> DocumentVersions:
        """The published document versions, those of expired documents too."""
        return self._view().verified

    def _view(self) -> TrustedView:
        return self._views.view(
            self.documents.store.read, self.documents.pinned, self.documents.now
        )

    def run(self, study: Study, run_id: bytes | None = None, **changes: Any) -> "Run":
        """Return a run without any message yet; `changes` are passed to the coordinator."""
        terms = changes.pop("terms", None) or self.terms(study, run_id)
        peers = {
            country: keyring_of(country, both=self.both).identity.public for country in terms.roster
        }
        sign = two_algorithm_key(1).sign if self.both else raw_key(1).sign
        arguments: dict[str, Any] = {"peers": peers, "sign": sign, "versions": self.versions}
        arguments["published"] = lambda: self.verified
        return Run(self, CoordinatorRun(terms, **arguments | changes), terms)

    def ready(self, study: Study, run_id: bytes | None = None) -> "Run":
        """Return a run whose set-up is complete."""
        if type(self.noise) is not ZeroNoise:
            self.state = None  # the cohort is counted with fresh noise each time
        work = f"ready {study.digest} {run_id!r}"
        chosen, *replies = self.prepare_once(work, lambda: self._set_up(study, run_id))
        run = self.run(study, chosen)
        run.replay(replies)
        return run

    def _set_up(self, study: Study, run_id: bytes | None) -> PreparationResult:
        run = self.run(study, run_id)
        return (run.terms.run_id, *run.set_up())


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

    def set_up(self, *, until: str | None = None) -> PreparationResult:
        """Do the set-up with every country, or only the steps before `until`."""
        replies = []
        for step, country in self._steps(until):
            replies.append(self.federation.nodes[country].handle(self.request(step, country)))
            self.take(step, country, replies[-1])
        return tuple(replies)

    def replay(self, replies: Sequence[bytes]) -> None:
        """Give the coordinator the replies of a set-up that was done before."""
        for (step, country), reply in zip(self._steps(), replies, strict=True):
            self.take(step, country, reply)

    def _steps(self, until: str | None = None) -> list[tuple[str, str]]:
        steps = STEPS[: STEPS.index(until)] if until else STEPS
        return [(step, country) for step in steps for country in self.terms.roster]

    def contributed(
        self, number: int, phase: str, model: bytes = b"", without: Collection[str] = ()
    ) -> CoordinatorRound:
        """Return a round to which every country contributed except those in `without`."""
        coordinator_round = self.coordinator.begin_round(number, phase, model)
        asked = [country for country in self.terms.roster if country not in without]
        work = f"contributed {self.id} {number} {phase} {digest(model)} {asked}"
        replies = self.federation.prepare_once(
            work, lambda: self._ask(coordinator_round.contribute_request, asked)
        )
        for country, reply in zip(asked, replies, strict=True):
            coordinator_round.take_contribution(country, reply)
        return coordinator_round

    def _ask(self, request: Callable[[str], bytes], asked: Collection[str]) -> PreparationResult:
        nodes = self.federation.nodes
        return tuple(nodes[country].handle(request(country)) for country in asked)

    def agreed(self, coordinator_round: CoordinatorRound) -> CoordinatorRound:
        """Close a round on those who contributed, and have them agree if others did not."""
        chosen = coordinator_round.close()
        for country in chosen if coordinator_round.smaller else ():
            request = coordinator_round.agree_request(country)
            coordinator_round.take_assent(country, self.federation.nodes[country].handle(request))
        return coordinator_round

    def sum(
        self, number: int, phase: str, model: bytes = b"", without: Collection[str] = ()
    ) -> OpenedSum | VoidRound:
        """Run a whole round, and return what it opens."""
        coordinator_round = self.agreed(self.contributed(number, phase, model, without))
        work = f"answers {self.id} {number} {coordinator_round.contributed}"
        replies = self.federation.prepare_once(
            work, lambda: self._ask(coordinator_round.answer_request, coordinator_round.contributed)
        )
        for country, reply in zip(coordinator_round.contributed, replies, strict=True):
            coordinator_round.take_answer(country, reply)
        return coordinator_round.open()


def log_lines(node: Node) -> list[str]:
    """Return the exported lines of a node's whole log."""
    return [line.decode() for line in node.parts.log.export()]


def code_of(reply: bytes) -> ReasonCode | None:
    """Return the code of a refusal, None for any other reply."""
    try:
        read_reply(reply, "XX", "refused")
    except Refusal as refusal:
        return None if "another kind of reply" in refusal.why else refusal.code
    return None


def last_refusal(node: Node) -> Mapping[str, Any]:
    """Return the refusal that a node's operator saw last."""
    return asdict(node.parts.decisions.refusals()[0])


def altered_request(
    frame: bytes, change: Callable[[RequestBody], object], key: SigningKey
) -> bytes:
    """Return a request with a changed body, signed by `key` in the same envelope."""
    envelope = Envelope.FromString(frame)
    signed, body = envelope.signed, RequestBody.FromString(envelope.signed.body)
    change(body)
    changed = sign_request(key.sign, context=signed.context, phase=signed.phase, body=body)
    return write_request(changed, model=envelope.model, parts=envelope.parts)
