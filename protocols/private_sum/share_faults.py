"""Judges who is at fault for a share that does not help to recover its owner's seed.

An owner signs a commitment to the share of each holder. The coordinator forwards it with the sealed
share, and a holder that compares hands in no other share: it reports the owner instead, with the
key that opens the sealed share. So signatures show that

- a holder that compared, and handed in another share, did not follow the protocol;
- a holder whose report is about a sealed share that opens and is right did not either;
- an owner whose sealed share opens and is another one did not;
- an owner whose committed shares give another seed than the one it signed did not.

A sealed share that does not open shows that one of the two is at fault, and not which: both have
its key, and no third party can know it. The same holds for a holder of an earlier version, which
does not compare. But a country that is in such a dispute with more countries than may collude is
at fault: otherwise all of these would be. The key opens nothing else: it is derived for one owner,
holder and round, and the share in it is what the holder would have handed in.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocols.private_sum import shares
from protocols.private_sum.contribution import open_share
from protocols.private_sum.dealt_shares import DealtShares

HANDED_IN = "signed a share that is not the one it holds"
FALSE_REPORT = "reported a correct share as unusable"
SEALED_ANOTHER = "sealed another share than the one it committed to"
DISPUTED_BY_MANY = "is in dispute about shares with more countries than may collude"
INCONSISTENT = "committed to shares that do not give its seed"


@dataclass(frozen=True)
class ShareReport:
    """An unusable share: one that was `handed_in`, or that the holder reported.

    `compared` says whether the holder compares shares with their commitments; `key` opens the
    sealed share, as the holder says.
    """

    holder: str
    owner: str
    handed_in: bool
    compared: bool
    key: bytes | None


@dataclass(frozen=True)
class ShareFaults:
    """The countries at fault, each with what its signature shows, and the undecided pairs.

    `disputed` are pairs (holder, owner) of which one is at fault.
    """

    convicted: Mapping[str, str]
    disputed: tuple[tuple[str, str], ...]

    @property
    def undecided(self) -> str:
        """What is not decided, to follow a reason; it names nobody: one of two is innocent."""
        if not self.disputed:
            return ""
        return "; no signature shows whether a share was sealed wrongly or is read wrongly"


def judge(
    context: bytes,
    reports: Iterable[ShareReport],
    dealt: Mapping[str, DealtShares],
    inconsistent: Sequence[str],
    colluding: int,
) -> ShareFaults:
    """Return who is at fault. `inconsistent` owners have t committed shares, and no seed.

    `colluding` is c of the agreement; if it is 0, one country is assumed to lie.
    """
    convicted, disputed = dict.fromkeys(inconsistent, INCONSISTENT), []
    for report in reports:
        country, why = _at_fault(context, report, dealt[report.owner])
        if country:
            convicted.setdefault(country, why)
        else:
            disputed.append((report.holder, report.owner))
    for country in _disputed_by_many(disputed, max(1, colluding)):
        convicted.setdefault(country, DISPUTED_BY_MANY)
    undecided = (pair for pair in disputed if not convicted.keys() & {*pair})
    return ShareFaults(convicted, tuple(undecided))


def _disputed_by_many(disputed: Iterable[tuple[str, str]], most: int) -> Iterator[str]:
    """Yield the countries that are in dispute with more than `most` others."""
    others = defaultdict(set)
    for holder, owner in disputed:
        others[holder].add(owner)
        others[owner].add(holder)
    yield from (country for country, met in others.items() if len(met) > most)


def _at_fault(context: bytes, report: ShareReport, dealt: DealtShares) -> tuple[str, str]:
    """Return the country at fault and what it did; empty texts if that cannot be known."""
    holder, owner = report.holder, report.owner
    if holder == owner or (report.handed_in and report.compared):
        return holder, HANDED_IN
    if report.handed_in or report.key is None:
        return "", ""
    sealed, commitment = dealt.sealed[holder], dealt.seed_commitment
    share = open_share(context, report.key, owner, holder, sealed, commitment)
    if share is None:
        return "", ""
    right = shares.commit(context, owner, holder, share) == dealt.commitments[holder]
    return (holder, FALSE_REPORT) if right else (owner, SEALED_ANOTHER)
