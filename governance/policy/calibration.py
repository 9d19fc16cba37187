"""What officers read about the calibration of a released model on their node's own records.

The permit decides; without its condition `calibrate` the node refuses.
"""

from governance.documents.permit import Permit

ALLOWED = (
    "your node may fit the released model to its own records, until the permit ends; the outcome "
    "stays on the node, and no command sends it"
)
FORBIDDEN = "your node may not fit the released model to its own records"
UNDECIDED = f"{FORBIDDEN}, unless you approve with --calibrate"


def calibration_in_words(permit: Permit | None, *, may_approve: bool = True) -> str:
    """Return what a permit in force says about calibration.

    Without one, what the officer may decide, if the study can be approved.
    """
    if permit is None:
        return UNDECIDED if may_approve else FORBIDDEN
    return ALLOWED if permit.conditions.calibrate else FORBIDDEN
