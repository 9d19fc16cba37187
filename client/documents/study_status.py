"""The decision of a country about a study: permitted, withdrawn, lapsed or not decided."""

from datetime import datetime

from governance.documents.permit import Permit, Withdrawal
from governance.documents.study import Study

PERMITTED, WITHDRAWN = "permitted", "withdrawn"
LAPSED, UNDECIDED, EXPIRED = "permit lapsed", "no permit", "expired"


def study_status(
    study: Study, permit: Permit | None, withdrawal: Withdrawal | None, now: datetime
) -> str:
    """Return the country's decision about a study at `now`."""
    if withdrawal is not None:
        return WITHDRAWN
    if now >= study.expires:
        return EXPIRED
    if permit is None:
        return UNDECIDED
    return PERMITTED if now < permit.conditions.expires else LAPSED
