"""Loopback addresses, so that only this machine can reach what a daemon shows."""

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

HIGHEST_PORT = 65535


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of `127.0.0.1:9464` or `[::1]:9464`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _loopback(address: str) -> str:
    host, port = host_and_port(address)
    if not ip_address(host).is_loopback or not 0 < port <= HIGHEST_PORT:
        raise ValueError("must be a port on loopback, such as 127.0.0.1:9464")
    return address


LoopbackAddress = Annotated[
    str,
    StringConstraints(pattern=r"^(127(\.[0-9]{1,3}){3}|\[::1\]):[0-9]{1,5}$"),
    AfterValidator(_loopback),
]
"""Host and port; names are refused, because their address may change."""
