"""Decides through which proxy, if any, a party reaches the exchange.

The variables are those that gRPC reads, and their usual relatives in capitals. gRPC can pass an
HTTP proxy with CONNECT; TLS goes through it, so the proxy sees the exchange's address and nothing
else. A call to this machine itself uses no proxy.
"""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

VARIABLES = (
    "grpc_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
)
"""The variables that may name a proxy; the first one that is set counts."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
"""The variables that name hosts to which no proxy is used; the first one that is set counts."""


@dataclass(frozen=True)
class Route:
    """How the exchange is reached: by the proxy at the URL `proxy`, or directly.

    `says` describes it for people, without the proxy's password; empty if there is nothing to say.
    """

    proxy: str | None = None
    says: str = ""

    @property
    def options(self) -> list[tuple[str, str | int]]:
        """The options of a gRPC channel for this route."""
        if self.proxy is None:
            return [("grpc.enable_http_proxy", 0)]
        return [("grpc.http_proxy", self.proxy)]


def route_to(address: str, environment: Mapping[str, str]) -> Route:
    """Return the route to the exchange at `host:port`."""
    host = address.rsplit(":", 1)[0].strip("[]").lower()
    variable = next((name for name in VARIABLES if environment.get(name)), None)
    if variable is None or _is_loopback(host):
        return Route()
    if not _is_excepted(host, environment):
        return _by(variable, environment[variable])
    return Route(says=f"directly, as no_proxy says, although {variable} is set")


def _by(variable: str, url: str) -> Route:
    parts = _parts(url)
    if parts is None:
        return Route(
            says=f"directly: the variable {variable} is ignored, because it names no HTTP proxy "
            "such as http://proxy.example.org:3128"
        )
    host, port = parts
    return Route(
        url if "://" in url else f"http://{url}",
        f"through the proxy {host}:{port}, which the variable {variable} names",
    )


def _parts(url: str) -> tuple[str, int] | None:
    """Return host and port of an HTTP proxy; None if the URL names none."""
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme == "http" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    return None


def _is_loopback(host: str) -> bool:
    address = _ip(host)
    return address.is_loopback if address else host == "localhost"


def _is_excepted(host: str, environment: Mapping[str, str]) -> bool:
    listed = next((environment[name] for name in EXCEPTIONS if environment.get(name)), "")
    return any(_matches(host, pattern.strip().lower()) for pattern in listed.split(","))


def _matches(host: str, pattern: str) -> bool:
    """Return whether a name, the end of a name, an address or a network covers a host."""
    address = _ip(host)
    if pattern == "*" or not pattern:
        return bool(pattern)
    if address is None:
        return host == pattern or host.endswith(f".{pattern.lstrip('.')}")
    with suppress(ValueError):
        return address in ipaddress.ip_network(pattern, strict=False)
    return False


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
