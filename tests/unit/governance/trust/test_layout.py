from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from governance.errors import DocumentFault
from governance.trust.layout import (
    PARTY_FIELD,
    SIGNED_AT_FIELD,
    build_root,
    build_targets,
    is_country_path,
    key_id,
    node_path,
    permit_path,
    policy_path,
    signed_at,
    signer,
    tuf_key,
    withdrawal_path,
)
from tests.support.documents import COUNTRIES, NOW, agreement, raw_key

AGREED = agreement()
DIGEST = "sha256:" + "a" * 64


def test_root_and_targets_need_the_threshold_of_the_countries_keys() -> None:
    root = build_root(AGREED, 1, NOW)
    officers = {key_id(raw_key(100 + n).public) for n in range(4)}
    for name in ("root", "targets"):
        assert set(root.roles[name].keyids) == officers
        assert root.roles[name].threshold == 3


def test_snapshot_and_timestamp_need_the_online_key_only() -> None:
    root = build_root(AGREED, 1, NOW)
    for name in ("snapshot", "timestamp"):
        assert root.roles[name].keyids == [key_id(raw_key(3).public)]
        assert root.roles[name].threshold == 1


def test_a_root_names_the_owner_of_each_key() -> None:
    keys = build_root(AGREED, 1, NOW).keys
    for n, country in enumerate(COUNTRIES):
        named = keys[key_id(raw_key(100 + n).public)].unrecognized_fields[PARTY_FIELD]
        assert named == f"country-{country}"


def test_nothing_outlives_the_agreement() -> None:
    late = AGREED.sunset - timedelta(days=30)
    assert build_root(AGREED, 1, late).expires == AGREED.sunset
    assert build_targets(AGREED, 1, late).expires == AGREED.sunset


def test_root_and_targets_are_signed_again_each_year() -> None:
    assert build_root(AGREED, 1, NOW).expires == NOW + timedelta(days=365)
    assert build_targets(AGREED, 1, NOW).expires == NOW + timedelta(days=365)


def test_targets_hold_the_agreement_only_and_a_role_for_each_party() -> None:
    targets = build_targets(AGREED, 3, NOW)
    assert list(targets.targets) == ["agreement.json"]
    assert targets.delegations is not None
    roles = targets.delegations.roles
    assert roles is not None
    assert set(roles) == {"coordinator", *(f"country-{c}" for c in COUNTRIES)}
    assert all(role.threshold == 1 and role.terminating for role in roles.values())


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("country-DK/node.json", "country-DK"),
        ("country-DK/policy.cedar", "country-DK"),
        (permit_path("NO", DIGEST), "country-NO"),
        (withdrawal_path("NO", DIGEST), "country-NO"),
        ("studies/a.json", "coordinator"),
        ("releases/a.json", "coordinator"),
        ("country-SE/node.json", None),
        ("country-DK/permits/deep/er.json", None),
        ("agreement.json", None),
    ],
)
def test_each_path_is_delegated_to_one_role(path: str, role: str | None) -> None:
    delegations = build_targets(AGREED, 1, NOW).delegations
    assert delegations is not None
    roles = [name for name, _ in delegations.get_roles_for_target(path)]
    assert roles == ([role] if role else [])


@pytest.mark.parametrize(
    "path",
    [node_path("DK"), policy_path("DK"), permit_path("DK", DIGEST), withdrawal_path("DK", DIGEST)],
)
def test_a_country_may_list_its_own_paths(path: str) -> None:
    assert is_country_path("DK", path)
    assert not is_country_path("NO", path)


@pytest.mark.parametrize(
    "path",
    [
        "country-DK/../country-NO/node.json",
        "country-DK/permits/short.json",
        "country-DK/permits/" + "A" * 64 + ".json",
        "country-DK/anything.json",
        "country-DK/node.json/",
        "country-DKX/node.json",
        "agreement.json",
        "",
    ],
)
def test_a_country_may_not_list_other_paths(path: str) -> None:
    assert not is_country_path("DK", path)


def test_metadata_state_when_they_were_signed() -> None:
    moment = datetime(2026, 9, 1, 12, 0, 5, tzinfo=UTC)
    assert signed_at(build_root(AGREED, 1, moment)) == moment
    other = moment.astimezone() + timedelta(0)
    assert signed_at(build_targets(AGREED, 1, other)) == moment


@pytest.mark.parametrize("expected", [None, 5, "yesterday", "2026-09-01"])
def test_metadata_without_a_signing_time_are_refused(expected: object) -> None:
    targets = Targets(unrecognized_fields={SIGNED_AT_FIELD: expected})
    with pytest.raises(DocumentFault, match="do not say when"):
        signed_at(targets)


def test_keys_sign_as_python_tuf_expects() -> None:
    metadata = Metadata(build_root(AGREED, 1, NOW))
    for n in (100, 101, 102):
        metadata.sign(signer(raw_key(n)), append=True)
    read = Metadata[Root].from_bytes(metadata.to_bytes())
    read.signed.verify_delegate("root", read.signed_bytes, read.signatures)


def test_a_key_s_id_does_not_depend_on_whose_it_is() -> None:
    key = raw_key(9).public
    assert tuf_key(key, "country-DK").keyid == tuf_key(key, "coordinator").keyid == key_id(key)
