"""The regular upkeep of a node: documents, records, ended runs, the log, and prepared studies."""

import contextlib
import logging
from collections.abc import Callable

from client.documents.study_status import PERMITTED, study_status
from client.errors import RecordFault
from client.parts import NodeParts
from governance.budget.composition import schedule_epsilon
from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.runtime.database import fold_log
from keys.errors import PratiqueError

_log = logging.getLogger("pratique.node")


class Upkeep:
    """The upkeep of one node."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts

    def do_upkeep(self) -> None:
        """Do the regular upkeep; a fault is logged, and `status` shows it."""
        self._parts.updates.collect()
        self._parts.record_store.refresh()
        self._parts.tasks.forget_former_records()
        self._tidy()
        try:
            if self._parts.settings.enrolment is not None:
                self._parts.updates.sync()
            self._prepare_permitted()
        except RecordFault:
            return  # its text may quote a record; the record store has logged that there is a fault
        except PratiqueError as fault:
            _log.warning("documents not synced", extra={"what": fault.what, "why": fault.why})

    def prepare(self) -> None:
        """Prepare the permitted studies before the first message; `do_upkeep` reports any fault."""
        with contextlib.suppress(PratiqueError):
            self._prepare_permitted()

    def _tidy(self) -> None:
        """Erase data that is no longer needed, and log events that were only counted."""
        steps: tuple[Callable[[], None], ...] = (
            self._parts.decisions.settle,
            self._end_runs,
            self._fold_log,
            self._move_head,
        )
        for step in steps:
            try:
                step()
            except PratiqueError as fault:
                _log.error("state not tidied", extra={"what": fault.what, "why": fault.why})

    def _end_runs(self) -> None:
        """Erase the secrets of runs that are over, even if the coordinator cannot be reached."""
        own, now = self._parts.updates.own(), self._parts.now()
        if own is not None:
            self._parts.run_expiry.end_forbidden(own, now)
        self._parts.run_expiry.end_silent(now)

    def _fold_log(self) -> None:
        fold_log(self._parts.engine)

    def _move_head(self) -> None:
        self._parts.log_head.move()
        self._parts.keys.forget_former()

    def _prepare_permitted(self) -> None:
        """Compute each permitted study's cost and prepare it: its first message need not wait."""
        current = self._parts.documents.current(self._parts.clock())
        own, view = current.own, current.view
        for study in view.studies.values():
            permit, withdrawal = own.permit(study.digest), own.withdrawal(study.digest)
            if study_status(study, permit, withdrawal, view.now) == PERMITTED:
                self._prepare(study, view.agreement)

    def _prepare(self, study: Study, agreement: Agreement) -> None:
        if study.schedule_matches_task:
            schedule_epsilon(
                study.releases_of(agreement),
                study.accounting,
                agreement.honest,
                study.privacy.delta,
            )
        self._parts.tasks.prepared(study)
