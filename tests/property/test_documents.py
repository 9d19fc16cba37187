"""Parsers of outside bytes raise DocumentFault, or return what the bytes say."""

import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance.cedar.engine import check_national
from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.permit import NodeKeys, Permit, Withdrawal
from governance.documents.reading import read_document
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.bundle import own_country
from governance.trust.ceremony import read_root
from governance.trust.client import PUBLISHED_NAME
from keys.identity import SigningKey
from tests.support.document_samples import BUNDLE, METADATA, SAMPLES
from tests.support.documents import (
    NOW,
    raw_key,
)

ORIGINAL = own_country(BUNDLE.canonical(), "DK", raw_key(100).public, NOW)
KINDS = [type(sample) for sample in SAMPLES]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def faults_only(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except DocumentFault:
        return None


@given(data=st.binary(max_size=400), kind=st.sampled_from(KINDS))
def test_any_bytes_as_a_signed_document(data: bytes, kind: type[Document]) -> None:
    parsed = faults_only(lambda: kind.from_canonical(data))
    assert parsed is None or parsed.canonical() == data


@given(data=st.data(), sample=st.sampled_from(SAMPLES))
def test_a_signed_document_with_any_field_changed(data: st.DataObject, sample: Document) -> None:
    fields = json.loads(sample.canonical())
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(json_values)
    written = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    parsed = faults_only(lambda: type(sample).from_canonical(written))
    assert parsed is None or parsed.canonical() == written


KEYS = [SigningKey.generate().public.to_text() for _ in range(40)]
COORDINATOR_KEYS = ("identity_key", "document_key", "online_key", "log_key")


def terms_of(agreement: Agreement) -> Agreement:
    """Return what an agreement's digest covers: everything except the keys."""
    parties = dict(zip((p.country for p in agreement.parties), KEYS[4:], strict=False))
    keys = dict(zip(COORDINATOR_KEYS, KEYS, strict=False))
    return agreement.with_officer_keys(parties).with_coordinator_keys(keys)


@given(data=st.data(), sample=st.sampled_from(SAMPLES))
def test_a_signed_document_with_a_bit_flipped_is_another_or_none(
    data: st.DataObject, sample: Document
) -> None:
    whole = sample.canonical()
    position = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :]
    parsed = faults_only(lambda: type(sample).from_canonical(flipped))
    if isinstance(sample, Agreement) and isinstance(parsed, Agreement):
        assert (parsed.digest == sample.digest) == (terms_of(parsed) == terms_of(sample))
    assert parsed is None or parsed.canonical() != whole
    assert parsed is None or isinstance(parsed, Agreement) or parsed.digest != sample.digest


@given(text=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_text_as_yaml(text: bytes) -> None:
    faults_only(lambda: read_document(Withdrawal, text, "paper.yaml"))


yaml_like = st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t~0.1", max_size=120)


@given(text=yaml_like)
def test_any_yaml_grammar(text: str) -> None:
    faults_only(lambda: read_document(Withdrawal, text.encode(), "paper.yaml"))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(values=json_values, kind=st.sampled_from([Agreement, Study, Permit, Withdrawal, NodeKeys]))
def test_any_values_as_a_yaml_document(values: Any, kind: type[Document]) -> None:
    text = json.dumps(values).encode()
    faults_only(lambda: read_document(kind, text, "paper.yaml"))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), sample=st.sampled_from(SAMPLES[:5]))
def test_any_wrong_field_of_a_yaml_document_is_named(data: st.DataObject, sample: Document) -> None:
    fields = json.loads(sample.canonical())
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(json_values)
    faults_only(lambda: read_document(type(sample), json.dumps(fields).encode(), "paper.yaml"))


@given(data=st.binary(max_size=300))
def test_any_bytes_as_a_root_or_a_bundle(data: bytes) -> None:
    assert faults_only(lambda: read_root(data)) is None
    assert faults_only(lambda: own_country(data, "DK", raw_key(100).public, NOW)) is None


@given(values=json_values)
def test_any_json_as_metadata_of_a_bundle(values: Any) -> None:
    bundle = BUNDLE.model_copy(update={"metadata": json.dumps(values)})
    signed = bundle.canonical()
    assert faults_only(lambda: own_country(signed, "DK", raw_key(100).public, NOW)) is None


@given(data=st.data())
def test_metadata_with_any_part_changed_say_the_same_or_do_not_verify(data: st.DataObject) -> None:
    metadata = json.loads(METADATA)
    name = data.draw(st.sampled_from(sorted(metadata["signed"])))
    value = data.draw(json_values.filter(lambda v: v != metadata["signed"][name]))
    metadata["signed"][name] = value
    bundle = BUNDLE.model_copy(update={"metadata": json.dumps(metadata)}).canonical()
    parsed = faults_only(lambda: own_country(bundle, "DK", raw_key(100).public, NOW))
    # python-tuf fills in missing versions with its defaults before it verifies
    assert parsed in (None, ORIGINAL)


@given(text=st.text(alphabet=string.printable, max_size=200))
def test_any_text_as_a_national_policy(text: str) -> None:
    faults_only(lambda: check_national(text))


@given(text=st.text(alphabet='@id("a") permit forbid,(;)whenunless{}.context', max_size=80))
def test_no_text_becomes_a_permit(text: str) -> None:
    if "permit" in text and "forbid" not in text:
        with pytest.raises(DocumentFault):
            check_national(f'{text}\n@id("x") permit (principal, action, resource);')


names = st.text(alphabet="abcdef0123456789./-_%\\\n", max_size=120)


@given(name=names, prefix=st.sampled_from(["", "metadata/", "targets/", "targets/country-DK/"]))
def test_a_file_name_stays_inside_the_folder(name: str, prefix: str) -> None:
    if PUBLISHED_NAME.fullmatch(prefix + name):
        assert ".." not in name
        assert "\n" not in name
        assert not name.startswith("/")
