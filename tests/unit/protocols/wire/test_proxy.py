"""Which proxy leads to the exchange, and that nothing else is used than what is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.wire.proxy import EXCEPTIONS, VARIABLES, Route, route_to

EXCHANGE = "exchange.example.org:7443"
PROXY = "http://proxy.example.org:3128"
DIRECT = [("grpc.enable_http_proxy", 0)]


def test_without_a_variable_the_connection_is_direct() -> None:
    assert route_to(EXCHANGE, {}) == Route()
    assert Route().options == DIRECT


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_names_a_proxy_and_is_shown(variable: str) -> None:
    route = route_to(EXCHANGE, {variable: PROXY})
    assert route.options == [("grpc.http_proxy", PROXY)]
    assert route.says == (
        f"through the proxy proxy.example.org:3128, which the variable {variable} names"
    )


def test_the_first_variable_counts() -> None:
    environment = {"ALL_PROXY": "socks5://x:1", "https_proxy": PROXY, "http_proxy": "http://y:2"}
    assert route_to(EXCHANGE, environment).proxy == PROXY


def test_a_password_is_not_shown() -> None:
    route = route_to(EXCHANGE, {"https_proxy": "http://user:secret@proxy.example.org:3128"})
    assert route.proxy == "http://user:secret@proxy.example.org:3128"
    assert "secret" not in route.says
    assert "user" not in route.says


@pytest.mark.parametrize(
    "url", ["socks5://127.0.0.1:9", "https://p:1", "http://p", "http://[::1", "http://p:99999", "x"]
)
def test_what_grpc_cannot_use_is_ignored_and_named(url: str) -> None:
    route = route_to(EXCHANGE, {"ALL_PROXY": url})
    assert route.options == DIRECT
    assert "ALL_PROXY is ignored" in route.says


@pytest.mark.parametrize("url", ["proxy.example.org:3128", "proxy:80"])
def test_a_proxy_without_a_scheme_is_an_http_proxy(url: str) -> None:
    assert route_to(EXCHANGE, {"http_proxy": url}).proxy == f"http://{url}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "[::1]"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert route_to(f"{host}:7443", dict.fromkeys(VARIABLES, PROXY)) == Route()


@pytest.mark.parametrize(
    ("address", "listed", "direct"),
    [
        (EXCHANGE, "example.org", True),
        (EXCHANGE, ".example.org", True),
        (EXCHANGE, "other.org, exchange.example.org", True),
        (EXCHANGE, "EXCHANGE.example.ORG", True),
        (EXCHANGE, "*", True),
        (EXCHANGE, "ample.org", False),
        (EXCHANGE, "org.example", False),
        (EXCHANGE, "", False),
        (EXCHANGE, ",", False),
        ("10.1.2.3:7443", "10.0.0.0/8", True),
        ("10.1.2.3:7443", "10.1.2.3", True),
        ("10.1.2.3:7443", "192.168.0.0/16", False),
        ("10.1.2.3:7443", "not a network", False),
        ("[2001:db8::1]:7443", "2001:db8::/32", True),
    ],
)
@pytest.mark.parametrize("variable", EXCEPTIONS)
def test_hosts_without_a_proxy(address: str, listed: str, direct: bool, variable: str) -> None:
    route = route_to(address, {"https_proxy": PROXY, variable: listed})
    assert (route.proxy is None) == direct
    assert ("no_proxy" in route.says) == direct


@given(
    environment=st.dictionaries(st.sampled_from(VARIABLES + EXCEPTIONS), st.text(max_size=30)),
    host=st.sampled_from(["exchange.example.org", "10.1.2.3", "[2001:db8::1]", "127.0.0.1"]),
)
def test_any_environment_gives_a_route_that_is_said(environment: dict[str, str], host: str) -> None:
    route = route_to(f"{host}:7443", environment)
    assert (route.proxy is None) == (route.options == DIRECT)
    if route.proxy:
        assert route.says.startswith("through the proxy")
        assert host != "127.0.0.1"
