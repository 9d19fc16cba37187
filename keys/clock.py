"""Reads the machine's clock. Code that decides gets the time as an argument instead."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the machine's current time, UTC."""
    return datetime.now(UTC)
