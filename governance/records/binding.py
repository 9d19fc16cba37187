"""Compares rows of the database with the entries of the log that name them.

Each guarded row is named by exactly one entry, by its digest, and each digest in the log has its
row. So a row that is changed, removed or added differs from the log, and the log is signed.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from governance.audit.events import EventKind
from governance.audit.integrity import not_as_signed
from governance.budget.accounting import MICRO, rdp_micro
from governance.budget.ledger import LedgerEntry
from protocols.tasks.schedule import PART_OF

HASH_BYTES, SUM_BITS = 32, 512
GUARDED = "charges, replies, counts, ended runs"
NAMES_ROWS = b'"rows":['
"""What canonical JSON of an entry that names rows contains."""
PRICE_TOLERANCE = 1e-6
"""The part by which a recomputed price may be higher, on a machine with another mathematics
library: an entry of the log fixes the exact price."""

Stated = Callable[[], Iterable[str]]
"""Returns the digests that the log states, from the beginning each time it is called."""


NOTHING_STORED: Mapping[str, str] = {}


def stated_rows(
    entries: Iterable[bytes], bodies: Mapping[str, str] = NOTHING_STORED
) -> Iterator[str]:
    """Yield the digests of rows that these entries of the log name.

    `bodies` are the digests of the bytes that are stored beside some rows, by the row's digest.
    Raises LogFault if the entry that names such a row states other bytes. An entry `state-signed`
    states none: the version before did not name the row.
    """
    for entry in entries:
        if NAMES_ROWS not in entry:
            continue
        fields = json.loads(entry)
        for row in fields.get("rows", ()):
            former = fields["kind"] == EventKind.STATE_SIGNED
            if row in bodies and not former and bodies[row] != fields.get("body"):
                raise not_as_signed("a reply in its journal is not the one that was sent")
            yield row


def require_bound(stated: Stated, stored: Stated) -> None:
    """Raise LogFault unless the log states exactly the digests of the stored rows.

    Both are read once, in constant memory; only to name a difference are they read again.
    """
    key = os.urandom(HASH_BYTES)
    named, present = _Tally(key), _Tally(key)
    named.add_all(stated())
    present.add_all(stored())
    if named != present:
        unknown = set(stored()) - set(stated())
        raise not_as_signed(
            f"{len(unknown)} of its guarded rows ({GUARDED}) were changed or added"
            if unknown
            else f"it lacks guarded rows ({GUARDED}) that the log names: "
            f"{present.number} of {named.number} are there"
        )


def require_prices(charges: Iterable[LedgerEntry]) -> None:
    """Raise LogFault unless each charge costs at least what its mechanism costs.

    A charge that only a part of the patients pays must be for a release from this part.
    """
    for charge in charges:
        if charge.part is not None and charge.part != PART_OF.get(charge.phase):
            raise not_as_signed(f"charge {charge.position} of the ledger is for other patients")
        price = rdp_micro(charge.mechanism, charge.honest, charge.order)
        if charge.rdp_micro < price - 1 - price * PRICE_TOLERANCE:
            raise not_as_signed(
                f"charge {charge.position} of the ledger is {charge.rdp_micro / MICRO:.6f}, and "
                f"its release costs {price / MICRO:.6f}"
            )


@dataclass
class _Tally:
    """A sum of keyed hashes: equal for equal collections of digests, in whatever order.

    The key is new for each comparison, so nobody can choose rows whose sum fits.
    """

    key: bytes
    number: int = 0
    total: int = field(default=0)

    def add_all(self, digests: Iterable[str]) -> None:
        for each in digests:
            keyed = blake2b(each.encode(), key=self.key, digest_size=HASH_BYTES).digest()
            self.total = (self.total + int.from_bytes(keyed)) % 2**SUM_BITS
            self.number += 1
