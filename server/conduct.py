"""One run from its documents to its release, over any carrier: what the server app does.

It reads what the run is about from the verified documents, not from the bundle; it keeps each
round's outcome; it ends the run in a state with a reason, whatever happens.
"""

import logging
from datetime import UTC, datetime
from typing import Any, Protocol

from governance.database import open_database
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.trust.view import TrustedView
from keys.errors import PratiqueError
from keys.identity import VerifyKey
from protocols.private_sum.context import DocumentVersions, RunTerms
from protocols.private_sum.coordinator import CoordinatorRun
from protocols.tasks.layout import vector_to_bytes
from server.carrier import Carrier
from server.errors import OperationFault
from server.home import CoordinatorHome
from server.lead import Outcome, RunVoid, lead
from server.published import published
from server.rounds import Conductor, RoundReport, SetUpFailed
from server.runs import RunState, RunStore
from server.state import MIGRATIONS

REPLY_SECONDS = 30.0
"""How long a country may take over one message before it is asked again."""

_log = logging.getLogger("pratique.run")


class Desk(Protocol):
    """What conducting a run needs of whoever holds the keys."""

    def sign(self, message: bytes) -> bytes:
        """Sign 32 bytes with the coordinator's identity key."""

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        """Take what the run made, to be signed and released; the run is finished then."""


def conduct(
    home: CoordinatorHome,
    run_id: str,
    carrier: Carrier,
    desk: Desk,
    *,
    seconds: float = REPLY_SECONDS,
) -> None:
    """Carry a run to its end; its state says how it ended. Raises what ended it."""
    store = RunStore(open_database(home.database, MIGRATIONS))
    digest = store.begin(run_id, datetime.now(UTC))
    try:
        view = published(home, datetime.now(UTC))
        study = _study(view, digest)
        run = CoordinatorRun(
            run_terms(study, view.agreement, run_id),
            peers=_peers(view, study),
            sign=desk.sign,
            versions=_versions(view),
        )
        conductor = Conductor(run, study.countries, carrier, seconds=seconds)
        conductor.set_up()
        store.move(run_id, RunState.RUNNING, datetime.now(UTC))
        outcome = lead(study, conductor, _noting(store, run_id))
        desk.release(digest, run_id, outcome_json(outcome), _model_bytes(outcome))
    except PratiqueError as fault:
        void = isinstance(fault, RunVoid | SetUpFailed)
        store.move(
            run_id, RunState.VOID if void else RunState.FAILED, datetime.now(UTC), str(fault)
        )
        raise
    except BaseException as fault:  # a fault of ours, or the process is told to end
        store.move(run_id, RunState.FAILED, datetime.now(UTC), f"{type(fault).__name__}: {fault}")
        raise


def run_terms(study: Study, agreement: Agreement, run_id: str) -> RunTerms:
    """Return what a run of this study is about, from its documents."""
    return RunTerms(
        agreement=agreement.digest,
        study=study.digest,
        run_id=bytes.fromhex(run_id),
        roster=study.countries,
        colluding=agreement.colluding,
        honest=agreement.honest,
        task_kind=study.task.kind,
        mechanisms=study.mechanisms,
        smallest_countries=agreement.smallest_countries,
    )


def _study(view: TrustedView, digest: str) -> Study:
    study = view.study(digest)
    if study is None:
        raise OperationFault("The study of this run is not among the published ones")
    return study


def _peers(view: TrustedView, study: Study) -> dict[str, VerifyKey]:
    keys = {country: view.node_keys(country) for country in study.countries}
    if unknown := sorted(country for country, node in keys.items() if node is None):
        raise OperationFault(
            f"The node of {', '.join(unknown)} has no published keys",
            why="its officer has not signed them, or its documents have expired",
            fix="ask its officer to run `pratique-officer sign` or `renew`",
        )
    return {
        country: VerifyKey.from_text(node.identity_key)
        for country, node in keys.items()
        if node is not None
    }


def _versions(view: TrustedView) -> DocumentVersions:
    held = view.versions
    return DocumentVersions(held.root, held.targets, dict(held.countries))


def _noting(store: RunStore, run_id: str) -> Any:
    def note(report: RoundReport, model: bytes) -> None:
        store.note_round(run_id, report, datetime.now(UTC))
        store.keep_model(run_id, model)
        _log.info("round", extra={"round": report.number, "phase": report.phase})

    return note


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return what a run made, less its model, as JSON."""
    return {
        "countries": list(outcome.countries),
        "void_rounds": outcome.void_rounds,
        "findings": outcome.findings,
    }


def _model_bytes(outcome: Outcome) -> bytes:
    return b"" if outcome.model is None else vector_to_bytes(outcome.model)
