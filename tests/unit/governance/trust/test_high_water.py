"""What was seen may not go back: versions, time, and keys until somebody approves another."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from governance.trust.high_water import TrustHighWater
from tests.support.documents import NOW, raw_key

DAY = timedelta(days=1)


def test_a_country_s_version_and_the_time_only_rise() -> None:
    seen = TrustHighWater().with_country("DK", 5, NOW).with_country("DK", 3, NOW - DAY)
    assert (seen.countries, seen.latest) == ({"DK": 5}, NOW)
    assert seen.with_country("DK", 6, NOW + DAY).latest == NOW + DAY


def test_countries_are_counted_apart() -> None:
    seen = TrustHighWater().with_country("DK", 5, NOW).with_country("EE", 1, NOW)
    assert seen.countries == {"DK": 5, "EE": 1}


def test_a_clock_behind_the_latest_signed_time_is_raised_to_it() -> None:
    seen = TrustHighWater(latest=NOW)
    assert seen.raised_to(NOW - DAY) == NOW
    assert seen.raised_to(NOW + DAY) == NOW + DAY
    assert TrustHighWater().raised_to(NOW) == NOW


def test_an_approved_key_begins_its_versions_anew() -> None:
    seen = TrustHighWater(countries={"DK": 5, "EE": 2}, keys={"EE": raw_key(1).public.to_text()})
    approved = seen.approve_key("DK", raw_key(7).public)
    assert approved.countries == {"EE": 2}
    assert approved.keys["DK"] == raw_key(7).public.to_text()
    assert approved.keys["EE"] == seen.keys["EE"]


def test_it_is_stored_as_json() -> None:
    seen = TrustHighWater(root=2, online="abc").with_country("DK", 5, NOW)
    assert TrustHighWater.model_validate_json(seen.model_dump_json()) == seen


def test_a_damaged_memory_is_not_read() -> None:
    with pytest.raises(ValidationError):
        TrustHighWater.model_validate({"root": -1})
    with pytest.raises(ValidationError):
        TrustHighWater.model_validate({"roots": 1})
