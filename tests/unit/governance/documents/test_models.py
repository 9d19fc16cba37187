import json
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, ValidationError

from governance.documents.models import (
    MAX_BYTES,
    Countries,
    Country,
    Document,
    Ehds,
    Line,
    PublicKey,
    Slug,
    UtcTime,
)
from governance.documents.permit import Withdrawal
from governance.errors import DocumentFault
from keys.errors import PratiqueError
from protocols.wire.encoding import digest
from tests.support.documents import NOW, agreement, raw_key, study, withdrawal


class Sample(BaseModel):
    country: Country = "DK"
    countries: Countries = ("DK",)
    slug: Slug = "a"
    line: Line = "a"
    key: PublicKey = raw_key(1).public.to_text()
    moment: UtcTime = NOW
    ehds: Ehds = "53-1-e"


def problem(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate(fields)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize("code", ["DK", "NO", "XK", "AA", "QM", "ZZ"])
def test_standard_and_user_assigned_country_codes_are_accepted(code: str) -> None:
    assert Sample(country=code).country == code


@pytest.mark.parametrize("code", ["dk", "DNK", "D", "QA1", "EU", ""])
def test_other_country_codes_are_refused(code: str) -> None:
    assert "ISO 3166-1" in problem(country=code)


def test_uk_is_refused_with_the_code_gb() -> None:
    assert "did you mean GB?" in problem(country="UK")


def test_countries_are_sorted_and_distinct() -> None:
    assert Sample(countries=("NO", "DK")).countries == ("DK", "NO")
    assert "twice" in problem(countries=["DK", "DK"])


@pytest.mark.parametrize("text", ["", "a\nb", " a", "a ", "\u202etxt.exe", "x" * 201])
def test_a_line_must_not_hide_anything(text: str) -> None:
    assert problem(line=text)


@pytest.mark.parametrize("text", ["A", "-a", "a_b", "a" * 64, "a/b", "..", ""])
def test_a_slug_is_safe_in_a_path(text: str) -> None:
    assert problem(slug=text)


def test_a_key_has_one_canonical_form_and_must_be_valid() -> None:
    good = raw_key(7).public.to_text()
    assert Sample(key=good).key == good
    assert "Ed25519" in problem(key=good[:-1])
    assert "Ed25519" in problem(key="ed25519:" + "A" * 43 + "=")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-12-31T10:00:00Z", datetime(2026, 12, 31, 10, tzinfo=UTC)),
        ("2026-12-31T12:00:00+02:00", datetime(2026, 12, 31, 10, tzinfo=UTC)),
    ],
)
def test_times_become_utc(written: str, meant: datetime) -> None:
    moment = Sample.model_validate_json(json.dumps({"moment": written}), strict=True).moment
    assert moment == meant
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-12-31T10:00:00", "time zone"),
        ("2026-12-31T10:00:00.5Z", "whole second"),
        ("31.12.2026", "expected a date such as"),
        ("soon", "expected a date such as"),
    ],
)
def test_other_times_are_refused(written: str, expected: str) -> None:
    assert expected in problem(moment=written)


def test_an_unknown_code_suggests_the_nearest() -> None:
    assert "did you mean 53-1-e" in problem(ehds="53-1e")


@pytest.mark.parametrize(
    "document", [agreement(), study(agreement()), withdrawal(study(agreement()))]
)
def test_canonical_bytes_are_read_back(document: Document) -> None:
    kind = type(document)
    assert kind.from_canonical(document.canonical()) == document
    assert document.digest == kind.from_canonical(document.canonical()).digest


def test_default_values_are_part_of_the_signed_bytes() -> None:
    fields = json.loads(agreement().canonical())
    assert fields["policy"].startswith("// The base policy")
    assert fields["schema"] == 1


def changed(change: object) -> bytes:
    fields = json.loads(withdrawal(study(agreement())).canonical())
    fields |= change
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"null",
        changed({"schema": 2}),
        changed({"kind": "permit"}),
        changed({"extra": 1}),
        changed({"country": "dk"}),
        changed({"schema": "1"}),
        changed({}).replace(b",", b", ", 1),
        changed({}) + b"\n",
        changed({})[:-1] + b',"country":"DK"}',
        changed({"reason": "x" * MAX_BYTES}),
    ],
)
def test_anything_but_the_signed_form_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentFault) as caught:
        Withdrawal.from_canonical(data)
    assert "withdrawal" in caught.value.what
    assert caught.value.fix


def test_a_document_cannot_be_changed() -> None:
    document = withdrawal(study(agreement()))
    with pytest.raises(ValidationError):
        document.reason = "another"  # type: ignore[misc]  # this assignment must fail


def test_document_faults_are_pratique_errors() -> None:
    assert issubclass(DocumentFault, PratiqueError)


def test_a_digest_is_computed_once_and_a_copy_computes_its_own() -> None:
    original = study(agreement())
    assert original.digest is original.digest
    for changed in (
        original.model_copy(update={"title": "Another"}),
        original.with_mechanisms(()),
        original.model_copy(update={"title": "Another"}, deep=True),
    ):
        assert changed.digest == digest(changed.canonical()) != original.digest
    assert original.model_copy() == original
    assert original.model_copy().digest == original.digest
