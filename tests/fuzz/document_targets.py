"""Targets: documents, what people write as YAML, and national policies."""

import json
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

from governance.cedar import engine
from governance.cedar.engine import Act, PolicyRequest, check_national, decide
from governance.cedar.limits import check_limits
from governance.cedar.process import CedarProcess, _Child
from governance.cedar.texts import BASE_POLICY, SCHEMA
from governance.cedar.worker import Engine
from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.permit import Permit
from governance.documents.reading import read_document
from governance.documents.rotation import KeyHistory, extended
from governance.documents.study import Study
from governance.documents.yaml_text import dump_yaml, parse_yaml
from governance.errors import DocumentFault
from governance.officer.agreement_text import agreement_in_words
from governance.policy.facts import Charge, Facts
from governance.policy.study_terms import feature, task_terms
from governance.runtime.text_layout import broken
from protocols.wire.encoding import canonical_json, check_json
from tests.fuzz.target import WIDTH, Parse, Target, require_seen, text
from tests.support.document_samples import AGREED, ASKED, SAMPLES
from tests.support.documents import NOW, permit, raw_key

MODELS, READING = "governance/documents/models.py", "governance/documents/reading.py"
YAML, ENCODING = "governance/documents/yaml_text.py", "protocols/wire/encoding.py"
ENGINE, PROCESS = "governance/cedar/engine.py", "governance/cedar/process.py"
WRITTEN_BY_PEOPLE: tuple[type[Document], ...] = (Agreement, Study, Permit)
HISTORY = extended(None, "DK", raw_key(100), raw_key(200), NOW)
NATIONAL = (
    BASE_POLICY,
    '@id("a") forbid (principal, action, resource);',
    (
        '@id("dk/b") @sentence("No.")\n'
        'forbid (principal, action == Action::"contribute", resource)\n'
        'when { "train/glm" like "train/*" && ["DK", "é"].contains("\\u{e9}") };'
    ),
)
POLICIES = tuple(policy.encode() for policy in NATIONAL)


def _document(kind: type[Document]) -> Parse:
    """Read a document: it has one encoding, and its terms are shown without hidden characters."""

    def read(data: bytes) -> None:
        document = kind.from_canonical(data)
        assert document.canonical() == data
        for shown in _terms(document):
            require_seen(*broken(shown, WIDTH))

    return read


def _terms(document: Document) -> Iterator[str]:
    """Yield what an officer reads about a study or an agreement."""
    if isinstance(document, Study):
        yield from task_terms(document)
        yield from map(feature, document.features)
    if isinstance(document, Agreement):
        for part in agreement_in_words(document, "DK"):
            yield from (f"{name}: {fact}" for name, fact in part.facts.items())


def _written(kind: type[Document]) -> Parse:
    """Read what people write: the document that it becomes is the one that is signed."""

    def read(data: bytes) -> None:
        document = read_document(kind, data, source="file.yaml")
        assert kind.from_canonical(document.canonical()) == document

    return read


def _yaml(data: bytes) -> None:
    """Read YAML: what it means is the same after it is written and read again."""
    try:
        values = parse_yaml(data).values
    except ValueError as error:
        raise DocumentFault("It cannot be read", why=str(error)) from None
    if isinstance(values, dict) and all(map(math.isfinite, _numbers(values))):
        again = parse_yaml(dump_yaml(json.loads(json.dumps(values)))).values
        assert json.dumps(again) == json.dumps(values)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, float):
        yield value


def _json(data: bytes) -> None:
    """Check the nesting of JSON: what passes never exhausts a parser, and has one form.

    A number with a fraction beyond 2^53 has a form that is read as a whole number, and refused.
    """
    try:
        canonical = canonical_json(json.loads(check_json(data)))
        again = canonical_json(json.loads(canonical))
    except ValueError:
        return
    assert again == canonical


@cache
def _context() -> dict[str, object]:
    numbers = {"micro": 1_000, "cap_micro": 2_000_000, "left_micro": 1_500_000}
    charge = Charge(register="patients", order=8, epsilon=0.4, delta=1e-5, **numbers)
    facts = Facts(
        study=ASKED,
        agreement=AGREED,
        country="DK",
        now=NOW,
        permit=permit(AGREED, ASKED),
        withdrawal=None,
        installed_tasks=["stats/histogram"],
        charge=charge,
        owed_micro=1_000,
    )
    return dict(facts.context())


def _decide(policy: str) -> None:
    """Decide with a national policy: nothing that it says can be taken for ours."""
    request = PolicyRequest("coordinator", Act.CONTRIBUTE, ASKED.digest, _context())
    for clause in decide(request, BASE_POLICY, policy).clauses:
        if clause.id.startswith("national/"):
            assert not clause.ours
            require_seen(clause.id, clause.sentence, clause.fix)


