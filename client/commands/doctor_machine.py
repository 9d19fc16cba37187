"""The checks of `doctor` that concern the machine: disk, local socket, policy engine, clock."""

import json
import shutil
from datetime import datetime
from pathlib import Path

from client.commands.check_result import NeedsAttention, SkipCheck
from client.home import NodeHome
from governance.cedar.engine import check_base
from governance.cedar.texts import BASE_POLICY
from governance.runtime.homes import require_room_for_socket
from keys.errors import PratiqueError
from protocols.wire.encoding import check_json
from protocols.wire.exchange_clock import TOLERATED, ExchangeClock, in_words

MIN_FREE_BYTES, LOW_FREE_BYTES = 200 * 2**20, 2 * 2**30
SET_CLOCK = "set the clock of this machine, and synchronise it with NTP"


def check_disk(folder: Path) -> str:
    """Return how much of the disk is free. Raises PratiqueError if it is too little."""
    free = shutil.disk_usage(folder).free
    finding = f"{free / 2**30:.1f} GiB free"
    fix = f"free space on the disk of {folder}"
    if free < MIN_FREE_BYTES:
        raise PratiqueError(
            finding, why="if the disk is full, the node refuses every request", fix=fix
        )
    if free < LOW_FREE_BYTES:
        raise NeedsAttention(finding, fix)
    return finding


def check_machine(home: NodeHome) -> str:
    """Return that a daemon can work here. Raises PratiqueError if something prevents it."""
    require_room_for_socket(home.path, home.socket)
    check_base(BASE_POLICY)  # in a child process, which a service's limits could forbid
    return "the daemon's socket has room for its name, and the policy engine's process runs"


def check_clock(
    now: datetime, signed: datetime | None, timestamp: bytes | None, clock: ExchangeClock | None
) -> str:
    """Return how the clock agrees with signed times and with the exchange.

    `signed` is the newest signed time that the node knows, `timestamp` the exchange's metadata.
    Raises PratiqueError, NeedsAttention, SkipCheck.
    """
    difference = clock.difference() if clock else ""
    if clock is not None and not clock.is_tolerated:
        raise PratiqueError(
            f"The clocks differ: {difference}",
            why=f"a node signs in if they differ by at most {in_words(TOLERATED)}",
            fix=f"{SET_CLOCK}; if it is right, notify the coordinator",
        )
    _check_signed(now, signed)
    _check_timestamp(now, time_in(timestamp, "expires"))
    if difference:
        raise NeedsAttention(
            f"{difference}; the node signs in all the same, with the exchange's time", SET_CLOCK
        )
    if signed is None:
        raise SkipCheck("no signed time is known yet")
    measured = clock is not None and clock.offset is not None
    says = "and in step with the exchange's clock" if measured else "as far as is known"
    return f"{now:%Y-%m-%d %H:%M} UTC, consistent with signed times {says}"


def _check_signed(now: datetime, signed: datetime | None) -> None:
    if signed is not None and signed - now > TOLERATED:
        raise PratiqueError(
            f"The clock is behind by {in_words(signed - now)} or more",
            why=f"a document was signed at {signed:%Y-%m-%d %H:%M} UTC; this clock shows "
            f"{now:%Y-%m-%d %H:%M} UTC",
            fix=SET_CLOCK,
        )


def _check_timestamp(now: datetime, expires: datetime | None) -> None:
    if expires is not None and expires < now:
        raise PratiqueError(
            "The exchange's newest timestamp has expired",
            why=f"it was valid until {expires:%Y-%m-%d %H:%M} UTC; this clock shows "
            f"{now:%Y-%m-%d %H:%M} UTC",
            fix="check this machine's clock; if it is right, the coordinator must be started",
        )


def time_in(metadata: bytes | None, name: str) -> datetime | None:
    """Return a time in metadata that are read without verification; None if there is none."""
    try:
        text = json.loads(check_json(metadata or b"{}"))["signed"][name]
        stated = datetime.fromisoformat(text)
    except (ValueError, KeyError, TypeError):
        return None
    return None if stated.utcoffset() is None else stated
