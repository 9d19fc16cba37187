"""The fewest countries over which a sum is opened: what a node enforces, and what people are shown.

The coordinator chooses the countries of a run among those of the study. A sum over few countries
shows more of each, so the permit states the fewest that its country accepts.
"""

from governance.documents.agreement import Agreement
from governance.documents.permit import Permit
from governance.documents.study import Study
from protocols.private_sum.context import share_threshold


def proposed_minimum(study: Study, agreement: Agreement) -> int:
    """Return what a permit states unless its officer demands more.

    It is the fewest countries of a sum if every country of the study is in the run: the agreement's
    smallest number, or the share threshold if that is more. So a run over fewer countries opens
    nothing that a run over all of them would not.
    """
    threshold = share_threshold(len(study.countries), agreement.colluding)
    return max(_agreed_minimum(agreement), threshold)


def enforced_minimum(agreement: Agreement, permit: Permit) -> int:
    """Return the fewest countries of any run, and of any sum, that the node takes part in."""
    return max(_agreed_minimum(agreement), permit.minimum_countries)


def _agreed_minimum(agreement: Agreement) -> int:
    return max(agreement.smallest_countries, agreement.honest + agreement.colluding)
