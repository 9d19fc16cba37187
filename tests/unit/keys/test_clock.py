from datetime import UTC, datetime, timedelta

from keys.clock import utc_now


def test_it_is_the_machine_s_time_in_utc() -> None:
    before, read, after = datetime.now(UTC), utc_now(), datetime.now(UTC)
    assert before <= read <= after
    assert read.utcoffset() == timedelta(0)
