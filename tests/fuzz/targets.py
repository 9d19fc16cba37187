"""Every parser of bytes from outside, with inputs to begin from: the one list of targets.

A target is called with any bytes. It returns, or it raises a PratiqueError: the refusal that its
callers expect. Any other exception, a crash, or a call of more than some seconds is a fault; so is
a refusal that cannot be shown, and what a target's own checks find.
"""

from tests.fuzz.daemon_targets import DAEMON_TARGETS
from tests.fuzz.document_targets import DOCUMENT_TARGETS
from tests.fuzz.file_targets import FILE_TARGETS
from tests.fuzz.identity_targets import IDENTITY_TARGETS
from tests.fuzz.log_targets import LOG_TARGETS
from tests.fuzz.network_targets import NETWORK_TARGETS
from tests.fuzz.private_sum_targets import PRIVATE_SUM_TARGETS
from tests.fuzz.record_targets import RECORD_TARGETS
from tests.fuzz.result_targets import RESULT_TARGETS
from tests.fuzz.target import Target
from tests.fuzz.trust_targets import TRUST_TARGETS

TARGETS: dict[str, Target] = {
    **DOCUMENT_TARGETS,
    **TRUST_TARGETS,
    **NETWORK_TARGETS,
    **IDENTITY_TARGETS,
    **PRIVATE_SUM_TARGETS,
    **RECORD_TARGETS,
    **RESULT_TARGETS,
    **FILE_TARGETS,
    **LOG_TARGETS,
    **DAEMON_TARGETS,
}
"""The parsers by name."""
