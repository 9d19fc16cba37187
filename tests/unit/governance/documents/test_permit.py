"""Permits are numbered; node keys are two keys, and succeed others only with their signature."""

from typing import Any

import pytest
from pydantic import ValidationError

from governance.documents.permit import NodeKeys, Permit
from governance.documents.succession import succeeding
from tests.support.documents import NOW, agreement, node_keys, permit, raw_key, study

AGREED = agreement()
ASKED = study(AGREED)


def test_a_first_permit_has_no_number_field_and_is_number_one() -> None:
    first = permit(AGREED, ASKED)
    assert first.number == 1
    assert b"earlier" not in first.canonical()


def test_a_later_permit_states_how_many_came_before() -> None:
    third = permit(AGREED, ASKED, earlier=2)
    assert third.number == 3
    assert Permit.from_canonical(third.canonical()) == third


def test_earlier_permits_are_counted_from_one() -> None:
    with pytest.raises(ValidationError):
        permit(AGREED, ASKED, earlier=0)


def test_identity_and_log_key_must_differ() -> None:
    fields = node_keys("DK").model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError, match="must be two keys"):
        NodeKeys.model_validate(fields | {"log_key": fields["identity_key"]})


def following(**changes: Any) -> dict[str, Any]:
    """Return the fields of DK's next node keys, with the former key's signature."""
    new = node_keys("DK").model_copy(update={"identity_key": raw_key(7).public.to_text()})
    keys = succeeding(raw_key(1_000), raw_key(7), new.stated(), NOW)
    fields = new.model_dump(mode="json", by_alias=True)
    return fields | {"succession": keys.model_dump(mode="json")} | changes


def test_new_keys_have_the_signature_of_the_former_one() -> None:
    keys = NodeKeys.model_validate(following())
    assert keys.succession
    assert keys.succession.former == node_keys("DK").identity_key


@pytest.mark.parametrize(
    "changes",
    [
        {"log_key": raw_key(8).public.to_text()},
        {"country": "EE"},
        {"log_origin": "nordic-heart/other"},
        {"identity_key": raw_key(9).public.to_text()},
    ],
)
def test_the_signature_covers_every_key_and_the_country(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="succession is not signed"):
        NodeKeys.model_validate(following(**changes))
