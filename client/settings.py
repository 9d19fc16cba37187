"""The settings of a node: its country, its records, its exchange.

No setting decides what may leave: none names a noise source, a budget or a policy.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from client.errors import NodeFault
from governance.documents.models import Country, PublicKey
from governance.runtime.loopback import LoopbackAddress
from protocols.tasks.module import ModuleName
from protocols.wire.encoding import Digest

Register = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Enrolment(BaseModel):
    """The federation that admitted the node, and the digests that were compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    federation: Annotated[str, Field(max_length=64)]
    exchange: Annotated[str, Field(max_length=260)]
    authority_digest: Digest
    root_digest: Digest


class NodeSettings(BaseModel):
    """The settings of one node, stored as `node.yaml` in its home.

    `opt_out` lists the patients who opted out (None: no list). If it covers the `nation`, most of
    its entries are of people who are no patients here (None: it covers the register). `officer_key`
    is the pinned document key of the node's country. `person_register` is the person register of
    the records, whose ledger this node keeps (None: the only one in the agreement). `observe` is
    the loopback address of metrics and health (None: off). `log_file` gets the log lines (None:
    standard error). `modules` lists torch modules of installed packages that studies may name
    (`client.tasks.module_registry`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: Country
    data: Path
    dictionary: Path
    opt_out: Path | None = None
    opt_out_covers: Literal["nation"] | None = None
    officer_key: PublicKey
    person_register: Register | None = None
    enrolment: Enrolment | None = None
    observe: LoopbackAddress | None = None
    log_file: Path | None = None
    modules: Annotated[tuple[ModuleName, ...], Field(max_length=64)] = ()

    def require_enrolment(self) -> Enrolment:
        """Return the enrolment. Raises NodeFault if the node belongs to no federation yet."""
        if self.enrolment is None:
            raise NodeFault(
                "This node belongs to no federation yet",
                why="it has no certificate, and no root to verify documents with",
                fix="run `pratique-node enrol INVITATION`",
            )
        return self.enrolment
