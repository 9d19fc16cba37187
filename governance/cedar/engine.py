"""Decide with Cedar: the installed base policy, the agreement's and the country's must all allow.

Only an Allow without errors counts. Without a schema, cedarpy skips a `forbid` whose evaluation
fails; with a schema, it still skips one that overflows and only reports it. Both are refusals here.
A national policy may only forbid, so it can tighten and never loosen. The installed base policy
always counts, so an agreement cannot drop a rule either.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from governance.cedar.limits import check_limits
from governance.cedar.process import CedarProcess, CheckedPolicy, CheckedText
from governance.cedar.texts import BASE_POLICY, SCHEMA
from governance.errors import DocumentFault
from governance.runtime.safe_text import is_plain
from protocols.errors import ReasonCode

NATIONAL = "national"
FORBID_ALL = (
    '@id("unreadable") @sentence("The national policy cannot be read, so it may forbid this.") '
    '@fix("ask the officer of that country to sign a policy that can be read") '
    "forbid (principal, action, resource);"
)
"""Used in place of a national policy that cannot be read."""


class Act(StrEnum):
    """The action: `propose` needs no permit yet, `contribute` does."""

    PROPOSE = "propose"
    CONTRIBUTE = "contribute"


@dataclass(frozen=True)
class PolicyRequest:
    """The coordinator, the action and the study; `context` holds every fact of the schema."""

    coordinator: str
    act: Act
    study: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Clause:
    """A rule that determined a decision: its id, code and texts, with $names not filled in.

    `ours` is false if a party wrote the texts, and not this program.
    """

    id: str
    code: ReasonCode = ReasonCode.POLICY
    sentence: str = ""
    fix: str = ""
    ours: bool = True


@dataclass(frozen=True)
class Decision:
    """Whether the request is allowed, and the clauses that determined this."""

    allowed: bool
    clauses: tuple[Clause, ...]


def decide(request: PolicyRequest, base: str, national: str | None) -> Decision:
    """Allow the request only if the installed base, `base` and `national` all allow it.

    Everything else is a refusal: NoDecision, an evaluation error, a policy that does not validate,
    a national policy that permits.
    """
    try:
        check_base(base)
        if national is not None:
            check_national(national)
        texts = dict.fromkeys((BASE_POLICY, base))
        return _all_of([_answer(request, text, national or "") for text in texts])
    except DocumentFault as fault:
        return _refused("policy/unusable", fault.sentence, fault.fix)


def check_base(text: str) -> None:
    """Raise DocumentFault unless the policies fit the schema and each has a unique @id."""
    _checked("The policy cannot be used", text)


def check_national(text: str) -> None:
    """Raise DocumentFault unless every policy of the text is a `forbid` that fits the schema."""
    what = "The national policy cannot be used"
    permits = [p for p in _checked(what, text).values() if p.effect != "forbid"]
    if permits:
        raise _fault(what, f"{_id(permits[0])} is a permit: a country's policy can only forbid")


@lru_cache(maxsize=64)
def _checked(what: str, text: str) -> Mapping[str, CheckedPolicy]:
    check_limits(what, text)
    answer = _process().check(text)
    for problem in _problems(answer):
        raise _fault(what, problem)
    return answer.policies


def _problems(answer: CheckedText) -> Iterator[str]:
    if answer.fault:
        yield answer.fault
    policies = answer.policies
    ids = [_id(policy) for policy in policies.values()]
    if not all(ids) or len(set(ids)) != len(ids):
        yield 'every policy needs its own id, such as @id("dk/no-genomics")'
    if not all(is_plain(note) for policy in policies.values() for note in _notes(policy)):
        yield "an annotation contains control or invisible characters"
    for name, error in answer.errors:
        known = policies.get(name)
        yield f"it does not fit the schema: {_id(known) if known else ''} {error}"


def _id(policy: CheckedPolicy) -> str:
    return policy.annotations.get("id") or ""


def _notes(policy: CheckedPolicy) -> list[str]:
    return [note or "" for note in policy.annotations.values()]


def _fault(what: str, why: str) -> DocumentFault:
    return DocumentFault(what, why=why, fix="correct the Cedar text and sign it again")


@lru_cache(maxsize=1)
def _process() -> CedarProcess:
    return CedarProcess(SCHEMA)


@lru_cache(maxsize=64)
def _clauses(base: str, national: str) -> Mapping[str, Clause]:
    """Return the clauses of both texts by the names that Cedar gives their policies, in order."""
    first_national = len(_checked("", base))
    policies = [
        *_checked("", base).values(),
        *(_checked("", national).values() if national else ()),
    ]
    return {
        f"policy{position}": _clause(
            policy, national=position >= first_national, ours=base == BASE_POLICY
        )
        for position, policy in enumerate(policies)
    }


def _position(name: str) -> int:
    """Return a policy's position in the text: Cedar names policies `policy0`, `policy1`, ..."""
    return int(name.removeprefix("policy"))


def _clause(policy: CheckedPolicy, *, national: bool, ours: bool) -> Clause:
    notes = policy.annotations
    id_ = f"{NATIONAL}/{_id(policy)}" if national else _id(policy)
    code = notes.get("code") or ""
    known = code in {c.value for c in ReasonCode}
    return Clause(
        id=id_,
        code=ReasonCode(code) if known else ReasonCode.POLICY,
        sentence=notes.get("sentence") or f"The rule {id_} forbids it.",
        fix=notes.get("fix") or "ask the authority that wrote the rule",
        ours=ours and not national,
    )


def _answer(request: PolicyRequest, base: str, national: str) -> Decision:
    answer = _process().decide(
        f"{base}\n{national}",
        {
            "principal": {"type": "Coordinator", "id": request.coordinator},
            "action": {"type": "Action", "id": request.act.value},
            "resource": {"type": "Study", "id": request.study},
            "context": dict(request.context),
        },
    )
    by_name = _clauses(base, national)
    if unknown := set(answer.reasons) - set(by_name):
        raise _fault("The policy cannot be used", f"Cedar names a policy {min(unknown)} beyond it")
    clauses = tuple(by_name[name] for name in sorted(answer.reasons, key=_position))
    if answer.decision == "Deny" and clauses:
        return Decision(allowed=False, clauses=clauses)
    if answer.decision == "Allow" and not answer.errors:
        return Decision(allowed=True, clauses=clauses)
    why = "; ".join(answer.errors) or "no policy permits it"
    return _refused("policy/no-decision", f"The policies give no clear answer: {why}", "")


def _refused(id_: str, sentence: str, fix: str) -> Decision:
    fix = fix or "ask whoever maintains the policies; until then nothing is computed"
    return Decision(allowed=False, clauses=(Clause(id_, sentence=sentence, fix=fix),))


def _all_of(decisions: list[Decision]) -> Decision:
    """Allow if all allow; on a refusal, only the clauses of refusals count."""
    allowed = all(decision.allowed for decision in decisions)
    counted = [d for d in decisions if allowed or not d.allowed]
    clauses = {clause.id: clause for decision in counted for clause in decision.clauses}
    return Decision(allowed=allowed, clauses=tuple(clauses.values()))