@cache
def _engine() -> Engine:
    return Engine(SCHEMA)


def _within_limits(policy: str) -> None:
    """Have Cedar's native code read a text here: one within the limits does not crash it."""
    check_limits("The policy cannot be used", policy)
    worker = _engine()
    if not worker.check(policy).get("errors", ["unreadable"]):
        action = {"type": "Action", "id": "contribute"}
        worker.decide(
            policy,
            {
                "principal": {"type": "Coordinator", "id": "coordinator"},
                "action": action,
                "resource": {"type": "Study", "id": ASKED.digest},
                "context": _context(),
            },
        )


class _ScriptedChild(_Child):
    """Cedar's process that answers these bytes, and ends."""

    def __init__(self, answer: bytes) -> None:
        self._socket, self._theirs = socket.socketpair()
        self._theirs.sendall(answer)
        self._theirs.shutdown(socket.SHUT_WR)
        self._lines = self._socket.makefile("rb")

    @property
    def runs(self) -> bool:
        return True

    def end(self) -> int:
        for opened in (self._lines, self._socket, self._theirs):
            opened.close()
        return 0


def _checked_by_cedar(data: bytes) -> None:
    """Read an answer of Cedar's process about a text, as if a text had taken the process over."""
    with _answering(data):
        engine._checked.__wrapped__("The policy cannot be used", NATIONAL[1])


def _decided_by_cedar(data: bytes) -> None:
    """Read an answer of Cedar's process about a request; a clause of ours decides, or nothing."""
    clauses = engine._clauses.__wrapped__(BASE_POLICY, "")
    with _answering(data), patch.object(engine, "_clauses", lambda *_: clauses):
        request = PolicyRequest("coordinator", Act.CONTRIBUTE, ASKED.digest, _context())
        decision = engine._answer(request, BASE_POLICY, "")
    assert decision.clauses or decision.allowed


@contextmanager
def _answering(data: bytes) -> Iterator[None]:
    """Let a process that answers these bytes take the place of Cedar's; nothing of it is kept."""
    cedar = CedarProcess(SCHEMA)
    cedar._idle.append(_ScriptedChild(data))
    try:
        with patch.object(engine, "_process", lambda: cedar):
            yield
    finally:
        cedar.close()


def _targets() -> Iterator[tuple[str, Target]]:
    for sample in (*SAMPLES, HISTORY):
        kind = type(sample)
        extra = ("governance/documents/rotation.py",) if kind is KeyHistory else ()
        modules = (MODELS, *extra)
        yield f"{kind.__name__} document", Target(_document(kind), (sample.canonical(),), modules)
    for kind in WRITTEN_BY_PEOPLE:
        seeds = tuple(
            form for s in SAMPLES if isinstance(s, kind) for form in (s.canonical(), _as_yaml(s))
        )
        yield f"{kind.__name__} file", Target(_written(kind), seeds, (READING, YAML))


def _as_yaml(document: Document) -> bytes:
    return dump_yaml(document.model_dump(mode="json"))


YAML_SEEDS = (
    b"a: 1\nb: [x, 'y', \"\\u00e9\"]\nc: {d: 1e-5, e: null}\n",
    b"- NO\n- 010\n- 12:30\n- |\n  text\n- >-\n  folded\n  text\n",
)
ANSWERS = (
    b'{"policies": {"policy0": {"effect": "forbid", "annotations": {"id": "a"}}}, "errors": []}\n',
    b'{"fault": "Cedar cannot read it", "policies": {}, "errors": [["policy0", "it"]]}\n',
    b'{"decision": "Allow", "reasons": ["policy0"], "errors": []}\n',
)
DOCUMENT_TARGETS: dict[str, Target] = {
    **dict(_targets()),
    "YAML": Target(_yaml, YAML_SEEDS, (YAML, "governance/runtime/text_files.py")),
    "JSON of another party": Target(_json, (ASKED.canonical(),), (ENCODING,)),
    "Cedar text": Target(text(check_national), POLICIES, (ENGINE, PROCESS)),
    "Cedar text within the limits": Target(
        text(_within_limits), POLICIES, ("governance/cedar/limits.py", "governance/cedar/worker.py")
    ),
    "national policy that decides": Target(text(_decide), POLICIES, (ENGINE,)),
    "answer of Cedar's process about a text": Target(_checked_by_cedar, ANSWERS, (PROCESS, ENGINE)),
    "decision of Cedar's process": Target(_decided_by_cedar, ANSWERS, (PROCESS, ENGINE)),
}
