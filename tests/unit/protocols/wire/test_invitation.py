"""Invitations and statements: strict parsing, and fingerprints over all of their content."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.certificates import TransportAuthority
from protocols.errors import ProtocolFault
from protocols.wire.encoding import canonical_json
from protocols.wire.invitation import (
    MAX_INVITATION,
    MAX_STATEMENT,
    TOKEN_BYTES,
    Invitation,
    Statement,
    enrolment_fingerprint,
    read_invitation,
)
from tests.support.enrolling import node_statement, officer_statement, text_key

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AUTHORITY = TransportAuthority.create("danube", NOW)
TOKEN = base64.b64encode(bytes(range(TOKEN_BYTES))).decode()
PLAIN: dict[str, Any] = {
    "federation": "danube",
    "exchange": "127.0.0.1:7443",
    "country": "AT",
    "role": "node",
    "token": TOKEN,
    "authority": AUTHORITY.certificate_pem.decode(),
    "authority_digest": AUTHORITY.digest,
    "root_digest": None,
    "certificate": "-",
    "key": "-",
    "expires": (NOW + timedelta(days=7)).isoformat(),
}


def invitation_bytes(**changed: Any) -> bytes:
    return json.dumps({**PLAIN, **changed}).encode()


def refused(content: bytes) -> ProtocolFault:
    with pytest.raises(ProtocolFault) as caught:
        Invitation.from_bytes(content)
    assert caught.value.what == "This file is not an invitation"
    assert caught.value.why
    assert "invite" in caught.value.fix
    return caught.value


def test_an_invitation_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "invitation.json"
    file.write_bytes(invitation_bytes())
    assert read_invitation(file) == Invitation.from_bytes(invitation_bytes())


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"kind":"permit"}'])
def test_a_file_that_is_not_an_invitation_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "invitation.json"
    file.write_bytes(content)
    with pytest.raises(ProtocolFault, match="not an invitation"):
        read_invitation(file)


def test_a_missing_invitation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtocolFault, match=re.escape(str(tmp_path / "none.json"))) as caught:
        read_invitation(tmp_path / "none.json")
    assert caught.value.why
    assert caught.value.fix


def test_an_invitation_is_read_as_it_was_written() -> None:
    read = Invitation.from_bytes(invitation_bytes())
    assert read.token_bytes() == bytes(range(TOKEN_BYTES))
    assert Invitation.from_bytes(read.model_dump_json().encode()) == read


@pytest.mark.parametrize("missing", sorted(set(PLAIN)))
def test_an_invitation_without_one_of_its_parts_is_refused(missing: str) -> None:
    refused(json.dumps({k: v for k, v in PLAIN.items() if k != missing}).encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"extra": 1},
        {"kind": "permit"},
        {"country": "at"},
        {"country": "AUT"},
        {"country": "A\n"},
        {"role": "coordinator"},
        {"role": "enrolment"},
        {"authority_digest": "sha256:" + "A" * 64},
        {"authority_digest": "md5:00"},
        {"root_digest": "sha256:1"},
        {"expires": "tomorrow"},
        {"expires": "2026-03-08T00:00:00"},
        {"federation": "x" * 65},
        {"exchange": "x" * 261},
        {"token": ""},
        {"token": "not base64 at all!"},
        {"token": TOKEN[:-4]},
        {"token": TOKEN + "AAAA"},
        {"token": TOKEN + "=" * 60},
        {"token": TOKEN.replace("A", "\n", 1)},
        {"token": "ä" * 44},
        {"token": 5},
        {"key": None},
    ],
)
def test_a_malformed_invitation_is_refused(changed: dict[str, Any]) -> None:
    refused(invitation_bytes(**changed))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"[]", b"\x80\x04\x95", b"{" * 50_000, b"[" * 200_000, b'"' + b"x" * 9],
)
def test_other_bytes_are_not_read_as_an_invitation(content: bytes) -> None:
    refused(content)


def test_an_invitation_over_the_limit_is_refused() -> None:
    refused(invitation_bytes(certificate="x" * MAX_INVITATION))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_invitation(content: bytes) -> None:
    refused(content)


@given(st.dictionaries(st.sampled_from(sorted(PLAIN)), st.none() | st.integers() | st.text()))
def test_any_change_is_refused_or_read_completely(changed: dict[str, Any]) -> None:
    content = invitation_bytes(**changed)
    try:
        read = Invitation.from_bytes(content)
    except ProtocolFault:
        return
    assert len(read.token_bytes()) == TOKEN_BYTES
    assert read.expires.tzinfo is not None
    assert read.role in {"node", "officer"}


def test_a_refusal_does_not_repeat_the_secret() -> None:
    fault = refused(invitation_bytes(token="SECRET" * 20, key="PRIVATE", country="at"))
    assert "SECRET" not in str(fault)
    assert "PRIVATE" not in str(fault)


@pytest.mark.parametrize("statement", [node_statement(), officer_statement()])
def test_a_statement_is_read_as_it_was_written(statement: Statement) -> None:
    assert Statement.from_bytes(statement.to_bytes()) == statement


@pytest.mark.parametrize("key", ["identity_key", "log_key", "log_origin", "node_auth"])
def test_a_node_states_all_of_its_keys(key: str) -> None:
    values = {k: v for k, v in node_statement().model_dump(exclude_none=True).items() if k != key}
    assert_no_statement(canonical_json(values))


def assert_no_statement(content: bytes) -> None:
    with pytest.raises(ProtocolFault, match="statement"):
        Statement.from_bytes(content)


def test_an_officer_states_its_document_key() -> None:
    assert_no_statement(canonical_json({"country": "AT", "role": "officer"}))
    assert_no_statement(canonical_json({"country": "AT", "role": "officer", "log_key": text_key()}))


@pytest.mark.parametrize("role", ["coordinator", "enrolment", "admin", ""])
def test_other_roles_are_refused(role: str) -> None:
    values = {**officer_statement().model_dump(exclude_none=True), "role": role}
    assert_no_statement(canonical_json(values))


@pytest.mark.parametrize(
    "key",
    ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 43 + "=", text_key() + "\n", " " + text_key()],
    ids=["none", "empty", "short", "rsa", "line end", "space"],
)
def test_a_malformed_key_is_refused(key: str) -> None:
    assert_no_statement(canonical_json({"country": "AT", "role": "officer", "document_key": key}))


def test_a_statement_has_one_form() -> None:
    statement = officer_statement()
    values = statement.model_dump(exclude_none=True)
    same = [
        json.dumps(values).encode(),
        statement.to_bytes() + b" ",
        b" " + statement.to_bytes(),
        json.dumps({**values, "log_key": None}, separators=(",", ":"), sort_keys=True).encode(),
        statement.to_bytes().replace(b'"AT"', b'"\\u0041T"'),
        statement.to_bytes()[:-1] + b',"role":"officer"}',
    ]
    for content in same:
        assert content != statement.to_bytes()
        assert_no_statement(content)


def test_a_statement_over_the_limit_is_refused() -> None:
    assert_no_statement(officer_statement().to_bytes() + b" " * MAX_STATEMENT)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_statement(content: bytes) -> None:
    assert_no_statement(content)


def test_a_fingerprint_is_read_out_in_groups_of_four() -> None:
    groups = enrolment_fingerprint(b"key", b"statement").split("-")
    assert [len(group) for group in groups] == [4] * 6
    assert all(letter in "abcdefghijklmnopqrstuvwxyz234567" for g in groups for letter in g)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.binary())
def test_different_requests_have_different_fingerprints(
    key: bytes, statement: bytes, other_key: bytes, other: bytes
) -> None:
    one = enrolment_fingerprint(key, statement)
    same = (key, statement) == (other_key, other)
    assert (enrolment_fingerprint(other_key, other) == one) is same


def test_moving_bytes_between_parts_changes_the_fingerprint() -> None:
    assert enrolment_fingerprint(b"ab", b"c") != enrolment_fingerprint(b"a", b"bc")
