import json
from datetime import timedelta
from typing import Any

import pytest

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from governance.trust import ceremony
from governance.trust.ceremony import Draft, SignatureSet, sign_draft
from keys.identity import SigningKey
from tests.support.documents import DAY, NOW, SLASHED, agreement, agreement_fields, raw_key

AGREED = agreement()


def draft(agreed: Agreement = AGREED, version: int = 1) -> Draft:
    return Draft(version=version, drafted=NOW, agreement=agreed)


def signed(*keys: SigningKey, of: Draft | None = None, **changes: Any) -> SignatureSet:
    defaults: dict[str, Any] = {"previous_root": None, "now": NOW}
    return SignatureSet.from_canonical(sign_draft(of or draft(), *keys, **(defaults | changes)))


def officers(*numbers: int) -> list[SigningKey]:
    return [raw_key(100 + n) for n in numbers]


def test_a_draft_is_one_file() -> None:
    assert Draft.from_canonical(draft().canonical()) == draft()


def test_a_draft_cannot_have_other_keys_than_the_agreement() -> None:
    fields = json.loads(draft().canonical()) | {"root": {"keys": {}}}
    with pytest.raises(DocumentFault):
        Draft.from_canonical(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("numbers", "needed"), [((), 3), ((0,), 2), ((0, 1), 1), ((0, 1, 2), 0), ((0, 1, 2, 3), 0)]
)
def test_the_status_counts_to_the_threshold(numbers: tuple[int, ...], needed: int) -> None:
    status = ceremony.status(draft(), signed(*officers(*numbers)), None)
    names = ("DK", "EE", "NO", "PT")
    assert status.needed == needed
    assert status.ready is (needed == 0)
    assert status.signed == tuple(names[n] for n in numbers)
    assert set(status.signed) | set(status.unsigned) == set(names)


def test_signatures_are_merged_one_by_one() -> None:
    first, second = signed(*officers(0)), signed(*officers(1))
    assert ceremony.status(draft(), first.merged_with(second), None).signed == ("DK", "EE")


def test_signatures_over_another_draft_are_not_merged() -> None:
    other = draft(agreement(title="Another title"))
    with pytest.raises(DocumentFault, match="another draft"):
        signed(*officers(0)).merged_with(signed(*officers(1), of=other))


def test_the_same_officer_twice_counts_once() -> None:
    twice = signed(*officers(0)).merged_with(signed(*officers(0)))
    assert ceremony.status(draft(), twice, None).needed == 2


def test_a_signature_moved_from_another_draft_is_refused() -> None:
    moved = signed(*officers(0), of=draft(agreement(title="Another"))).model_copy(
        update={"draft": draft().digest}
    )
    with pytest.raises(DocumentFault, match="does not verify"):
        ceremony.status(draft(), moved, None)


def test_a_signature_under_another_officer_s_name_is_refused() -> None:
    (only,) = signed(*officers(0)).root.values()
    stranger = "f" * 64
    for name in (stranger, *signed(*officers(1)).root):
        forged = signed(*officers(0)).model_copy(update={"root": {name: only}})
        with pytest.raises(DocumentFault, match="does not verify"):
            ceremony.status(draft(), forged, None)


def test_a_stranger_cannot_sign() -> None:
    with pytest.raises(DocumentFault, match="not a country's key"):
        signed(raw_key(55))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_coordinator_s_keys_cannot_sign(number: int) -> None:
    with pytest.raises(DocumentFault, match="not a country's key"):
        signed(raw_key(number))


def test_an_officer_signs_no_expired_draft_and_none_dated_in_the_future() -> None:
    with pytest.raises(DocumentFault) as caught:
        signed(*officers(0), now=AGREED.sunset)
    assert "ended" in caught.value.why
    with pytest.raises(DocumentFault) as caught:
        signed(*officers(0), now=NOW - DAY)
    assert "future" in caught.value.why
    assert signed(*officers(0), now=NOW - timedelta(minutes=5))


def root_bytes(agreed: Agreement, version: int) -> bytes:
    return draft(agreed, version).root().to_bytes()


@pytest.mark.parametrize("version", [1, 3])
def test_a_draft_follows_the_root_that_the_officer_trusts(version: int) -> None:
    with pytest.raises(DocumentFault) as caught:
        signed(*officers(0), of=draft(version=version), previous_root=root_bytes(AGREED, 1))
    assert f"it is version {version}; the next one is 2" in caught.value.why
    assert signed(*officers(0), of=draft(version=2), previous_root=root_bytes(AGREED, 1))


def test_a_second_version_is_not_signed_without_the_first() -> None:
    with pytest.raises(DocumentFault, match="cannot be signed"):
        signed(*officers(0), of=draft(version=2))


def test_a_malformed_previous_root_is_refused() -> None:
    for data in (b"", b"{}", draft().targets().to_bytes()):
        with pytest.raises(DocumentFault, match="not a TUF root"):
            signed(*officers(0), of=draft(version=2), previous_root=data)


def rekeyed() -> Agreement:
    parties = agreement_fields()["parties"]
    parties[0] = parties[0] | {"officer_key": raw_key(200).public.to_text()}
    return agreement(parties=parties)


def test_an_amendment_needs_the_old_threshold_and_the_new_one() -> None:
    previous = root_bytes(AGREED, 1)
    old = ceremony.read_root(previous)
    new = draft(rekeyed(), 2)
    three_new = signed(raw_key(200), *officers(1, 2), of=new, previous_root=previous)
    status = ceremony.status(new, three_new, old)
    assert status.needed == 1
    assert "former DK" in status.unsigned
    with_old = three_new.merged_with(signed(*officers(0), of=new, previous_root=previous))
    assert ceremony.status(new, with_old, old).ready
    assert "former DK" in ceremony.status(new, with_old, old).signed


def test_a_former_key_counts_for_the_old_threshold_only() -> None:
    previous = root_bytes(AGREED, 1)
    new = draft(rekeyed(), 2)
    partly_signed = signed(*officers(0, 1, 2), of=new, previous_root=previous)
    assert ceremony.status(new, partly_signed, ceremony.read_root(previous)).needed == 1


@pytest.mark.parametrize(
    "change",
    [
        {"root": {"xyz": "0" * 128}},
        {"root": {"0" * 64: "short"}},
        {"draft": "sha256:1"},
        {"more": 1},
    ],
)
def test_malformed_signatures_are_refused(change: dict[str, Any]) -> None:
    empty = SignatureSet(draft=SLASHED, root={}, targets={})
    fields = json.loads(empty.canonical()) | change
    with pytest.raises(DocumentFault, match="set of signatures"):
        SignatureSet.from_canonical(
            json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        )
