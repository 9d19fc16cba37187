"""What owners sent with their contributions, ordered by the country that holds the shares.

Commitments and sealed shares of an owner travel joined, in the order of the roster; an owner seals
no share for itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keys.derive import HASH_BYTES
from protocols.private_sum.messages import SEALED_BYTES, split_parts


@dataclass(frozen=True)
class DealtShares:
    """What one owner sent with its contribution: signed commitments, sealed shares, by holder."""

    commitments: Mapping[str, bytes]
    sealed: Mapping[str, bytes]
    seed_commitment: bytes


def read_dealt(
    roster: Sequence[str],
    seed_commitments: Mapping[str, bytes],
    commitments: Mapping[str, bytes],
    sealed: Mapping[str, bytes],
) -> dict[str, DealtShares]:
    """Return what each owner of `seed_commitments` sent.

    Raises Refusal ROSTER if joined parts have another length.
    """
    return {
        owner: DealtShares(
            commitments=split_parts(commitments[owner], roster, HASH_BYTES),
            sealed=split_parts(sealed[owner], [c for c in roster if c != owner], SEALED_BYTES),
            seed_commitment=mark,
        )
        for owner, mark in seed_commitments.items()
    }


def sealed_by_holder(
    roster: Sequence[str], owners: Sequence[str], sealed: Mapping[str, bytes]
) -> NDArray[np.uint8]:
    """Return sealed shares, (holders, owners, bytes), zeros if the owner is the holder."""
    table = np.zeros((len(owners), len(roster), SEALED_BYTES), np.uint8)
    for row, owner in zip(table, owners, strict=True):
        parts = np.frombuffer(sealed[owner], np.uint8).reshape(-1, SEALED_BYTES)
        index = roster.index(owner)
        row[:index], row[index + 1 :] = parts[:index], parts[index:]
    return np.ascontiguousarray(table.swapaxes(0, 1))


def commitments_for(number: int, joined: Mapping[str, bytes]) -> bytes:
    """Return, joined, each owner's commitment to the share of the roster's country `number`.

    `joined` has the commitments of each owner; the first country of the roster is number 0.
    """
    start = HASH_BYTES * number
    return b"".join(each[start : start + HASH_BYTES] for each in joined.values())
