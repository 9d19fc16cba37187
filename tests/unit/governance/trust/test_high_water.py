"""Versions, time and keys that were seen may not go back, except for an approved key."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from governance.trust.high_water import TrustHighWater
from tests.support.documents import NOW, raw_key

DAY = timedelta(days=1)


def test_a_country_s_version_and_the_time_only_rise() -> None:
    high_water = TrustHighWater().with_country("DK", 5, NOW).with_country("DK", 3, NOW - DAY)
    assert (high_water.countries, high_water.latest) == ({"DK": 5}, NOW)
    assert high_water.with_country("DK", 6, NOW + DAY).latest == NOW + DAY


def test_countries_are_counted_apart() -> None:
    high_water = TrustHighWater().with_country("DK", 5, NOW).with_country("EE", 1, NOW)
    assert high_water.countries == {"DK": 5, "EE": 1}


def test_a_clock_behind_the_latest_signed_time_is_raised_to_it() -> None:
    high_water = TrustHighWater(latest=NOW)
    assert high_water.later_of(NOW - DAY) == NOW
    assert high_water.later_of(NOW + DAY) == NOW + DAY
    assert TrustHighWater().later_of(NOW) == NOW


def test_an_approved_key_starts_its_versions_again() -> None:
    high_water = TrustHighWater(
        countries={"DK": 5, "EE": 2}, keys={"EE": raw_key(1).public.to_text()}
    )
    approved = high_water.with_approved_key("DK", raw_key(7).public)
    assert approved.countries == {"EE": 2}
    assert approved.keys["DK"] == raw_key(7).public.to_text()
    assert approved.keys["EE"] == high_water.keys["EE"]


def test_it_is_stored_as_json() -> None:
    high_water = TrustHighWater(root=2, online="abc").with_country("DK", 5, NOW)
    assert TrustHighWater.model_validate_json(high_water.model_dump_json()) == high_water


def test_a_damaged_high_water_mark_is_refused() -> None:
    with pytest.raises(ValidationError):
        TrustHighWater.model_validate({"root": -1})
    with pytest.raises(ValidationError):
        TrustHighWater.model_validate({"roots": 1})
