"""The machine's clock: the default one; whatever decides takes the time as an argument."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time of the machine, UTC."""
    return datetime.now(UTC)
