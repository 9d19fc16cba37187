"""Builds a node: makes each part once, and passes it to the parts that need it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from client.border.charge import Charges
from client.border.cohort_floor import CohortFloor
from client.border.door import Door
from client.border.failpoints import FailpointHook, no_failpoint
from client.border.gate import Gate
from client.border.outbox import Outbox
from client.border.recheck import PermissionRecheck
from client.border.reply_timing import ReplySlots
from client.border.request_handler import RequestHandler
from client.border.run_limit import RunLimit
from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.documents.key_changes import KeyChanges
from client.documents.store import DocumentStore, Fetch
from client.documents.updates import DocumentUpdates
from client.home import NodeHome
from client.node import Node
from client.parts import NodeParts
from client.records.store import RecordStore
from client.settings import NodeSettings
from client.state.decision_log import Clock, DecisionLog, log_origin
from client.state.log_head import LogHeadGuard
from client.state.opt_out_confirmations import OptOutConfirmations
from client.state.pause import PauseSwitch
from client.state.reply_journal import ReplyJournal
from client.state.run_expiry import RunExpiry
from client.state.runs import RunStore
from client.state.state_check import StateCheck, open_log
from client.status.report import StatusReport
from client.tasks.prepared import PreparedTasks
from governance.budget.ledger import Ledger
from keys.identity import VerifyKey
from protocols.numerics.noise import NoiseSource


@dataclass(frozen=True)
class Surroundings:
    """The inputs of a node from outside: the exchange, noise, clocks, randomness.

    `fetch` reads one published file through the exchange, or raises LinkFault. `monotonic` is in
    seconds. `failpoint` is called between the steps of a reply; only tests replace it.
    """

    fetch: Fetch
    noise: NoiseSource
    clock: Clock
    slots: ReplySlots
    entropy: Callable[[int], bytes] = os.urandom
    monotonic: Callable[[], float] = time.monotonic
    failpoint: FailpointHook = no_failpoint


def build_node(
    home: NodeHome,
    settings: NodeSettings,
    keyring: NodeKeyring,
    engine: Engine,
    *,
    identities: IdentityKeys,
    pinned_root: bytes | None,
    around: Surroundings,
) -> Node:
    """Return a node over an open state database."""
    parts = _parts(home, settings, keyring, engine, identities, pinned_root, around)
    return Node(parts, _request_handler(parts, around), StatusReport(parts))


def _parts(
    home: NodeHome,
    settings: NodeSettings,
    keyring: NodeKeyring,
    engine: Engine,
    identities: IdentityKeys,
    pinned_root: bytes | None,
    around: Surroundings,
) -> NodeParts:
    country, clock = settings.country, around.clock
    log, runs, journal = (
        open_log(engine, log_origin(country), keyring.log_key, former=not keyring.signs_state),
        RunStore(engine, keyring.sealing_key),
        ReplyJournal(engine),
    )
    decisions = DecisionLog(log, lambda: documents.not_before(clock()), country)
    keys = KeyChanges(country, identities, runs, decisions)
    documents = DocumentStore(
        engine,
        country=country,
        officer_key=VerifyKey.from_text(settings.officer_key),
        pinned_root=pinned_root,
        on_new_key=keys.log_officer_change,
    )
    record_store = RecordStore(settings)
    return NodeParts(
        home=home,
        settings=settings,
        engine=engine,
        clock=clock,
        documents=documents,
        updates=DocumentUpdates(
            documents,
            keys,
            decisions,
            officer_folder=home.officer,
            fetch=around.fetch,
            clock=clock,
        ),
        keys=keys,
        identities=identities,
        log=log,
        log_head=LogHeadGuard(home, engine, log, StateCheck(engine, log, country)),
        ledger=Ledger(engine),
        decisions=decisions,
        pause=PauseSwitch(engine),
        runs=runs,
        journal=journal,
        run_expiry=RunExpiry(engine, runs=runs, journal=journal, decisions=decisions),
        record_store=record_store,
        opt_outs=OptOutConfirmations(engine, keyring.split_key),
        tasks=PreparedTasks(record_store, settings.modules, keyring.split_key, country=country),
    )


def _request_handler(parts: NodeParts, around: Surroundings) -> RequestHandler:
    recheck = PermissionRecheck(parts.documents, parts.pause, parts.clock)
    limit = RunLimit(parts.runs, parts.ledger, parts.run_expiry)
    charges = Charges(parts.engine, parts.ledger, parts.decisions, around.failpoint)
    outbox = Outbox(
        parts.engine,
        journal=parts.journal,
        runs=parts.runs,
        recheck=recheck,
        limit=limit,
        decisions=parts.decisions,
        failpoint=around.failpoint,
    )
    return RequestHandler(
        gate=_gate(parts, around, limit),
        floor=_cohort_floor(parts, around, charges, recheck),
        door=_door(parts, around, charges, outbox),
        tasks=parts.tasks,
        outbox=outbox,
        decisions=parts.decisions,
        log_head=parts.log_head,
        slots=around.slots,
        failpoint=around.failpoint,
    )


def _gate(parts: NodeParts, around: Surroundings, limit: RunLimit) -> Gate:
    return Gate(
        country=parts.settings.country,
        identities=parts.identities,
        person_register=parts.settings.person_register,
        documents=parts.documents,
        record_store=parts.record_store,
        pause=parts.pause,
        journal=parts.journal,
        runs=parts.runs,
        ledger=parts.ledger,
        limit=limit,
        sync=parts.updates.sync,
        clock=parts.clock,
        monotonic=around.monotonic,
    )


def _cohort_floor(
    parts: NodeParts, around: Surroundings, charges: Charges, recheck: PermissionRecheck
) -> CohortFloor:
    return CohortFloor(
        parts.engine,
        charges=charges,
        record_store=parts.record_store,
        tasks=parts.tasks,
        recheck=recheck,
        decisions=parts.decisions,
        noise=around.noise,
        entropy=around.entropy,
        failpoint=around.failpoint,
    )


def _door(parts: NodeParts, around: Surroundings, charges: Charges, outbox: Outbox) -> Door:
    return Door(
        charges=charges,
        tasks=parts.tasks,
        outbox=outbox,
        noise=around.noise,
        entropy=around.entropy,
        failpoint=around.failpoint,
    )
