"""Decides whether a node may calibrate the model of a study on its records, before it reads them.

A calibration is a use of records under the study's permit. So all that must allow a contribution
must allow it, too: the agreement, the country's policy, a permit that has not expired and was not
withdrawn, and an operator who has not paused the node. Besides, the permit must state `calibrate`.
"""

from client.border.cited_documents import cited_permit
from client.border.person_register import node_register, require_node_register
from client.documents.store import CurrentDocuments
from client.parts import NodeParts
from client.tasks.registry import INSTALLED
from governance.documents.permit import Permit
from governance.documents.study import Study
from governance.policy.assessment import Assessment, assess
from protocols.errors import ReasonCode, Refusal

CLAUSE = "node/calibration-not-permitted"
PERMITS = "permit/"
"""How the names of the policy's clauses about permits begin."""
MORE_RUNS = "a permit that is given again also allows one more charged run"


def require_permitted(
    parts: NodeParts, documents: CurrentDocuments, study: Study
) -> tuple[Assessment, Permit]:
    """Return the decision, and the permit that allows the calibration. Raises Refusal."""
    parts.pause.require_running()
    agreement = documents.view.agreement
    register = node_register(parts.settings.person_register, parts.ledger, agreement)
    require_node_register(register, study.population.register_name)
    assessment = assess(
        study,
        agreement,
        country=parts.settings.country,
        now=documents.view.now,
        permit=documents.own.permit(study.digest),
        withdrawal=documents.own.withdrawal(study.digest),
        national=documents.own.policy,
        installed_tasks=INSTALLED,
    )
    _require(assessment, documents, study)
    permit = cited_permit(documents, study)
    if not permit.conditions.calibrate:
        raise Refusal(
            ReasonCode.NO_PERMIT,
            "Your officer has not allowed this calibration",
            why=f"the permit for {study.id} does not allow the node to fit the released model to "
            "its own records",
            fix=_ask_officer(documents, study),
            clause=CLAUSE,
        )
    return assessment, permit


def _require(assessment: Assessment, documents: CurrentDocuments, study: Study) -> None:
    """Raise Refusal with every reason unless the documents allow a use of the records now."""
    if assessment.allowed:
        return
    about_permit = assessment.findings[0].clause.startswith(PERMITS)
    raise assessment.refusal(
        f"The model of {study.id} may not be calibrated on the records of this node",
        fix=_ask_officer(documents, study) if about_permit else "",
    )


def _ask_officer(documents: CurrentDocuments, study: Study) -> str:
    own = documents.own
    decided = own.permit(study.digest) or own.withdrawal(study.digest)
    again = " --reconsider" if decided else ""
    note = f" ({MORE_RUNS})" if decided else ""
    return f"ask your officer to run `pratique-officer approve {study.id} --calibrate{again}`{note}"
