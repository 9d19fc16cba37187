"""The person register of a node's ledger: one register, whatever a study calls it."""

from governance.budget.ledger import Ledger
from governance.documents.agreement import Agreement
from protocols.errors import ReasonCode, Refusal

CLAUSE = "node/register"


def node_register(declared: str | None, ledger: Ledger, agreement: Agreement) -> str | None:
    """Return the node's register: the declared one, the one charged before, or the only one.

    Returns None if the agreement has several registers and neither of the first two is known.
    """
    if declared is not None:
        return declared
    charged = ledger.registers()
    known = charged or {budget.register_name for budget in agreement.budget}
    return known.pop() if len(known) == 1 else None


def require_node_register(register: str | None, requested: str) -> None:
    """Raise Refusal POLICY unless the register that a study requests is this node's `register`."""
    if register == requested:
        return
    if register is None:
        why = "the agreement has several registers, and this node has not declared its own"
        fix = "set `person_register` in node.yaml, and restart the node"
    else:
        why = (
            f"the records of this node belong to {register}, and no other name may bypass its "
            "budget"
        )
        fix = "ask the coordinator to name this node's register in the study"
    what = f"The study asks for the register {requested}"
    raise Refusal(ReasonCode.POLICY, what, why=why, fix=fix, clause=CLAUSE)
