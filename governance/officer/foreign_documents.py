"""Documents of the officer's country that the exchange shows and this folder did not sign.

Somebody who copied the document key can submit them; so can the officer, from a folder that was
lost later. Only the officer can distinguish the two. So only refusals are taken over without a
question: they make the country do less, never more.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.runtime.files import write_atomic
from governance.trust.bundle import CountryDocuments
from governance.trust.signing import OfficerDocuments
from keys.composite import read_identity
from keys.identity import VerifyKey

MAX_REFUSALS = 250
"""The most refusals of studies without a permit here: a thief must not fill the folder."""
MAX_NAMED = 10
MEANS = "somebody else signs with your key, or your folder is an old copy"


class ForeignDocuments(BaseModel):
    """The documents that were shown. The `next_key` that they name is never taken over."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    version: int
    node: NodeKeys | None
    permits: tuple[Permit, ...]
    withdrawals: tuple[Withdrawal, ...]
    policy: str | None
    next_key: str | None


def foreign(
    own: CountryDocuments | None, version: int, published: CountryDocuments | None
) -> ForeignDocuments | None:
    """Return the documents that the exchange shows, if this folder did not sign them; else None.

    `own` is what the folder signed last, and `version` its last version, under the next key too.
    An older version is one that this folder signed earlier.
    """
    if published is None or published.version < version:
        return None
    seen = ForeignDocuments(
        version=published.version,
        node=published.node,
        permits=tuple(published.permits.values()),
        withdrawals=tuple(published.withdrawals.values()),
        policy=published.policy,
        next_key=published.next_key,
    )
    return seen if published.version > version or names(own, seen) else None


def names(own: CountryDocuments | None, seen: ForeignDocuments) -> tuple[str, ...]:
    """Name each document that was shown and is not this folder's, the most serious first."""
    listed = []
    if seen.node and (own is None or own.node != seen.node):
        key = read_identity(seen.node.identity_key).fingerprint
        listed.append(f"the keys of a node ({key})")
    if seen.next_key and (own is None or own.next_key != seen.next_key):
        key = VerifyKey.from_text(seen.next_key).fingerprint
        listed.append(f"a new document key ({key})")
    if seen.policy != (own.policy if own else None):
        listed.append("a national policy" if seen.policy else "no national policy")
    permits, refusals = (own.permits, own.withdrawals) if own else ({}, {})
    listed += [f"a permit for {p.study}" for p in seen.permits if permits.get(p.study) != p]
    listed += [f"a refusal of {w.study}" for w in seen.withdrawals if w.study not in refusals]
    return tuple(listed)


def sentence(own: CountryDocuments | None, seen: ForeignDocuments) -> str:
    """Return in words what was shown, and what it means."""
    named = names(own, seen)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    what = f", with {', '.join(named[:MAX_NAMED])}{more}" if named else ""
    return (
        f"THE EXCHANGE SHOWS DOCUMENTS THAT THIS FOLDER DID NOT SIGN: version {seen.version} of "
        f"your country's{what}; {MEANS}"
    )


def take_over_refusals(
    documents: OfficerDocuments, own: CountryDocuments | None, seen: ForeignDocuments
) -> None:
    """Take over each refusal that this folder lacks. It can only stop what the folder permits.

    Of studies without a permit here, no more than leave the folder half of its room.
    """
    permits, refusals = (own.permits, own.withdrawals) if own else ({}, {})
    lacking = [w for w in seen.withdrawals if w.study not in refusals]
    room = max(0, min(MAX_REFUSALS - len(refusals), documents.room // 2))
    others = [w for w in lacking if w.study not in permits][:room]
    for withdrawal in (*(w for w in lacking if w.study in permits), *others):
        documents.withdraw(withdrawal)


def take_over(
    documents: OfficerDocuments, own: CountryDocuments | None, seen: ForeignDocuments
) -> None:
    """Take over all that was shown except a new document key; the officer has agreed to it.

    A refusal in either of the two counts, so that no withdrawn permit becomes valid again.
    """
    decided = {*own.permits, *own.withdrawals} if own else set()
    for permit in seen.permits:
        if permit.study not in decided:
            documents.approve(permit)
    for withdrawal in seen.withdrawals:
        documents.withdraw(withdrawal)
    if seen.node:
        documents.set_node(seen.node)
    documents.set_policy(seen.policy)


def keep(path: Path, seen: ForeignDocuments) -> None:
    """Store what was shown: the exchange drops it once this folder has signed again."""
    write_atomic(path, seen.model_dump_json().encode())


def kept(path: Path) -> ForeignDocuments | None:
    """Return what was shown last and not taken over; None if there is none."""
    try:
        return ForeignDocuments.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
