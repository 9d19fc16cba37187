"""Numbers the starts of a node's state, so that a restart differs from a copy of the folder.

The number rises at each start and is on disk before the first call: a restart has a higher one than
the start before, and a copy that is older does not. Beside it is the hash of a secret that only the
running process knows. A copy of the folder does not contain that secret, so it cannot call in the
name of the session that it was copied from (`server.exchange.fencing` decides what follows).
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from client.state.key_value import get_value, set_value
from governance.runtime.database import transaction
from protocols.wire.flower_frame import SESSION_BYTES

IF_COPIED = (
    "if you copied or restored the folder yourself, stop the wrong machine, ask the coordinator "
    "for `revoke` and an invitation, and run `enrol`; if you do not know who copied it, treat the "
    "folder as stolen: make a new node"
)
"""What to do if two machines have one identity."""
INCARNATION, LAST_SESSION = "incarnation", "last-session"
"""The names under which the number and the hash are stored in the node's database."""


@dataclass(frozen=True)
class Incarnation:
    """One start of a node: its number, its secret, and the hash of the secret before it."""

    number: int
    session: bytes
    former: bytes


def begin(engine: Engine, entropy: Callable[[int], bytes] = os.urandom) -> Incarnation:
    """Return this start of the node, once it is on disk. Raises StorageFault."""
    session = entropy(SESSION_BYTES)
    with transaction(engine) as connection:
        number = int(get_value(connection, INCARNATION) or 0) + 1
        former = bytes.fromhex(get_value(connection, LAST_SESSION) or "")
        set_value(connection, INCARNATION, str(number))
        set_value(connection, LAST_SESSION, hashlib.sha256(session).hexdigest())
    return Incarnation(number, session, former)
