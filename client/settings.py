"""What a node's operator fixed: whose node it is, where its records lie, where its exchange is.

Nothing here decides what may leave: no setting names a noise source, a budget or a policy.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from governance.documents.models import Country, PublicKey
from governance.runtime.loopback import LoopbackAddress
from protocols.tasks.module import ModuleName
from protocols.wire.encoding import Digest

Register = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Enrolment(BaseModel):
    """Which federation the node was admitted to, and the digests it compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    federation: Annotated[str, Field(max_length=64)]
    exchange: Annotated[str, Field(max_length=260)]
    authority_digest: Digest
    root_digest: Digest


class NodeSettings(BaseModel):
    """The settings of one node, kept as `node.yaml` in its home.

    `officer_key` is the pinned document key of the own country; `person_register` the person
    register that the records belong to, whose ledger this node keeps (None: the agreement's only
    one). `observe` is where metrics and health are shown, on loopback only (None: nowhere);
    `log_file` takes the log lines (None: standard error does). `modules` lists torch modules of
    packages beside the node that studies may name (`client.tasks.module_registry`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: Country
    data: Path
    dictionary: Path
    opt_out: Path | None = None
    officer_key: PublicKey
    person_register: Register | None = None
    enrolment: Enrolment | None = None
    observe: LoopbackAddress | None = None
    log_file: Path | None = None
    modules: Annotated[tuple[ModuleName, ...], Field(max_length=64)] = ()
