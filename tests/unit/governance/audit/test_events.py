import json
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from governance.audit.events import (
    LARGEST_ENTRY,
    Event,
    EventKind,
    Outcome,
    entry_bytes,
    parse_canonical,
    parse_entry,
)
from governance.errors import LogFault
from protocols.errors import ReasonCode
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import canonical_json
from tests.support.ledger_and_log import (
    NOW,
    ORIGIN,
    STUDY,
    event,
    run_id,
)

FULL = event(
    7,
    kind=EventKind.REQUEST_REFUSED,
    outcome=Outcome.REFUSED,
    subject="SHA256:abcd",
    phase="contribute",
    code=ReasonCode.BUDGET,
    reason="The budget of adults does not cover this study.",
    clause="agreement/budget",
    policies=("agreement/budget",),
    documents=DocumentVersions(root=1, targets=2, countries={"XA": 3}),
    body=STUDY,
)


def test_an_entry_is_one_canonical_line_with_its_log_and_index() -> None:
    data = entry_bytes(FULL, origin=ORIGIN, index=7)
    assert b"\n" not in data
    assert parse_entry(data) == {
        "v": 1,
        "origin": ORIGIN,
        "index": 7,
        "kind": "request-refused",
        "at": "2026-02-10T00:00:07Z",
        "actor": "XA",
        "outcome": "refused",
        "subject": "SHA256:abcd",
        "study": STUDY,
        "run": run_id(7),
        "round": 7,
        "phase": "contribute",
        "code": "budget",
        "reason": "The budget of adults does not cover this study.",
        "clause": "agreement/budget",
        "policies": ["agreement/budget"],
        "documents": {"root": 1, "targets": 2, "countries": {"XA": 3}},
        "body": STUDY,
    }


def test_unknown_fields_are_left_out_and_not_null() -> None:
    sparse = Event(kind=EventKind.NODE_STARTED, at=NOW, actor="XA")
    parsed = parse_entry(entry_bytes(sparse, origin=ORIGIN, index=0))
    assert set(parsed) == {"v", "origin", "index", "kind", "at", "actor", "outcome", "policies"}


def test_an_entry_reads_back_as_its_event() -> None:
    parsed = parse_entry(entry_bytes(FULL, origin=ORIGIN, index=7))
    fields = {name: value for name, value in parsed.items() if name not in {"v", "origin", "index"}}
    assert Event.model_validate(fields) == FULL


def test_times_are_written_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert event(at=elsewhere).at.tzinfo is UTC
    assert entry_bytes(event(at=elsewhere), origin=ORIGIN, index=0) == entry_bytes(
        event(at=NOW), origin=ORIGIN, index=0
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"at": NOW.replace(tzinfo=None)},
        {"kind": "patient-seen"},
        {"study": "sha256:short"},
        {"run": "not hexadecimal"},
        {"round": -1},
        {"body": "sha256:" + "z" * 64},
        {"reason": "x" * 601},
        {"actor": ""},
        {"code": "because"},
        {"count": 17},
        {"policies": ("p",) * 65},
    ],
)
def test_invalid_field_values_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        event(**changed)


def test_no_field_can_hold_a_count() -> None:
    """Round and document versions are the only numbers of an entry."""
    schema = json.dumps(Event.model_json_schema())
    assert schema.count('"integer"') == 4
    assert '"number"' not in schema


def test_an_event_too_large_is_refused() -> None:
    countries = {f"X{n:04}": n for n in range(3000)}
    vast = event(documents=DocumentVersions(root=1, targets=1, countries=countries))
    with pytest.raises(LogFault, match="too large"):
        entry_bytes(vast, origin=ORIGIN, index=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"index":0,"origin":"o","v":2}',
        b'{"index":"0","origin":"o","v":1}',
        b'{"index":true,"origin":"o","v":1}',
        b'{"index":0,"v":1}',
        b'{"v":1,"index":0,"origin":"o"}',
        b'{"index":0, "origin":"o","v":1}',
        b'{"index":0,"index":0,"origin":"o","v":1}',
        b'{"index":0.0,"origin":"o","v":1}',
        b'{"index":0,"origin":"o","v":1}\n',
        b'{"index":0,"origin":"\xff","v":1}',
        b'{"index":0,"origin":"\\ud800","v":1}',
        b'{"index":NaN,"origin":"o","v":1}',
        b'{"index":1e999,"origin":"o","v":1}',
        b'{"a":' * 5000,
        b'{"a":"' + b"x" * LARGEST_ENTRY + b'","index":0,"origin":"o","v":1}',
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LogFault):
        parse_entry(data)


def test_an_entry_of_an_unknown_kind_is_accepted() -> None:
    later = {"v": 1, "origin": ORIGIN, "index": 0, "kind": "from-the-future"}
    assert parse_entry(canonical_json(later)) == later


@given(st.binary(max_size=200))
def test_any_bytes_are_canonical_or_a_log_fault(data: bytes) -> None:
    try:
        parsed = parse_canonical(data, 200)
    except LogFault:
        return
    assert canonical_json(parsed) == data
