"""A study in plain words, for the officer who decides on it."""

from governance.documents.agreement import Agreement
from governance.documents.study import Study
from governance.policy.assessment import Assessment


def explain_study(study: Study, agreement: Agreement, assessment: Assessment) -> str:
    """Return who asks what, why, of whom, at what cost, and what becomes of the result."""
    raise NotImplementedError
